"""Products with int8 weights, for a few rows: what a weight costs is the byte that is read for it.

More rows are worth a BLAS product, of weights turned into floats a block at a time."""

from typing import Annotated

import numpy as np

from tensorgrad.kernels.cpu import blas
from tensorgrad.kernels.cpu.blocks import row
from tensorgrad.kernels.cpu.elementary import plus
from tensorgrad.kernels.cpu.jit import Array, Matrix, OutMatrix, Vector, kernel, known, ready
from tensorgrad.kernels.cpu.threads import share

Bytes = Annotated[Array, 2, "C", "bool", "in"]  # bool is the one kind of byte in a signature

FEW = 8  # rows of x up to which the kernel is quicker than BLAS
BLOCK = 1024  # rows of weights that are made floats at a time, 3 MB at 768 columns


@kernel
def few_rows(lo: int, hi: int, x: Matrix, weight: Bytes, scale: Vector, out: OutMatrix) -> None:
    """Columns lo to hi of out."""
    number = x.dtype.type
    bytes8 = weight.view(np.int8)
    line = np.empty(x.shape[1], x.dtype)
    for n in range(lo, hi):
        w = row(bytes8, n)
        if x.shape[0] == 1:
            x0, total = row(x, 0), number(0)
            for k in range(x0.size):
                total = plus(total, x0[k] * number(w[k]))
            out[0, n] = total * scale[n]
        else:
            for k in range(line.size):
                line[k] = number(w[k])
            for i in range(x.shape[0]):
                xi, total = row(x, i), number(0)
                for k in range(xi.size):
                    total = plus(total, xi[k] * line[k])
                out[i, n] = total * scale[n]


def int8_linear(x: Array, weight: Array, scale: Array) -> Array | None:
    """(x weight^T) scale: x (m, K) floats, weight (N, K) int8, scale (N) of x's dtype -> (m, N)."""
    if not known(x, scale) or weight.dtype != np.int8 or x.ndim != 2:
        return None
    (m, K), N = x.shape, len(weight)
    out = np.empty((m, N), x.dtype)
    if m <= FEW:
        # Told as less than it is: one thread nearly fills the bus, so a second has to be worth it.
        run, work = few_rows[x.dtype], N * K * (0.02 + 0.03 * m)
        share(run, N, work, ready(x), ready(weight).view(np.bool_), ready(scale), out)
        return out
    floats = np.empty((BLOCK, K), x.dtype)
    for n in range(0, N, BLOCK):
        block = weight[n : n + BLOCK]
        share(_convert, len(block), block.size / 4, block, floats)
        blas.matmul(x, floats[: len(block)].T, out[:, n : n + BLOCK])
    out *= scale
    return out


def _convert(lo: int, hi: int, weight: Array, floats: Array) -> None:
    floats[lo:hi] = weight[lo:hi]
