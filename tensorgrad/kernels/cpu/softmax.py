"""softmax and log_softmax over rows, and their gradients."""

import math

import numpy as np

from tensorgrad.kernels.cpu.blocks import row
from tensorgrad.kernels.cpu.elementary import exp, larger
from tensorgrad.kernels.cpu.jit import FLOATS, Array, Matrix, OutMatrix, kernel, ready
from tensorgrad.kernels.cpu.threads import share


@kernel
def forward(lo: int, hi: int, x: Matrix, y: OutMatrix, log: bool) -> None:
    number = x.dtype.type
    for i in range(lo, hi):
        xi, out = row(x, i), row(y, i)
        top, total = xi[0], number(0)
        for j in range(xi.size):
            top = larger(top, xi[j])
        if log:
            for j in range(xi.size):
                total += exp(xi[j] - top)
            total = math.log(total)
            for j in range(xi.size):
                out[j] = xi[j] - top - total
        else:
            for j in range(xi.size):
                e = exp(xi[j] - top)
                out[j] = e
                total += e
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
                total += gi[j]
            for j in range(yi.size):
                out[j] = gi[j] - exp(yi[j]) * total
        else:
            for j in range(yi.size):
                total += gi[j] * yi[j]
            for j in range(yi.size):
                out[j] = yi[j] * (gi[j] - total)


SMALL = 4096  # elements up to which the call, not the work, is what costs


def _forward(x: Array, log: bool) -> Array | None:
    if 0 < x.size < SMALL and x.ndim:
        try:
            y = np.empty(x.shape, x.dtype)
            rows, out = (x, y) if x.ndim == 2 else (x.reshape(-1, x.shape[-1]), y.reshape(-1, x.shape[-1]))
            forward[x.dtype](0, len(rows), rows, out, log)
            return y
        except (KeyError, TypeError):
            pass  # a dtype that kernels decline, or strides that they take only as a copy
    if x.dtype not in FLOATS or x.ndim == 0:
        return None
    y = np.empty(x.shape, x.dtype)
    if x.size:
        shape = (-1, x.shape[-1])
        work = 1.5 * x.size
        share(forward[x.dtype], x.size // x.shape[-1], work, ready(x).reshape(shape), y.reshape(shape), log)
    return y


def _backward(g: Array, y: Array, log: bool) -> Array | None:
    if 0 < y.size < SMALL and y.ndim == 2 and g.dtype == y.dtype:
        try:
            dx = np.empty(y.shape, y.dtype)
            backward[y.dtype](0, len(y), g, y, dx, log)
            return dx
        except (KeyError, TypeError):
            pass
    if y.dtype not in FLOATS or g.dtype != y.dtype or y.ndim == 0:
        return None
    dx = np.empty(y.shape, y.dtype)
    if y.size:
        shape = (-1, y.shape[-1])
        g, x = ready(g).reshape(shape), ready(y).reshape(shape)
        share(backward[y.dtype], len(x), y.size, g, x, dx.reshape(shape), log)
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
