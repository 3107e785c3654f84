"""BatchNorm of the rows of a matrix, column by column.  Ioffe and Szegedy 2015."""

import math

import numpy as np

from tensorgrad.kernels.cpu.blocks import row
from tensorgrad.kernels.cpu.jit import (
    NONE,
    Array,
    Matrix,
    OutMatrix,
    OutVector,
    Vector,
    kernel,
    known,
)


@kernel
def forward(
    lo: int, hi: int, x: Matrix, weight: Vector, bias: Vector, eps: float,
    y: OutMatrix, mean: OutVector, var: OutVector, scale: OutVector,
) -> None:  # fmt: skip
    """Columns lo to hi."""
    number = x.dtype.type
    rows, one = x.shape[0], number(1)
    count = number(rows)
    m, v, s = mean[lo:hi], var[lo:hi], scale[lo:hi]
    for j in range(m.size):
        m[j] = v[j] = number(0)
    for i in range(rows):
        xi = row(x, i)[lo:hi]
        for j in range(m.size):
            m[j] += xi[j]
    for j in range(m.size):
        m[j] /= count
    for i in range(rows):
        xi = row(x, i)[lo:hi]
        for j in range(m.size):
            v[j] += (xi[j] - m[j]) * (xi[j] - m[j])
    for j in range(m.size):
        v[j] /= count
        s[j] = one / math.sqrt(v[j] + eps)
    for i in range(rows):
        xi, out = row(x, i)[lo:hi], row(y, i)[lo:hi]
        for j in range(m.size):
            out[j] = (xi[j] - m[j]) * s[j]
        if weight.size:
            w = weight[lo:hi]
            for j in range(m.size):
                out[j] *= w[j]
        if bias.size:
            b = bias[lo:hi]
            for j in range(m.size):
                out[j] += b[j]


@kernel
def backward(
    lo: int, hi: int, g: Matrix, x: Matrix, weight: Vector, mean: Vector, scale: Vector,
    dx: OutMatrix, dweight: OutVector, dbias: OutVector,
) -> None:  # fmt: skip
    """Columns lo to hi: dx = (g - mean(g) - xhat mean(g xhat)) scale weight."""
    number = x.dtype.type
    rows = x.shape[0]
    count = number(rows)
    m, s, dw, db = mean[lo:hi], scale[lo:hi], dweight[lo:hi], dbias[lo:hi]
    for j in range(m.size):
        dw[j] = db[j] = number(0)
    for i in range(rows):
        xi, gi = row(x, i)[lo:hi], row(g, i)[lo:hi]
        for j in range(m.size):
            db[j] += gi[j]
        for j in range(m.size):
            dw[j] += gi[j] * (xi[j] - m[j])
    for j in range(m.size):
        dw[j] *= s[j]
    if dx.size == 0:
        return
    for i in range(rows):
        xi, gi, out = row(x, i)[lo:hi], row(g, i)[lo:hi], row(dx, i)[lo:hi]
        for j in range(m.size):
            out[j] = (gi[j] - (db[j] + (xi[j] - m[j]) * s[j] * dw[j]) / count) * s[j]
        if weight.size:
            w = weight[lo:hi]
            for j in range(m.size):
                out[j] *= w[j]


def batch_norm_forward(
    x: Array, weight: Array | None, bias: Array | None, eps: float, told: Array
) -> tuple[Array, Array, Array] | None:
    """y (..., C) = (x - mean) / sqrt(var + eps) * weight + bias; mean and 1 / deviation (C).

    told (2, C) receives mean and var; the mean that is answered is the one in it."""
    if not known(x, weight, bias):
        return None
    dtype, columns = x.dtype, x.shape[-1]
    y, mean, scale = np.empty(x.shape, dtype), told[0], np.empty(columns, dtype)
    forward.over(
        dtype, columns, 0.4 * x.size, x.reshape(-1, columns), _vector(weight, dtype),
        _vector(bias, dtype), eps, y.reshape(-1, columns), mean, told[1], scale,
    )  # fmt: skip
    return y, mean, scale


def batch_norm_backward(
    g: Array, x: Array, weight: Array | None, mean: Array, scale: Array, wanted: bool
) -> tuple[Array | None, Array, Array] | None:
    """dx (..., C), None if it is not wanted; dweight and dbias (C)."""
    if not known(x, g, weight, mean, scale):
        return None
    dtype, columns = x.dtype, x.shape[-1]
    dx = np.empty(x.shape if wanted else (0, columns), dtype)
    dweight, dbias = np.empty(columns, dtype), np.empty(columns, dtype)
    backward.over(
        dtype, columns, 0.6 * x.size, g.reshape(-1, columns), x.reshape(-1, columns),
        _vector(weight, dtype), mean, scale, dx.reshape(-1, columns), dweight, dbias,
    )  # fmt: skip
    return dx if wanted else None, dweight, dbias


def _vector(p: Array | None, dtype: np.dtype[np.generic]) -> Array:
    return NONE[dtype] if p is None else p
