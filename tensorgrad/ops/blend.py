"""Weighted picks along one dim: a sparse matrix times every vector along it.  The rule is the same with the matrix turned."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from tensorgrad.kinds import linear
from tensorgrad.ops.windows import wide

Array = np.ndarray[Any, np.dtype[Any]]


class Blend:
    """out[o] = sum over t of weights[t, o] x[places[t, o]], for x of `size` elements; no weights: all are one."""

    def __init__(self, size: int, places: Array, weights: Array | None = None) -> None:
        self.size, self.places, self.weights = size, places, weights

    @cached_property
    def turned(self) -> Blend:
        """The transposed matrix: x[i] = sum of weights[t, o] g[o] over the t and o with places[t, o] = i."""
        taps, out = self.places.shape
        weights = np.ones(self.places.shape) if self.weights is None else self.weights
        used = np.flatnonzero(weights)
        used = used[np.argsort(self.places.flat[used], kind="stable")]
        rows = self.places.flat[used]
        turn = np.arange(rows.size) - np.searchsorted(rows, rows)  # 0 for the first of each row, then 1, ...
        shape = (int(turn.max(initial=0)) + 1, self.size)
        places, shares = np.zeros(shape, np.int64), np.zeros(shape)
        places[turn, rows] = used % max(out, 1)
        shares[turn, rows] = weights.flat[used]
        return Blend(out, places, None if (shares == 1).all() else shares)


def _blended(xp: Any, x: Any, dim: int, plan: Blend) -> Any:
    """dim counts from the end."""
    if not plan.size:  # nothing to pick from
        shape = list(x.shape)
        shape[dim] = plan.places.shape[1]
        return xp.zeros(shape, x.dtype)
    dtype, x = x.dtype, wide(x)
    total = None
    for t, places in enumerate(plan.places):
        part = xp.take(x, xp.asarray(places), dim)
        if plan.weights is not None:
            part *= xp.asarray(plan.weights[t].astype(x.dtype)).reshape(-1, *(1,) * (-1 - dim))
        if total is None:
            total = part
        else:
            total += part
    return total.astype(dtype, copy=False)  # type: ignore[union-attr]


blend = linear(
    "blend", lambda xp, x, /, dim, plan: _blended(xp, x, dim, plan), dx=lambda g, dim, plan: blend(g, dim, plan.turned)
)
