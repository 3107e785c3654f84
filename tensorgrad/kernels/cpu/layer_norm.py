"""LayerNorm over rows: three passes over a row while it is in the nearest cache.  Ba, Kiros and Hinton 2016."""

import math

import numpy as np

from tensorgrad.kernels.cpu.blocks import row
from tensorgrad.kernels.cpu.jit import FLOATS, Array, Matrix, OutCube, OutMatrix, OutVector
from tensorgrad.kernels.cpu.jit import Vector, kernel, ready
from tensorgrad.kernels.cpu.threads import share

CHUNKS = 32  # partial sums of weight and bias; a fixed number, so that no thread count changes a bit


@kernel
def forward(
    lo: int, hi: int, x: Matrix, weight: Vector, bias: Vector, eps: float,
    y: OutMatrix, mean: OutVector, rstd: OutVector,
) -> None:  # fmt: skip
    number = x.dtype.type
    count, one = number(x.shape[1]), number(1)
    for i in range(lo, hi):
        xi, out = row(x, i), row(y, i)
        total = number(0)
        for j in range(xi.size):
            total += xi[j]
        mu = total / count
        total = number(0)
        for j in range(xi.size):
            total += (xi[j] - mu) * (xi[j] - mu)
        scale = one / math.sqrt(total / count + eps)
        mean[i], rstd[i] = mu, scale
        if weight.size and bias.size:
            for j in range(xi.size):
                out[j] = (xi[j] - mu) * scale * weight[j] + bias[j]
        elif weight.size:
            for j in range(xi.size):
                out[j] = (xi[j] - mu) * scale * weight[j]
        else:
            for j in range(xi.size):
                out[j] = (xi[j] - mu) * scale


@kernel
def backward(
    lo: int, hi: int, g: Matrix, x: Matrix, weight: Vector, mean: Vector, rstd: Vector,
    dx: OutMatrix, sums: OutCube,
) -> None:  # fmt: skip
    """Over chunks lo to hi of the rows; sums (chunks, 2, C) receives each chunk's share of dweight and dbias."""
    number = x.dtype.type
    count = number(x.shape[1])
    for chunk in range(lo, hi):
        dw, db = row(sums[chunk], 0), row(sums[chunk], 1)
        for j in range(dw.size):
            dw[j] = db[j] = number(0)
        start, stop = chunk * x.shape[0] // sums.shape[0], (chunk + 1) * x.shape[0] // sums.shape[0]
        for i in range(start, stop):
            xi, gi, mu, scale = row(x, i), row(g, i), mean[i], rstd[i]
            for j in range(xi.size):
                db[j] += gi[j]
                dw[j] += gi[j] * (xi[j] - mu) * scale
            if dx.size:
                out = row(dx, i)
                a, b = number(0), number(0)
                if weight.size:
                    for j in range(xi.size):
                        a += gi[j] * weight[j]
                        b += gi[j] * weight[j] * (xi[j] - mu)
                else:
                    for j in range(xi.size):
                        a += gi[j]
                        b += gi[j] * (xi[j] - mu)
                a, b = a / count, b * scale * scale / count
                if weight.size:
                    for j in range(xi.size):
                        out[j] = (gi[j] * weight[j] - a - (xi[j] - mu) * b) * scale
                else:
                    for j in range(xi.size):
                        out[j] = (gi[j] - a - (xi[j] - mu) * b) * scale


def layer_norm_forward(
    x: Array, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array] | None:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axis of x (rows, C): y, mean, 1 / deviation."""
    if any(a is not None and (a.dtype not in FLOATS or a.dtype != x.dtype) for a in (x, weight, bias)):
        return None
    none = np.empty(0, x.dtype)
    rows = x.shape[0]
    y, mean, rstd = np.empty(x.shape, x.dtype), np.empty(rows, x.dtype), np.empty(rows, x.dtype)
    w = none if weight is None else ready(weight)
    b = none if bias is None else ready(bias)
    share(forward[x.dtype], rows, 0.5 * x.size, ready(x), w, b, eps, y, mean, rstd)
    return y, mean, rstd


def layer_norm_backward(
    g: Array, x: Array, weight: Array | None, mean: Array, rstd: Array,
    needs: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Array | None, Array | None, Array | None] | None:  # fmt: skip
    """dx (rows, C), dweight (C,), dbias (C,); None for one that is not needed."""
    if any(a is not None and (a.dtype not in FLOATS or a.dtype != x.dtype) for a in (g, x, weight)):
        return None
    rows, columns = x.shape
    none = np.empty(0, x.dtype)
    dx = np.empty(x.shape if needs[0] else (0, 0), x.dtype)
    sums = np.empty((min(CHUNKS, rows), 2, columns), x.dtype)
    w = none if weight is None else ready(weight)
    share(
        backward[x.dtype], len(sums), x.size, ready(g), ready(x), w, ready(mean), ready(rstd), dx, sums
    )
    dweight, dbias = sums.sum(0) if needs[1] or needs[2] else (None, None)
    return dx if needs[0] else None, dweight if needs[1] else None, dbias if needs[2] else None
