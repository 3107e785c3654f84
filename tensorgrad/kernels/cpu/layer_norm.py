"""LayerNorm, in three passes over a row in the nearest cache.  Ba, Kiros and Hinton 2016."""

import math
from typing import Any

import numpy as np

from tensorgrad.kernels.cpu.blocks import row
from tensorgrad.kernels.cpu.elementary import plus
from tensorgrad.kernels.cpu.jit import (
    NONE,
    Array,
    Matrix,
    OutCube,
    OutMatrix,
    OutVector,
    Vector,
    kernel,
    known,
)

CHUNKS = 32  # partial sums over rows; a fixed number, so that no bit depends on the threads


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
            total = plus(total, xi[j])
        mu = total / count
        total = number(0)
        for j in range(xi.size):
            total = plus(total, (xi[j] - mu) * (xi[j] - mu))
        scale = one / math.sqrt(total / count + eps)
        mean[i], rstd[i] = mu, scale
        for j in range(xi.size):
            out[j] = (xi[j] - mu) * scale
        if weight.size:
            for j in range(xi.size):
                out[j] *= weight[j]
        if bias.size:
            for j in range(xi.size):
                out[j] += bias[j]


@kernel
def backward(
    lo: int, hi: int, g: Matrix, x: Matrix, weight: Vector, mean: Vector, rstd: Vector,
    dx: OutMatrix, sums: OutCube,
) -> None:  # fmt: skip
    """Chunks lo to hi of the rows, whose parts of dweight and dbias go to sums (chunks, 2, C)."""
    number = x.dtype.type
    count, rows = number(x.shape[1]), x.shape[0]
    for chunk in range(lo, hi):
        dw, db = row(sums[chunk], 0), row(sums[chunk], 1)
        for j in range(dw.size):
            dw[j] = db[j] = number(0)
        for i in range(chunk * rows // sums.shape[0], (chunk + 1) * rows // sums.shape[0]):
            xi, gi, mu, scale = row(x, i), row(g, i), mean[i], rstd[i]
            for j in range(xi.size):
                db[j] += gi[j]
                dw[j] += gi[j] * ((xi[j] - mu) * scale)
            if dx.size == 0:
                continue
            out = row(dx, i)
            for j in range(xi.size):
                out[j] = gi[j]
            if weight.size:
                for j in range(xi.size):
                    out[j] *= weight[j]
            a, b = number(0), number(0)
            for j in range(xi.size):
                a = plus(a, out[j])
                b = plus(b, out[j] * (xi[j] - mu))
            a, b = a / count, b * scale * scale / count
            for j in range(xi.size):
                out[j] = (out[j] - a - (xi[j] - mu) * b) * scale


def layer_norm_forward(
    x: Array, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array] | None:
    """y = (x - mean) / sqrt(var + eps) * weight + bias over the last dim; mean; 1 / deviation.

    x (..., C), weight and bias (C,) -> y (..., C), mean and rstd (...)."""
    if not known(x, weight, bias) or not _fits(x, weight) or not _fits(x, bias):
        return None
    rows, dtype = x.shape[:-1], x.dtype
    y, mean, rstd = np.empty(x.shape, dtype), np.empty(rows, dtype), np.empty(rows, dtype)
    forward.over(
        dtype, mean.size, 0.35 * x.size, _matrix(x), _vector(weight, dtype), _vector(bias, dtype),
        eps, _matrix(y), mean.ravel(), rstd.ravel(),
    )  # fmt: skip
    return y, mean, rstd


def layer_norm_backward(
    g: Array, x: Array, weight: Array | None, mean: Array, rstd: Array,
    needs: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Array | None, Array | None, Array | None] | None:  # fmt: skip
    """dx (..., C), dweight (C,), dbias (C,), each None where it is not needed."""
    if not known(x, g, weight, mean, rstd) or not _fits(x, weight) or g.shape != x.shape:
        return None
    if mean.shape != x.shape[:-1] or rstd.shape != x.shape[:-1]:
        return None
    dtype = x.dtype
    dx = np.empty(x.shape if needs[0] else (0, 0), dtype)
    sums = np.empty((min(CHUNKS, mean.size), 2, x.shape[-1]), dtype)
    backward.over(
        dtype, len(sums), 0.55 * x.size, _matrix(g), _matrix(x), _vector(weight, dtype),
        mean.ravel(), rstd.ravel(), _matrix(dx), sums,
    )  # fmt: skip
    dweight, dbias = np.add.reduce(sums, 0) if needs[1] or needs[2] else (None, None)
    return dx if needs[0] else None, dweight if needs[1] else None, dbias if needs[2] else None


def _fits(x: Array, p: Array | None) -> bool:
    return x.ndim > 0 and x.shape[-1] > 0 and (p is None or p.shape == x.shape[-1:])


def _matrix(x: Array) -> Array:
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])


def _vector(p: Array | None, dtype: np.dtype[Any]) -> Array:
    return NONE[dtype] if p is None else p
