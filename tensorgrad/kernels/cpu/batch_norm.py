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
    for j in range(lo, hi):
        mean[j] = var[j] = number(0)
    for i in range(rows):
        xi = row(x, i)
        for j in range(lo, hi):
            mean[j] += xi[j]
    for j in range(lo, hi):
        mean[j] /= count
    for i in range(rows):
        xi = row(x, i)
        for j in range(lo, hi):
            var[j] += (xi[j] - mean[j]) * (xi[j] - mean[j])
    for j in range(lo, hi):
        var[j] /= count
        scale[j] = one / math.sqrt(var[j] + eps)
    for i in range(rows):
        xi, out = row(x, i), row(y, i)
        for j in range(lo, hi):
            out[j] = (xi[j] - mean[j]) * scale[j]
        if weight.size:
            for j in range(lo, hi):
                out[j] *= weight[j]
        if bias.size:
            for j in range(lo, hi):
                out[j] += bias[j]


@kernel
def backward(
    lo: int, hi: int, g: Matrix, x: Matrix, weight: Vector, mean: Vector, scale: Vector,
    dx: OutMatrix, dweight: OutVector, dbias: OutVector,
) -> None:  # fmt: skip
    """Columns lo to hi: dx = (g - mean(g) - xhat mean(g xhat)) scale weight."""
    number = x.dtype.type
    rows = x.shape[0]
    count = number(rows)
    for j in range(lo, hi):
        dweight[j] = dbias[j] = number(0)
    for i in range(rows):
        xi, gi = row(x, i), row(g, i)
        for j in range(lo, hi):
            dbias[j] += gi[j]
            dweight[j] += gi[j] * (xi[j] - mean[j])
    for j in range(lo, hi):
        dweight[j] *= scale[j]
    if dx.size == 0:
        return
    for i in range(rows):
        xi, gi, out = row(x, i), row(g, i), row(dx, i)
        for j in range(lo, hi):
            xhat = (xi[j] - mean[j]) * scale[j]
            out[j] = (gi[j] - (dbias[j] + xhat * dweight[j]) / count) * scale[j]
        if weight.size:
            for j in range(lo, hi):
                out[j] *= weight[j]


def batch_norm_forward(
    x: Array, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array, Array] | None:
    """y (N, C) = (x - mean) / sqrt(var + eps) * weight + bias; mean, var, 1 / deviation, all (C)."""
    if not known(x, weight, bias):
        return None
    dtype, columns = x.dtype, x.shape[1]
    y = np.empty(x.shape, dtype)
    mean, var, scale = np.empty((3, columns), dtype)
    forward.over(
        dtype, columns, 0.4 * x.size, x, _vector(weight, dtype), _vector(bias, dtype), eps,
        y, mean, var, scale,
    )  # fmt: skip
    return y, mean, var, scale


def batch_norm_backward(
    g: Array, x: Array, weight: Array | None, mean: Array, scale: Array, wanted: bool
) -> tuple[Array | None, Array, Array] | None:
    """dx (N, C), None if it is not wanted; dweight and dbias (C)."""
    if not known(x, g, weight, mean, scale):
        return None
    dtype, columns = x.dtype, x.shape[1]
    dx = np.empty(x.shape if wanted else (0, 0), dtype)
    dweight, dbias = np.empty(columns, dtype), np.empty(columns, dtype)
    backward.over(
        dtype, columns, 0.6 * x.size, g, x, _vector(weight, dtype), mean, scale, dx, dweight, dbias
    )
    return dx if wanted else None, dweight, dbias


def _vector(p: Array | None, dtype: np.dtype[np.generic]) -> Array:
    return NONE[dtype] if p is None else p
