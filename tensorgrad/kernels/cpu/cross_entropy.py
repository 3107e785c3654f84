"""Cross-entropy of rows of logits with integer targets, through log-sum-exp; no row of probabilities is kept."""

import math

import numpy as np

from tensorgrad.kernels.cpu.blocks import row
from tensorgrad.kernels.cpu.elementary import exp, larger
from tensorgrad.kernels.cpu.jit import FLOATS, Array, Integers, Matrix, OutMatrix, OutVector
from tensorgrad.kernels.cpu.jit import Vector, kernel, ready
from tensorgrad.kernels.cpu.threads import share


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
            total += exp(xi[j] - top)
        total = math.log(total)
        lse[i] = top + total
        w = weight[t] if weight.size else number(1)
        loss[i] = (number(1) - smoothing) * w * (total - (xi[t] - top))
        if smoothing > 0:
            spread = number(0)
            if weight.size:
                for j in range(xi.size):
                    spread += weight[j] * (total - (xi[j] - top))
            else:
                for j in range(xi.size):
                    spread += total - (xi[j] - top)
            loss[i] += smoothing / number(classes) * spread
    return wrong


@kernel
def backward(
    lo: int, hi: int, g: Vector, x: Matrix, target: Integers, lse: Vector, weight: Vector,
    ignore: int, smoothing: float, dx: OutMatrix,
) -> None:  # fmt: skip
    number = x.dtype.type
    classes = x.shape[1]
    share = smoothing / number(classes)
    everyone = number(classes)
    if weight.size:
        everyone = number(0)
        for j in range(weight.size):
            everyone += weight[j]
    for i in range(lo, hi):
        xi, out, t, z = row(x, i), row(dx, i), target[i], lse[i]
        if t == ignore or t < 0 or t >= classes:
            for j in range(out.size):
                out[j] = number(0)
            continue
        w = (number(1) - smoothing) * (weight[t] if weight.size else number(1))
        scale = g[i] * (w + share * everyone)
        for j in range(xi.size):
            out[j] = scale * exp(xi[j] - z)
        out[t] -= g[i] * w
        if smoothing > 0:
            if weight.size:
                for j in range(xi.size):
                    out[j] -= g[i] * share * weight[j]
            else:
                for j in range(xi.size):
                    out[j] -= g[i] * share


def _known(x: Array, target: Array, weight: Array | None) -> bool:
    return (
        x.dtype in FLOATS and x.ndim == 2 and target.dtype.kind in "iu"
        and (weight is None or weight.dtype == x.dtype)
    )  # fmt: skip


def cross_entropy_forward(
    logits: Array, target: Array, weight: Array | None = None, ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> tuple[Array, Array] | None:  # fmt: skip
    """Each row's loss, w (log sum exp x - x[t]), and its log-sum-exp, both (N,); 0 where t is ignore_index.

    logits (N, C), target (N,) of integers, weight (C,).  IndexError: a target that is no class."""
    if not _known(logits, target, weight):
        return None
    loss, lse = np.empty(len(logits), logits.dtype), np.empty(len(logits), logits.dtype)
    target = ready(target.astype(np.int64, copy=False))
    w = np.empty(0, logits.dtype) if weight is None else ready(weight)
    wrong = share(
        forward[logits.dtype], len(logits), 2 * logits.size,
        ready(logits), target, w, ignore_index, label_smoothing, loss, lse,
    )  # fmt: skip
    if wrong:
        raise IndexError(
            f"cross_entropy: target {target[wrong - 1]} of row {wrong - 1} is not one of the "
            f"{logits.shape[1]} classes, nor ignore_index ({ignore_index})"
        )
    return loss, lse


def cross_entropy_backward(
    g: Array, logits: Array, target: Array, lse: Array, weight: Array | None = None,
    ignore_index: int = -100, label_smoothing: float = 0.0,
) -> Array | None:  # fmt: skip
    """w g (softmax(x) - onehot(t)), (N, C), from the gradient g of each row's loss, (N,) or one number for all."""
    if not _known(logits, target, weight):
        return None
    dx = np.empty(logits.shape, logits.dtype)
    g = ready(np.broadcast_to(g, lse.shape).astype(logits.dtype, copy=False))
    target = ready(target.astype(np.int64, copy=False))
    w = np.empty(0, logits.dtype) if weight is None else ready(weight)
    share(
        backward[logits.dtype], len(logits), 2 * logits.size,
        g, ready(logits), target, ready(lse), w, ignore_index, label_smoothing, dx,
    )  # fmt: skip
    return dx
