"""Long arrays taken block by block, so that the temporaries of a formula stay in cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

BLOCK = 1 << 14
"""Elements: five float32 arrays of this length fill a third of a megabyte."""


def blocks(*arrays: Any) -> Iterable[tuple[Any, ...]]:
    """The same stretch of every array, again and again until all is done.

    Only long C-contiguous NumPy arrays are cut (and flattened); all others come once, as they are,
    but 0-d ones with one dim, since NumPy answers 0-d operands with scalars.
    """
    first = arrays[0]
    if not first.ndim:
        return (tuple(array.reshape(1) for array in arrays),)
    if first.size <= BLOCK or type(first) is not np.ndarray:
        return (arrays,)
    if not all(array.flags.c_contiguous for array in arrays):
        return (arrays,)
    return _cut([array.reshape(-1) for array in arrays])


def _cut(flat: list[Any]) -> Iterator[tuple[Any, ...]]:
    for start in range(0, flat[0].size, BLOCK):
        yield tuple(array[start : start + BLOCK] for array in flat)
