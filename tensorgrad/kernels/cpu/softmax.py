"""softmax and log_softmax over the last dim, and their gradients."""

import math

import numpy as np

from tensorgrad.kernels.cpu.blocks import row
from tensorgrad.kernels.cpu.elementary import exp, larger, plus
from tensorgrad.kernels.cpu.jit import Array, Matrix, OutMatrix, kernel, known


@kernel
def forward(lo: int, hi: int, x: Matrix, y: OutMatrix, log: bool) -> None:
    number = x.dtype.type
    for i in range(lo, hi):
        xi, out = row(x, i), row(y, i)
        top, total = xi[0], number(0)
        for j in range(xi.size):
            top = larger(top, xi[j])
        for j in range(xi.size):
            e = exp(xi[j] - top)
            out[j] = e
            total = plus(total, e)
        if log:
            total = math.log(total)
            for j in range(xi.size):
                out[j] = xi[j] - top - total
        else:
            total = number(1) / total
            for j in range(xi.size):
                out[j] *= total


@kernel
def backward(lo: int, hi: int, g: Matrix, y: Matrix, dx: OutMatrix, log: bool) -> None:
    number = y.dtype.type
    for i in range(lo, hi):
        gi, yi, out = row(g, i), row(y, i), row(dx, i)
        total = number(0)
        if log:
            for j in range(yi.size):
                total = plus(total, gi[j])
            for j in range(yi.size):
                out[j] = gi[j] - exp(yi[j]) * total
        else:
            for j in range(yi.size):
                total = plus(total, gi[j] * yi[j])
            for j in range(yi.size):
                out[j] = yi[j] * (gi[j] - total)


def _forward(x: Array, log: bool) -> Array | None:
    if not known(x) or x.ndim == 0:
        return None
    y = np.empty(x.shape, x.dtype)
    if x.size:
        rows, out = _matrix(x), _matrix(y)
        forward.over(x.dtype, len(rows), x.size, rows, out, log)
    return y


def _backward(g: Array, y: Array, log: bool) -> Array | None:
    if not known(y, g) or y.ndim == 0 or g.shape != y.shape:
        return None
    dx = np.empty(y.shape, y.dtype)
    if y.size:
        rows, out = _matrix(y), _matrix(dx)
        backward.over(y.dtype, len(rows), 0.3 * y.size, _matrix(g), rows, out, log)
    return dx


def _matrix(x: Array) -> Array:
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])


def softmax_forward(x: Array) -> Array | None:
    """exp(x) / sum(exp(x)) over the last dim."""
    return _forward(x, False)


def softmax_backward(g: Array, out: Array) -> Array | None:
    """out (g - sum(g out)) over the last dim."""
    return _backward(g, out, False)


def log_softmax_forward(x: Array) -> Array | None:
    """x - log(sum(exp(x))) over the last dim."""
    return _forward(x, True)


def log_softmax_backward(g: Array, out: Array) -> Array | None:
    """g - exp(out) sum(g) over the last dim."""
    return _backward(g, out, True)
