"""`kernel`: a function on arrays, compiled by Numba for float32 and for float64, each when first asked for, and kept on disk.

The annotations are the signature: `float` is the kernel's own dtype, and an array that is not an Out is read-only."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints
from zlib import crc32

import numpy as np
from numba import njit, types
from numba.extending import register_jitable

Array = np.ndarray[Any, np.dtype[Any]]
Compiled = Callable[..., Any]

Vector = Annotated[Array, 1, "C", "float", "in"]
Matrix = Annotated[Array, 2, "C", "float", "in"]
Cube = Annotated[Array, 3, "C", "float", "in"]
Heads = Annotated[Array, 4, "A", "float", "in"]  # any strides
Integers = Annotated[Array, 1, "C", "int", "in"]
Bools = Annotated[Array, 1, "C", "bool", "in"]
OutVector = Annotated[Array, 1, "C", "float", "out"]
OutMatrix = Annotated[Array, 2, "C", "float", "out"]
OutCube = Annotated[Array, 3, "C", "float", "out"]
OutBoard = Annotated[Array, 4, "C", "float", "out"]

FLOATS = {np.dtype(np.float32): types.float32, np.dtype(np.float64): types.float64}

# Sums may be reordered (that is what vectorises them) and products contracted; NaN, inf and division stay IEEE's.
helper = register_jitable(error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
exact = register_jitable(error_model="numpy", fastmath={"contract"})

# Numba's cache looks at a kernel's own file only, so the helpers' text becomes part of its name.
_helpers = crc32(b"".join(Path(__file__).with_name(name).read_bytes() for name in ("elementary.py", "blocks.py")))


def _numba_type(hint: Any, number: types.Type) -> types.Type:
    if hint in (int, bool, type(None)):
        return {int: types.int64, bool: types.boolean}.get(hint, types.void)
    if hint is float:
        return number
    ndim, layout, element, way = hint.__metadata__
    dtype = {"float": number, "int": types.int64, "bool": types.boolean}[element]
    return types.Array(dtype, ndim, layout, readonly=way == "in")


class Kernel(dict[np.dtype[Any], Compiled]):
    """The compiled function of each dtype: `kernel[x.dtype](lo, hi, x, out)`."""

    def __init__(self, python: Callable[..., Any]) -> None:
        self.python = python
        python.__qualname__ += f"_{_helpers:08x}"

    def __missing__(self, dtype: np.dtype[Any]) -> Compiled:
        hints = get_type_hints(self.python, include_extras=True)
        returned, *arguments = (
            _numba_type(hints[name], FLOATS[dtype]) for name in ("return", *list(hints)[:-1])
        )
        options = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}
        try:
            compiled = njit(returned(*arguments), cache=True, **options)(self.python)
        except RuntimeError:  # no folder to write a cache to
            compiled = njit(returned(*arguments), **options)(self.python)
        self[dtype] = compiled
        return compiled


def kernel(python: Callable[..., Any]) -> Kernel:
    """Compile `python(lo, hi, ...)` as its annotations say; it works on rows or elements lo to hi."""
    return Kernel(python)


def ready(x: Array) -> Array:
    """x itself where it is C-contiguous and aligned, as the kernels want it, else a copy."""
    x = np.ascontiguousarray(x)
    return x if x.flags.aligned else x.copy()
