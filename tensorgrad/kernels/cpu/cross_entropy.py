"""Cross-entropy of rows of logits with integer targets; of a row only its log-sum-exp is kept."""

import math

import numpy as np

from tensorgrad.kernels.cpu.blocks import row
from tensorgrad.kernels.cpu.elementary import exp, larger, plus
from tensorgrad.kernels.cpu.jit import (
    NONE,
    Array,
    Integers,
    Matrix,
    OutMatrix,
    OutVector,
    Vector,
    kernel,
    known,
)


@kernel
def forward(
    lo: int, hi: int, x: Matrix, target: Integers, weight: Vector, ignore: int, smoothing: float,
    loss: OutVector, lse: OutVector,
) -> int:  # fmt: skip
    """Answers 1 + the last row whose target is no class, or 0."""
    number = x.dtype.type
    classes, wrong = x.shape[1], 0
    for i in range(lo, hi):
        xi, t = row(x, i), target[i]
        loss[i], lse[i] = number(0), number(0)
        if t == ignore:
            continue
        if t < 0 or t >= classes:
            wrong = i + 1
            continue
        top, total = xi[0], number(0)
        for j in range(xi.size):
            top = larger(top, xi[j])
        for j in range(xi.size):
            total = plus(total, exp(xi[j] - top))
        total = math.log(total)
        lse[i] = top + total
        w = weight[t] if weight.size else number(1)
        loss[i] = (number(1) - smoothing) * w * (total - (xi[t] - top))
        if smoothing > 0:
            spread = number(0)
            if weight.size:
                for j in range(xi.size):
                    spread = plus(spread, weight[j] * (total - (xi[j] - top)))
            else:
                for j in range(xi.size):
                    spread = plus(spread, total - (xi[j] - top))
            loss[i] += smoothing / number(classes) * spread
    return wrong


@kernel
def backward(
    lo: int, hi: int, g: Vector, x: Matrix, target: Integers, lse: Vector, weight: Vector,
    ignore: int, smoothing: float, dx: OutMatrix,
) -> None:  # fmt: skip
    number = x.dtype.type
    classes = x.shape[1]
    spread, weights = smoothing / number(classes), number(classes)
    if weight.size:
        weights = number(0)
        for j in range(weight.size):
            weights = plus(weights, weight[j])
    for i in range(lo, hi):
        xi, out, t, z = row(x, i), row(dx, i), target[i], lse[i]
        if t == ignore or t < 0 or t >= classes:
            for j in range(out.size):
                out[j] = number(0)
            continue
        w = (number(1) - smoothing) * (weight[t] if weight.size else number(1))
        scale = g[i] * (w + spread * weights)
        for j in range(xi.size):
            out[j] = scale * exp(xi[j] - z)
        out[t] -= g[i] * w
        if smoothing > 0:
            for j in range(xi.size):
                out[j] -= g[i] * spread * (weight[j] if weight.size else number(1))


def cross_entropy_forward(
    logits: Array, target: Array, weight: Array | None = None, ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> tuple[Array, Array] | None:  # fmt: skip
    """Each row's loss, w (log sum exp x - x[t]), and log-sum-exp, (N,); 0 where t is ignore_index.

    logits (N, C), target (N,) of integers, weight (C,).  IndexError: a target that is no class."""
    if not _fit(logits, target, weight):
        return None
    n, dtype = len(logits), logits.dtype
    loss, lse = np.empty(n, dtype), np.empty(n, dtype)
    wrong = forward.over(
        dtype, n, logits.size, logits, _int64(target), NONE[dtype] if weight is None else weight,
        ignore_index, label_smoothing, loss, lse,
    )  # fmt: skip
    if wrong:
        raise IndexError(
            f"cross_entropy: target {target[wrong - 1]} of row {wrong - 1} is neither one of the "
            f"{logits.shape[1]} classes nor ignore_index, {ignore_index}"
        )
    return loss, lse


def cross_entropy_backward(
    g: Array, logits: Array, target: Array, lse: Array, weight: Array | None = None,
    ignore_index: int = -100, label_smoothing: float = 0.0,
) -> Array | None:  # fmt: skip
    """g w (softmax(x) - onehot(t)), (N, C); g of each row's loss, (N,), or one for all, ()."""
    if not _fit(logits, target, weight) or not known(logits, lse) or lse.shape != target.shape:
        return None
    n, dtype = len(logits), logits.dtype
    if np.ndim(g) == 0:
        g, everywhere = np.empty(n, dtype), g
        g.fill(everywhere)
    if g.shape != lse.shape or g.dtype != dtype:
        return None
    dx = np.empty(logits.shape, dtype)
    backward.over(
        dtype, n, logits.size, g, logits, _int64(target), lse,
        NONE[dtype] if weight is None else weight, ignore_index, label_smoothing, dx,
    )  # fmt: skip
    return dx


def _fit(logits: Array, target: Array, weight: Array | None) -> bool:
    if not known(logits, weight) or logits.ndim != 2 or target.dtype.kind not in "iu":
        return False
    rows, classes = logits.shape
    return target.shape == (rows,) and (weight is None or weight.shape == (classes,))


def _int64(index: Array) -> Array:
    return index if index.dtype == np.int64 else index.astype(np.int64)
