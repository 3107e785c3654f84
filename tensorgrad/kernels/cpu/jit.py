"""`kernel`: a function on arrays that Numba compiles, for each dtype when first needed, and keeps.

Its annotations are its signature: `float` is the dtype, an array that is no Out is read-only."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_type_hints
from zlib import crc32

import numpy as np
from numba import njit, types
from numba.extending import intrinsic, register_jitable

from tensorgrad.kernels.cpu import threads

Array = np.ndarray[Any, np.dtype[Any]]
Compiled = Callable[..., Any]
F = TypeVar("F", bound=Compiled)

Vector = Annotated[Array, 1, "C", "float", "in"]
Matrix = Annotated[Array, 2, "C", "float", "in"]
Cube = Annotated[Array, 3, "C", "float", "in"]
Heads = Annotated[Array, 4, "A", "float", "in"]  # any strides
Integers = Annotated[Array, 1, "C", "int", "in"]
IntegerCube = Annotated[Array, 3, "C", "int", "in"]
Bools = Annotated[Array, 1, "C", "bool", "in"]
Bits = Annotated[Array, 1, "C", "bits", "in"]  # of bfloat16, which Numba does not know
BitMatrix = Annotated[Array, 2, "C", "bits", "in"]
BitHeads = Annotated[Array, 4, "A", "bits", "in"]
OutVector = Annotated[Array, 1, "C", "float", "out"]
OutMatrix = Annotated[Array, 2, "C", "float", "out"]
OutCube = Annotated[Array, 3, "C", "float", "out"]
OutBoard = Annotated[Array, 4, "C", "float", "out"]
OutBits = Annotated[Array, 1, "C", "bits", "out"]
OutBitMatrix = Annotated[Array, 2, "C", "bits", "out"]
OutBitCube = Annotated[Array, 3, "C", "bits", "out"]
OutBitBoard = Annotated[Array, 4, "C", "bits", "out"]

FLOATS = {np.dtype(np.float32): types.float32, np.dtype(np.float64): types.float64}

NONE = {dtype: np.empty(0, dtype) for dtype in FLOATS}  # stands for a vector that is not given

# Multiply-adds may be fused; the rest is IEEE's, but for the sums that are written with `plus`.
OPTIONS: Any = {"error_model": "numpy", "fastmath": {"contract"}}

# Numba's cache watches a kernel's own file; what the kernels share becomes part of their names.
SHARED = b"".join(
    Path(__file__).with_name(name).read_bytes() for name in ("jit.py", "elementary.py", "blocks.py")
)


class Kernel(dict[np.dtype[Any], Compiled]):
    """The compiled function of each dtype: `kernel[x.dtype](lo, hi, x, out)` does rows lo to hi."""

    def __init__(self, python: Compiled) -> None:
        self.python = python
        python.__qualname__ += f"_{crc32(SHARED):08x}"

    def __missing__(self, dtype: np.dtype[Any]) -> Compiled:
        hints = get_type_hints(self.python, include_extras=True)
        *arguments, returned = (_numba_type(hint, FLOATS[dtype]) for hint in hints.values())
        try:
            compiled = njit(returned(*arguments), cache=True, nogil=True, **OPTIONS)(self.python)
        except (RuntimeError, OSError):  # nowhere to keep it
            compiled = njit(returned(*arguments), nogil=True, **OPTIONS)(self.python)
        self[dtype] = compiled
        return cast(Compiled, compiled)

    def over(self, dtype: np.dtype[Any], n: int, work: float, *args: Any) -> int:
        """All of [0, n), by as many threads as `work`, nanoseconds in all, pays for.

        Inputs that do not lie as the kernel wants them are copied: it refuses them before it
        begins, which costs those that do nothing."""
        compiled = self[dtype]
        if work < 2 * threads.WORTH:
            try:
                return compiled(0, n, *args) or 0
            except TypeError:
                pass
        return threads.share(compiled, n, work, *map(ready, args))


def _numba_type(hint: Any, number: Any) -> Any:
    plain = {int: types.int64, bool: types.boolean, float: number, type(None): types.void}
    if hint in plain:
        return plain[hint]
    ndim, layout, element, way = hint.__metadata__
    dtype = {
        "float": number, "int": types.int64, "bool": types.boolean, "bits": types.uint16
    }[element]  # fmt: skip
    return types.Array(dtype, ndim, layout, readonly=way == "in")


def kernel(python: Compiled) -> Kernel:
    """Compile `python(lo, hi, ...)`, which works on rows or elements lo to hi, as annotated."""
    return Kernel(python)


def helper(python: F) -> F:
    """A function that kernels call; it is compiled into each of them."""
    compiled: F = register_jitable(**OPTIONS)(python)
    return compiled


def emitted(rule: Compiled) -> Any:
    """A function whose LLVM code `rule` writes: rule(typing, *types) -> signature, generator."""
    return intrinsic(rule)


def known(x: Array, *others: Array | None) -> bool:
    """Whether kernels know the dtype of x, and the others, where given, share it."""
    dtype = x.dtype
    for a in others:
        if a is not None and a.dtype != dtype:
            return False
    return dtype in FLOATS


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether it is ml_dtypes' bfloat16, of which kernels take the bits."""
    return dtype.kind == "V" and dtype.type.__name__ == "bfloat16"


def ready(x: Any) -> Any:
    """An array C-contiguous and aligned, itself if it is; anything else as it is."""
    if not isinstance(x, np.ndarray):
        return x
    x = np.ascontiguousarray(x)
    return x if x.flags.aligned else x.copy()
