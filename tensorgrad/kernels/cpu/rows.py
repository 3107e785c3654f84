"""Sums, extremes and running sums of a contiguous array, along its last dim or over all of it."""

from typing import Any

import numpy as np

from tensorgrad.kernels.cpu.blocks import row
from tensorgrad.kernels.cpu.elementary import larger, plus, smaller
from tensorgrad.kernels.cpu.jit import Array, Matrix, OutMatrix, OutVector, Vector, kernel, known

BLOCK = 4096  # elements summed at a stretch; stretches are summed in pairs by NumPy
LANES = 8  # rows whose running sums are taken side by side, since each waits for its last


@kernel
def block_sums(lo: int, hi: int, x: Vector, out: OutVector) -> None:
    for i in range(lo, hi):
        piece = x[i * BLOCK : (i + 1) * BLOCK]
        total = x.dtype.type(0)
        for j in range(piece.size):
            total = plus(total, piece[j])
        out[i] = total


@kernel
def row_sums(lo: int, hi: int, x: Matrix, out: OutVector) -> None:
    for i in range(lo, hi):
        xi = row(x, i)
        total = x.dtype.type(0)
        for j in range(xi.size):
            total = plus(total, xi[j])
        out[i] = total


@kernel
def row_tops(lo: int, hi: int, x: Matrix, out: OutVector, least: bool) -> None:
    for i in range(lo, hi):
        xi = row(x, i)
        top = xi[0]
        if least:
            for j in range(xi.size):
                top = smaller(top, xi[j])
        else:
            for j in range(xi.size):
                top = larger(top, xi[j])
        out[i] = top


@kernel
def running(lo: int, hi: int, x: Matrix, out: OutMatrix, backwards: bool) -> None:
    """Blocks lo to hi of LANES rows each; sums in float64, as PyTorch's."""
    columns = x.shape[1]
    for block in range(lo, hi):
        first = block * LANES
        count = min(LANES, x.shape[0] - first)
        xs, outs = x[first : first + count], out[first : first + count]
        totals = np.zeros(LANES, np.float64)
        for step in range(columns):
            j = columns - 1 - step if backwards else step
            for i in range(count):
                totals[i] += xs[i, j]
                outs[i, j] = totals[i]


def rows_sum(x: Array, dims: tuple[int, ...] | None = None, keepdim: bool = False) -> Array | None:
    """The sum over the last dim, or over all with dims None."""
    if not known(x) or not x.flags.c_contiguous or not x.size:
        return None
    if dims is None:
        parts = np.empty(-(-x.size // BLOCK), x.dtype)
        block_sums.over(x.dtype, parts.size, 0.1 * x.size, x.reshape(-1), parts)
        return np.asarray(np.add.reduce(parts))
    if len(dims) != 1 or dims[0] not in (-1, x.ndim - 1) or x.shape[-1] > BLOCK:
        return None
    out = np.empty(x.shape[:-1], x.dtype)
    row_sums.over(x.dtype, out.size, 0.1 * x.size, _matrix(x), out.reshape(-1))
    return out[..., None] if keepdim else out


def _top(x: Array, dims: tuple[int, ...], keepdim: bool, least: bool) -> Array | None:
    if not known(x) or not x.flags.c_contiguous or not x.size:
        return None
    if len(dims) != 1 or dims[0] not in (-1, x.ndim - 1):
        return None
    out = np.empty(x.shape[:-1], x.dtype)
    row_tops.over(x.dtype, out.size, 0.15 * x.size, _matrix(x), out.reshape(-1), least)
    return out[..., None] if keepdim else out


def rows_amax(x: Array, dims: tuple[int, ...], keepdim: bool) -> Array | None:
    """The largest of the last dim, NaN if there is one."""
    return _top(x, dims, keepdim, False)


def rows_amin(x: Array, dims: tuple[int, ...], keepdim: bool) -> Array | None:
    """The smallest of the last dim, NaN if there is one."""
    return _top(x, dims, keepdim, True)


def rows_cumsum(x: Array, dim: int, reverse: bool) -> Array | None:
    """out[i] = x[0] + ... + x[i] along the last dim, or x[i] + ... + x[-1]."""
    if not known(x) or not x.flags.c_contiguous or not x.size or dim not in (-1, x.ndim - 1):
        return None
    out = np.empty(x.shape, x.dtype)
    matrix = _matrix(x)
    blocks = -(-len(matrix) // LANES)
    running.over(x.dtype, blocks, 0.6 * x.size, matrix, _matrix(out), reverse)
    return out


def _matrix(x: Array) -> Any:
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
