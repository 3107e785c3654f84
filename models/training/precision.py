"""Which precision a device computes products in, and the block that makes it so."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import tensorgrad as tg

DTYPES = ("float32", "bfloat16")


def preferred_dtype(device: str) -> str:
    """bfloat16 where the device multiplies it faster, else float32.

    A GPU does; a CPU with instructions for it does, where oneMKL is installed (`mkl`, an extra).
    """
    if tg.device(device).type == "cuda":
        return "bfloat16"
    from tensorgrad.kernels import available

    if not available():
        return "float32"
    from tensorgrad.kernels.cpu import bf16

    return "bfloat16" if bf16.available() else "float32"


def autocast_for(device: str, dtype: str) -> AbstractContextManager[None]:
    """Products inside in this dtype, on float32 weights.  ValueError for a dtype it cannot be.

    Of whichever device the training is on: of another one autocast would change nothing.
    """
    if dtype not in DTYPES:
        raise ValueError(
            f"dtype must be {' or '.join(DTYPES)}, not {dtype!r}: float16 would need its losses "
            "scaled"
        )
    kind = tg.device(device).type
    return nullcontext() if dtype == "float32" else tg.autocast(kind, tg.bfloat16)
