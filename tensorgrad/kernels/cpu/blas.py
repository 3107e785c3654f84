"""Large matrix products cut by rows among our threads, each piece with one BLAS thread.

On a machine with other work, two BLAS threads that spin for each other run 5 to 10 times slower."""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tensorgrad.kernels.cpu import threads
from tensorgrad.twins import ask_any

Array = np.ndarray[Any, np.dtype[Any]]

WORTH = 4_000_000  # multiplications below which one thread is as fast
FEW = 6  # rows for which there is a kernel
ROWS = 32  # pieces begin at its multiples, so that the numbers do not depend on how many there are


@cache
def _openblas() -> tuple[Callable[[int], None], int] | None:
    """The setter of OpenBLAS's number of threads, and that number; None for another BLAS."""
    folder = Path(np.__file__).parent
    for path in (*folder.parent.glob("numpy.libs/*openblas*"), *folder.glob(".dylibs/*openblas*")):
        library = ctypes.CDLL(str(path))
        for name in (
            "scipy_openblas_{}_num_threads64_",
            "scipy_openblas_{}_num_threads",
            "openblas_{}_num_threads",
        ):
            try:
                setter, getter = (getattr(library, name.format(verb)) for verb in ("set", "get"))
            except AttributeError:
                continue
            setter.argtypes, setter.restype, getter.restype = [ctypes.c_int], None, ctypes.c_int
            return setter, int(getter())
    return None


def limit_threads(most: int) -> None:
    """No more than so many threads for OpenBLAS from now on."""
    found = _openblas()
    if found is not None and found[1] > most:
        found[0](most)
        _openblas.cache_clear()


def _rows(lo: int, hi: int, x: Array, y: Array, out: Array, n: int) -> None:
    lo, hi = lo * ROWS, min(hi * ROWS, n)
    np.matmul(x[lo:hi], y, out=out[lo:hi])


def matmul(x: Array, y: Array, out: Array | None = None) -> Array:
    """x @ y of two matrices, (n, k) @ (k, m)."""
    n, k = x.shape
    m = y.shape[1]
    if n <= FEW:
        answer = ask_any("few_rows", x, x, y.T, out)
        if answer is not None:
            return answer  # type: ignore[no-any-return]
    if out is None:
        out = np.empty((n, m), x.dtype)
    blas = _openblas()
    if blas is None or blas[1] == 1:
        return np.matmul(x, y, out=out)
    set_threads, before = blas
    set_threads(1)
    try:
        if n * k * m < WORTH:
            np.matmul(x, y, out=out)
        else:
            threads.share(_rows, -(-n // ROWS), n * k * m / 20, x, y, out, n)
    finally:
        set_threads(before)
    return out
