"""Arrays of 16-bit floats as float32 and back, by a kernel where there is one.

NumPy casts bfloat16, which is a stranger to it, one number at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.twins import ask

FLOAT32 = np.dtype(np.float32)


def converted(x: Any, dtype: Any) -> Any:
    """x as another dtype; a copy, even if it has that dtype already."""
    if type(x) is np.ndarray and (x.dtype.kind == "V" or getattr(dtype, "kind", None) == "V"):
        answer = ask("bf16_cast", x, x, dtype)
        if answer is not None:
            return answer
    return x.astype(dtype)


def widened(x: Any) -> Any:
    """16-bit floats as float32; of other dtypes the array itself."""
    return converted(x, FLOAT32) if x.dtype.itemsize == 2 else x


def narrowed(x: Any, dtype: Any) -> Any:
    """x as this dtype, itself if it has it."""
    return x if x.dtype == dtype else converted(x, dtype)
