"""The product of bfloat16 matrices of oneMKL, if the optional wheel `mkl` is installed.

Its sequential layer is asked for: the threads are ours, and each multiplies for itself."""

import ctypes
import ctypes.util
import os
import sys
from functools import cache
from pathlib import Path

SEQUENTIAL = 1  # MKL_THREADING_SEQUENTIAL
CAPABLE = {"amx_bf16", "avx512_bf16"}  # what /proc/cpuinfo calls instructions for such products


@cache
def gemm_address() -> int:
    """Where cblas_gemm_bf16bf16f32 begins, for kernels to call; 0 without oneMKL or instructions.

    c = a b + beta c, with c of float32; its integers have 32 bits."""
    library = _library() if has_instructions() else None
    if library is None:
        return 0
    try:
        library.MKL_Set_Threading_Layer(SEQUENTIAL)
        gemm = library.cblas_gemm_bf16bf16f32
    except AttributeError:  # older than 2018, or older than bfloat16
        return 0
    return ctypes.cast(gemm, ctypes.c_void_p).value or 0


@cache
def has_instructions() -> bool:
    """Whether this processor multiplies bfloat16: without, oneMKL is slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text().partition("\nflags")[2].partition("\n")[0]
    except OSError:
        return False
    return not CAPABLE.isdisjoint(flags.split())


def _library() -> ctypes.CDLL | None:
    """The library; None also where it is loaded already, since its layer serves somebody else.

    A NumPy built on oneMKL, as conda's, would be left with one thread."""
    folders = dict.fromkeys(Path(prefix) / "lib" for prefix in (sys.prefix, sys.base_prefix))
    found = [str(path) for folder in folders for path in sorted(folder.glob("libmkl_rt.so*"))]
    named = ctypes.util.find_library("mkl_rt")
    for name in (*found, *([named] if named else [])):
        if _is_loaded(name):
            return None
        try:
            return ctypes.CDLL(name)
        except OSError:  # for another architecture, or half removed
            continue
    return None


def _is_loaded(name: str) -> bool:
    try:
        ctypes.CDLL(name, os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return False
    return True
