"""Cross-entropy of rows of bfloat16 logits: each row is widened where it stays in the cache."""

import math

import numpy as np

from tensorgrad.kernels.cpu.bits import narrow, widen
from tensorgrad.kernels.cpu.blocks import row
from tensorgrad.kernels.cpu.elementary import exp, larger, plus
from tensorgrad.kernels.cpu.jit import (
    Array,
    BitMatrix,
    Integers,
    OutBitMatrix,
    OutVector,
    Vector,
    is_bfloat16,
    kernel,
)

FLOAT32 = np.dtype(np.float32)


@kernel
def forward(
    lo: int, hi: int, x: BitMatrix, target: Integers, ignore: int, loss: OutVector,
    lse: OutVector,
) -> int:  # fmt: skip
    """Answers 1 + the last row whose target is no class, or 0."""
    classes, wrong = x.shape[1], 0
    wide = np.empty(classes, np.float32)
    for i in range(lo, hi):
        xi, t = row(x, i), target[i]
        loss[i], lse[i] = np.float32(0), np.float32(0)
        if t == ignore:
            continue
        if t < 0 or t >= classes:
            wrong = i + 1
            continue
        top, total = widen(xi[0]), np.float32(0)
        for j in range(classes):
            wide[j] = widen(xi[j])
            top = larger(top, wide[j])
        for j in range(classes):
            total = plus(total, exp(wide[j] - top))
        log_mass = math.log(total)
        lse[i] = top + log_mass
        loss[i] = log_mass - (wide[t] - top)
    return wrong


@kernel
def backward(
    lo: int, hi: int, g: float, x: BitMatrix, target: Integers, lse: Vector, ignore: int,
    dx: OutBitMatrix,
) -> None:  # fmt: skip
    classes = x.shape[1]
    for i in range(lo, hi):
        xi, out, t, z = row(x, i), row(dx, i), target[i], lse[i]
        if t == ignore or t < 0 or t >= classes:
            for j in range(classes):
                out[j] = 0
            continue
        for j in range(classes):
            out[j] = narrow(g * exp(widen(xi[j]) - z))
        out[t] = narrow(g * (exp(widen(xi[t]) - z) - np.float32(1)))


def bf16_cross_entropy_forward(
    logits: Array, target: Array, ignore_index: int
) -> tuple[Array, Array] | None:
    """Each row's loss, log sum exp x - x[t], and log-sum-exp, (N,) of float32; 0 where ignored.

    logits (N, C) of bfloat16, target (N,) of integers.  IndexError: a target that is no class."""
    if not _fit(logits, target):
        return None
    n = len(logits)
    loss, lse = np.empty(n, FLOAT32), np.empty(n, FLOAT32)
    bits, classes = logits.view(np.uint16), target.astype(np.int64, copy=False)
    wrong = forward.over(FLOAT32, n, logits.size, bits, classes, ignore_index, loss, lse)
    if wrong:
        raise IndexError(
            f"cross_entropy: target {target[wrong - 1]} of row {wrong - 1} is neither one of the "
            f"{logits.shape[1]} classes nor ignore_index, {ignore_index}"
        )
    return loss, lse


def bf16_cross_entropy_backward(
    g: Array, logits: Array, target: Array, lse: Array, ignore_index: int
) -> Array | None:
    """g (softmax(x) - onehot(t)), (N, C) of bfloat16; one g, (), for all rows."""
    if not _fit(logits, target) or lse.dtype != FLOAT32 or lse.shape != target.shape:
        return None
    dx = np.empty(logits.shape, logits.dtype)
    bits, classes = logits.view(np.uint16), target.astype(np.int64, copy=False)
    backward.over(
        FLOAT32, len(logits), logits.size, float(g), bits, classes, lse, ignore_index,
        dx.view(np.uint16),
    )  # fmt: skip
    return dx


def _fit(logits: Array, target: Array) -> bool:
    if not is_bfloat16(logits.dtype) or logits.ndim != 2 or not logits.shape[1]:
        return False
    return target.dtype.kind in "iu" and target.shape == logits.shape[:1]
