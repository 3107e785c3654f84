"""Broadcasting undone, in one place: a gradient is summed where its input was stretched."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from tensorgrad.kinds import linear
from tensorgrad.twins import ask


def _expand(xp: Any, x: Any, /, shape: tuple[int, ...]) -> Any:
    return xp.broadcast_to(x, shape)


def _sum_to(xp: Any, x: Any, /, shape: tuple[int, ...]) -> Any:
    extra = x.ndim - len(shape)
    stretched = tuple(range(extra)) + tuple(
        extra + i for i, n in enumerate(shape) if n == 1 and x.shape[extra + i] != 1
    )
    if not stretched:
        return x.reshape(shape)
    if x.dtype.itemsize == 2 and x.dtype.kind in "fV":  # half types accumulate in float32
        if x.dtype.kind == "V" and stretched == tuple(range(extra)):
            answer = ask("bf16_sum", x, x, extra)
            if answer is not None:
                return answer
        return xp.add.reduce(x, axis=stretched, dtype=np.float32).astype(x.dtype).reshape(shape)
    return xp.add.reduce(x, axis=stretched).reshape(shape)


SMALL = 1 << 15
"""Elements up to which filling an array is quicker than stretching one."""

broadcast = linear("expand", _expand, view=True, dx=lambda g, x_shape: sum_to(g, x_shape))
sum_to = linear("sum_to", _sum_to, dx=lambda g, x_shape: broadcast(g, x_shape))


def fit(part: Any, shape: tuple[int, ...]) -> Any:
    """A gradient in its input's shape: summed where that was stretched, stretched if smaller."""
    have = part.shape
    if not have and isinstance(part, (np.ndarray, np.generic)) and prod(shape) < SMALL:
        out = np.empty(shape, part.dtype)
        out.fill(part)
        return out  # a leaf would copy a stretched view anyway
    if type(part) is np.ndarray and have[1:] == shape and part.dtype.itemsize != 2:
        return np.add.reduce(part, 0)  # a bias
    if len(have) >= len(shape) and all(
        a == b or b == 1 for a, b in zip(have[len(have) - len(shape) :], shape)
    ):
        return sum_to(part, shape)
    return broadcast(part if len(have) <= len(shape) else sum_to(part, have[-len(shape) :]), shape)
