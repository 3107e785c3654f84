"""Long arrays taken block by block, so that the temporaries of a formula stay in cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

BLOCK = 1 << 14
"""Elements: five float32 arrays of this length fill a third of a megabyte."""


def blocks(*arrays: Any) -> Iterator[tuple[Any, ...]]:
    """The same stretch of every array, again and again until all is done.

    Only long C-contiguous NumPy arrays are cut (and flattened); all others come once, as they are,
    but 0-d ones with one dim, since NumPy answers 0-d operands with scalars.
    """
    if not arrays[0].ndim:
        yield tuple(array.reshape(1) for array in arrays)
        return
    size = arrays[0].size
    whole = size <= BLOCK or not isinstance(arrays[0], np.ndarray)
    if whole or not all(array.flags.c_contiguous for array in arrays):
        yield arrays
        return
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, size, BLOCK):
        yield tuple(array[start : start + BLOCK] for array in flat)
