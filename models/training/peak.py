"""What this machine's matrix products really reach: the whole that MFU is a share of."""

from __future__ import annotations

import time
from functools import cache

import tensorgrad as tg
from tensorgrad.models.training.precision import autocast_for

SHAPES = {"cpu": ((1024, 768, 3072), (2048, 1024, 1024)), "cuda": ((8192, 8192, 8192),)}
"""(n, k, m) of products like those of training."""


@cache
def measured_peak(device: str, dtype: str) -> float:
    """The best rate of several products x @ y in this dtype, in operations a second (FLOP/s).

    A multiplication and an addition are two.  Takes about half a second, once in a process.
    """
    best = 0.0
    kind = tg.device(device).type
    with tg.no_grad(), autocast_for(device, dtype):
        for n, k, m in SHAPES[kind]:
            x, y = tg.ones(n, k, device=device), tg.ones(k, m, device=device)
            for _ in range(8):
                best = max(best, 2.0 * n * k * m / seconds_of(x, y, kind))
    return best


def seconds_of(x: tg.Tensor, y: tg.Tensor, kind: str) -> float:
    """How long x @ y takes."""
    start = time.perf_counter()
    x @ y
    if kind == "cuda":
        tg.cuda.synchronize(x.device)
    return time.perf_counter() - start
