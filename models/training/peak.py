"""What this machine's matrix products really reach: the whole that MFU is a share of."""

from __future__ import annotations

from functools import cache
from time import perf_counter

import numpy as np

import tensorgrad as tg

SHAPES = {
    "cpu": ((1024, 768, 3072), (1024, 3072, 768), (2048, 1024, 1024)),
    "cuda": ((8192, 4096, 8192), (8192, 8192, 8192)),
}
"""(n, k, m) of products like those of training."""

SECONDS = 0.4
"""How long to go on; every product is measured thrice at least."""


@cache
def measured_peak(device: str, dtype: str) -> float:
    """The best rate of several products x @ y of this dtype, in operations a second (FLOP/s).

    A multiplication and an addition are two.  Takes about half a second, once in a process, and
    draws from no generator that training uses.  Operands have the dtype already: what autocast
    spends on casts counts as time lost.
    """
    kind = tg.device(device).type
    pairs = [(operand(n, k, device, dtype), operand(k, m, device, dtype))
             for n, k, m in SHAPES[kind]]  # fmt: skip
    best, rounds = 0.0, 0
    with tg.no_grad():
        seconds_of(*pairs[0], kind)  # libraries are loaded, kernels compiled
        began = perf_counter()
        while rounds < 3 or perf_counter() - began < SECONDS:
            for x, y in pairs:
                best = max(best, operations(x, y) / seconds_of(x, y, kind))
            rounds += 1
    return best


def operations(x: tg.Tensor, y: tg.Tensor) -> float:
    """Multiplications and additions of x @ y."""
    return 2.0 * x.shape[0] * x.shape[1] * y.shape[1]


def seconds_of(x: tg.Tensor, y: tg.Tensor, kind: str) -> float:
    """How long x @ y takes; a GPU has nothing else to do before, and has finished after."""
    if kind == "cuda":
        tg.cuda.synchronize(x.device)
    start = perf_counter()
    x @ y
    if kind == "cuda":
        tg.cuda.synchronize(x.device)
    return perf_counter() - start


def operand(rows: int, columns: int, device: str, dtype: str) -> tg.Tensor:
    """A matrix of normal numbers (zeros and ones would flatter a GPU), one block over and over."""
    block = np.random.default_rng(0).standard_normal((256, 256), np.float32)
    wide = tg.from_numpy(block).to(device).to(tg.dtypes.as_dtype(dtype))
    tiled = wide.repeat(-(-rows // 256), -(-columns // 256))
    out: tg.Tensor = tiled[:rows, :columns].contiguous()
    return out
