"""Weighted picks along one dim: a sparse matrix times every vector along it.  The rule is the
same with the matrix turned."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.kinds import linear
from tensorgrad.ops.windows import wide

Array = np.ndarray[Any, np.dtype[Any]]
Places = slice | Array


class Step(NamedTuple):
    """One tap: out[into] += weight * x[places], but nothing where there are holes.

    into: None for all outputs.  weight: one number where all agree, else one for each of `into`.
    """

    into: Places | None
    places: Places
    weight: Any
    holes: Array | None


class Blend:
    """out[o] = sum over t of weights[t, o] x[places[t, o]], for x of `size` elements; no weights:
    all are one.

    What has the weight zero is not looked at, so that no NaN or infinity there matters.
    """

    def __init__(self, size: int, places: Array, weights: Array | None = None) -> None:
        self.size, self.places, self.weights = size, places, weights

    @cached_property
    def turned(self) -> Blend:
        """The transposed matrix: x[i] = sum of weights[t, o] g[o] over the t and o with
        places[t, o] = i."""
        out = self.places.shape[1]
        weights = np.ones(self.places.shape) if self.weights is None else self.weights
        used = np.flatnonzero(weights)
        used = used[np.argsort(self.places.flat[used], kind="stable")]
        rows = self.places.flat[used]
        nth = np.arange(rows.size) - np.searchsorted(rows, rows)  # in its row
        shape = (int(nth.max(initial=0)) + 1, self.size)
        places, shares = np.zeros(shape, np.int64), np.zeros(shape)
        places[nth, rows] = used % max(out, 1)
        shares[nth, rows] = weights.flat[used]
        return Blend(out, places, None if (shares == 1).all() else shares)

    @cached_property
    def steps(self) -> list[Step]:
        return list(self._steps()) if self.size else []

    def _steps(self) -> Iterator[Step]:
        count = self.places.shape[1]
        for t, places in enumerate(self.places):
            if self.weights is None:
                yield Step(None, _evenly(places), 1, None)
                continue
            into = np.flatnonzero(self.weights[t])
            if not into.size:
                continue
            weights, places = self.weights[t, into], places[into]
            weight = weights if np.ptp(weights) else weights[0]
            if into.size == count:
                yield Step(None, _evenly(places), weight, None)
            elif isinstance(_evenly(into), slice) or 2 * into.size < count:
                yield Step(_evenly(into), _evenly(places), weight, None)
            else:  # picking too much is quicker than adding to a few
                weight = self.weights[t] if np.ptp(weights) else weight
                yield Step(None, self.places[t], weight, np.flatnonzero(self.weights[t] == 0))


def _evenly(places: Array) -> Places:
    """A slice, where the places are evenly spaced and rising."""
    step = int(places[1] - places[0]) if places.size > 1 else 1
    if not places.size or step < 1 or (np.diff(places) != step).any():
        return places
    return slice(int(places[0]), int(places[-1]) + 1, step)


def _blended(xp: Any, x: Any, dim: int, plan: Blend) -> Any:
    """dim counts from the end."""
    dtype, x, out = x.dtype, wide(x), None
    shape, after = list(x.shape), (slice(None),) * (-1 - dim)
    shape[dim] = plan.places.shape[1]
    for into, places, weight, holes in plan.steps:
        if isinstance(places, slice):
            part = x[(..., places, *after)]
        else:
            part = xp.take(x, xp.asarray(places), dim)
        if isinstance(weight, np.ndarray):
            part = part * xp.asarray(weight.astype(x.dtype)).reshape(-1, *(1,) * len(after))
        elif weight != 1:
            part = part * x.dtype.type(weight)
        elif isinstance(places, slice) and out is None and into is None:
            part = part.copy()
        if holes is not None:
            part[(..., xp.asarray(holes), *after)] = 0
        if into is not None:
            out = xp.zeros(shape, x.dtype) if out is None else out
            out[(..., into, *after)] += part
        elif out is None:
            out = part
        else:
            out += part
    out = xp.zeros(shape, x.dtype) if out is None else out
    return out.astype(dtype, copy=False)


blend = linear(
    "blend", lambda xp, x, /, dim, plan: _blended(xp, x, dim, plan),
    dx=lambda g, dim, plan: blend(g, dim, plan.turned),
)  # fmt: skip
