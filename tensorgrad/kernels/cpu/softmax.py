"""softmax and log_softmax over rows, and their gradients."""

import math

import numpy as np

from tensorgrad.kernels.cpu.elementary import exp, larger
from tensorgrad.kernels.cpu.jit import FLOATS, Array, Matrix, OutMatrix, kernel, ready
from tensorgrad.kernels.cpu.threads import share


@kernel
def forward(lo: int, hi: int, x: Matrix, y: OutMatrix, log: bool) -> None:
    number = x.dtype.type
    for i in range(hi - lo):
        row, out = x[lo + i], y[lo + i]
        top, total = row[0], number(0)
        for j in range(row.size):
            top = larger(top, row[j])
        if log:
            for j in range(row.size):
                total += exp(row[j] - top)
            total = math.log(total)
            for j in range(row.size):
                out[j] = row[j] - top - total
        else:
            for j in range(row.size):
                e = exp(row[j] - top)
                out[j] = e
                total += e
            total = number(1) / total
            for j in range(row.size):
                out[j] *= total


@kernel
def backward(lo: int, hi: int, g: Matrix, y: Matrix, dx: OutMatrix, log: bool) -> None:
    number = y.dtype.type
    for i in range(hi - lo):
        gi, yi, out = g[lo + i], y[lo + i], dx[lo + i]
        total = number(0)
        if log:
            for j in range(yi.size):
                total += gi[j]
            for j in range(yi.size):
                out[j] = gi[j] - exp(yi[j]) * total
        else:
            for j in range(yi.size):
                total += gi[j] * yi[j]
            for j in range(yi.size):
                out[j] = yi[j] * (gi[j] - total)


def _forward(x: Array, log: bool) -> Array | None:
    if x.dtype not in FLOATS or x.ndim == 0:
        return None
    y = np.empty(x.shape, x.dtype)
    if x.size:
        rows = (-1, x.shape[-1])
        work = 1.5 * x.size
        share(forward[x.dtype], x.size // x.shape[-1], work, ready(x).reshape(rows), y.reshape(rows), log)
    return y


def _backward(g: Array, y: Array, log: bool) -> Array | None:
    if y.dtype not in FLOATS or g.dtype != y.dtype or y.ndim == 0:
        return None
    dx = np.empty(y.shape, y.dtype)
    if y.size:
        rows = (-1, y.shape[-1])
        g, x = ready(g).reshape(rows), ready(y).reshape(rows)
        share(backward[y.dtype], len(x), y.size, g, x, dx.reshape(rows), log)
    return dx


def softmax_forward(x: Array) -> Array | None:
    """exp(x) / sum(exp(x)) over the last axis."""
    return _forward(x, False)


def softmax_backward(g: Array, out: Array) -> Array | None:
    """out (g - sum(g out)) over the last axis."""
    return _backward(g, out, False)


def log_softmax_forward(x: Array) -> Array | None:
    """x - log(sum(exp(x))) over the last axis."""
    return _forward(x, True)


def log_softmax_backward(g: Array, out: Array) -> Array | None:
    """g - exp(out) sum(g) over the last axis."""
    return _backward(g, out, True)
