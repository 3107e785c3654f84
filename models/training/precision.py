"""Which precision a device computes products in, and the block that makes it so."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import tensorgrad as tg


def preferred_dtype(device: str) -> str:
    """bfloat16 where the device multiplies it faster, else float32."""
    return "bfloat16" if tg.device(device).type == "cuda" else "float32"


def autocast_for(device: str, dtype: str) -> AbstractContextManager[None]:
    """Products inside in this dtype, on float32 weights."""
    if dtype == "float32":
        return nullcontext()
    return tg.autocast(tg.device(device).type, tg.bfloat16)
