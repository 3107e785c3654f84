"""Weighted picks along one dim: a sparse matrix times every vector along it.  The rule is the same with the matrix turned."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from tensorgrad.kinds import linear
from tensorgrad.ops.windows import wide

Array = np.ndarray[Any, np.dtype[Any]]
Places = slice | Array


class Blend:
    """out[o] = sum over t of weights[t, o] x[places[t, o]], for x of `size` elements; no weights: all are one.

    What has the weight zero is not looked at, so that no NaN or infinity there matters.
    """

    def __init__(self, size: int, places: Array, weights: Array | None = None) -> None:
        self.size, self.places, self.weights = size, places, weights

    @cached_property
    def turned(self) -> Blend:
        """The transposed matrix: x[i] = sum of weights[t, o] g[o] over the t and o with places[t, o] = i."""
        out = self.places.shape[1]
        weights = np.ones(self.places.shape) if self.weights is None else self.weights
        used = np.flatnonzero(weights)
        used = used[np.argsort(self.places.flat[used], kind="stable")]
        rows = self.places.flat[used]
        turn = np.arange(rows.size) - np.searchsorted(
            rows, rows
        )  # 0 for the first of each row, then 1, ...
        shape = (int(turn.max(initial=0)) + 1, self.size)
        places, shares = np.zeros(shape, np.int64), np.zeros(shape)
        places[turn, rows] = used % max(out, 1)
        shares[turn, rows] = weights.flat[used]
        return Blend(out, places, None if (shares == 1).all() else shares)

    @cached_property
    def steps(self) -> list[tuple[Places, Places, Any]]:
        """For each tap: the outputs that it adds to, what they look at, and their weights: one number where all agree."""
        return list(self._steps())

    def _steps(self) -> Iterator[tuple[Places, Places, Any]]:
        for t, places in enumerate(self.places):
            if self.weights is None:
                yield slice(0, places.size), _evenly(places), 1
                continue
            into = np.flatnonzero(self.weights[t])
            if into.size:
                weights = self.weights[t, into]
                yield (
                    _evenly(into),
                    _evenly(places[into]),
                    weights if np.ptp(weights) else weights[0],
                )


def _evenly(places: Array) -> Places:
    """A slice, where the places are evenly spaced and rising."""
    if places.size == 1:
        return slice(int(places[0]), int(places[0]) + 1)
    step = int(places[1] - places[0]) if places.size else 0
    if step < 1 or (np.diff(places) != step).any():
        return places
    return slice(int(places[0]), int(places[-1]) + 1, step)


def _blended(xp: Any, x: Any, dim: int, plan: Blend) -> Any:
    """dim counts from the end."""
    dtype, x = x.dtype, wide(x)
    shape, after = list(x.shape), (slice(None),) * (-1 - dim)
    shape[dim] = plan.places.shape[1]
    out = xp.zeros(shape, x.dtype)
    for into, places, weight in plan.steps if plan.size else ():
        part = (
            x[(..., places, *after)]
            if isinstance(places, slice)
            else xp.take(x, xp.asarray(places), dim)
        )
        if isinstance(weight, np.ndarray):
            part = part * xp.asarray(weight.astype(x.dtype)).reshape(-1, *(1,) * len(after))
        elif weight != 1:
            part = part * x.dtype.type(weight)
        out[(..., into, *after)] += part
    return out.astype(dtype, copy=False)


blend = linear(
    "blend",
    lambda xp, x, /, dim, plan: _blended(xp, x, dim, plan),
    dx=lambda g, dim, plan: blend(g, dim, plan.turned),
)
