"""bfloat16 on the CPU: products through oneMKL, which sums in float32, casts, and sums of columns.

A product is made by tiles that stay in the cache until they are rounded, bias and all."""

from typing import Any

import numpy as np

from tensorgrad.kernels import available as compiles
from tensorgrad.kernels.cpu import onemkl
from tensorgrad.kernels.cpu.bits import multiply, narrow, widen
from tensorgrad.kernels.cpu.blocks import row
from tensorgrad.kernels.cpu.jit import (
    NONE,
    Array,
    BitMatrix,
    Bits,
    Integers,
    OutBitCube,
    OutBits,
    OutMatrix,
    OutVector,
    Vector,
    is_bfloat16,
    kernel,
)
from tensorgrad.kernels.cpu.threads import share

FLOAT32 = np.dtype(np.float32)
ROWS, COLUMNS, WIDE = 256, 512, 1024  # of a tile, which is wide where the sums are long
LONG = 1536
CHUNKS = 32  # partial sums over rows; a fixed number, so that no bit depends on the threads
MOST = 2**31 - 1  # what oneMKL's integers hold


def available() -> bool:
    """Whether this machine has products of bfloat16: oneMKL, instructions for it, and Numba."""
    return compiles() and onemkl.gemm_address() != 0


# ---- casts


@kernel
def narrow_all(lo: int, hi: int, x: Vector, out: OutBits) -> None:
    x, out = x[lo:hi], out[lo:hi]
    for i in range(x.size):
        out[i] = narrow(x[i])


@kernel
def widen_all(lo: int, hi: int, x: Bits, out: OutVector) -> None:
    x, out = x[lo:hi], out[lo:hi]
    for i in range(x.size):
        out[i] = widen(x[i])


def bf16_cast(x: Array, dtype: Any) -> Array | None:
    """float32 to bfloat16, to nearest and ties to even, or back.  Dense arrays, dims in any order.

    NaN stays NaN, infinity infinity."""
    down = x.dtype == FLOAT32 and is_bfloat16(dtype)
    if not (down or (dtype == FLOAT32 and is_bfloat16(x.dtype))) or not x.flags.aligned:
        return None
    order = sorted(range(x.ndim), key=lambda i: -x.strides[i])
    dense = x if x.flags.c_contiguous else x.transpose(order)
    if not dense.flags.c_contiguous:
        return None
    out = np.empty(dense.shape, dtype)
    run, flat = narrow_all if down else widen_all, out.reshape(-1)
    if down:
        run.over(FLOAT32, x.size, 0.25 * x.size, dense.reshape(-1), flat.view(np.uint16))
    else:
        run.over(FLOAT32, x.size, 0.25 * x.size, dense.reshape(-1).view(np.uint16), flat)
    if dense is x:
        return out
    return out.transpose([order.index(i) for i in range(x.ndim)])


# ---- products


@kernel
def tiles(
    lo: int, hi: int, gemm: int, a: Integers, lda: int, turn_a: bool, b: Integers, ldb: int,
    turn_b: bool, k: int, width: int, bias: Vector, out: OutBitCube,
) -> None:  # fmt: skip
    """Tiles lo to hi of all the matrices of out; a and b are the addresses of theirs."""
    M, N = out.shape[1:]
    tile = np.empty((min(ROWS, M), min(width, N)), np.float32)
    across, down = (N + width - 1) // width, (M + ROWS - 1) // ROWS
    for t in range(lo, hi):
        matrix, place = t // (across * down), t % (across * down)
        i0, j0 = place // across * ROWS, place % across * width
        m, n = min(ROWS, M - i0), min(width, N - j0)
        left = a[matrix] + 2 * (i0 if turn_a else i0 * lda)
        right = b[matrix] + 2 * (j0 * ldb if turn_b else j0)
        multiply(
            gemm, m, n, k, left, lda, turn_a, right, ldb, turn_b, tile.ctypes.data, tile.shape[1],
            False,
        )  # fmt: skip
        for i in range(m):
            line, to = row(tile, i)[:n], out[matrix, i0 + i, j0 : j0 + n]
            if bias.size:
                added = bias[j0 : j0 + n]
                for j in range(n):
                    to[j] = narrow(line[j] + added[j])
            else:
                for j in range(n):
                    to[j] = narrow(line[j])


def bf16_product(x: Array, y: Array, bias: Array | None = None) -> Array | None:
    """x @ y + bias, of bfloat16, summed in float32 and rounded once.

    x (..., n, k), y (k, m) or (..., k, m) whose outer dims broadcast, bias (m,) -> (..., n, m).
    Transposed operands are read where they lie."""
    if not available() or not is_bfloat16(x.dtype) or x.dtype != y.dtype:
        return None
    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-2]:
        return None
    if bias is not None and bias.shape != y.shape[-1:]:
        return None
    if y.ndim == 2 and x.ndim > 2:
        rows = x.size // x.shape[-1] if x.shape[-1] else int(np.prod(x.shape[:-1]))
        out = bf16_product(x.reshape(rows, x.shape[-1]), y, bias)
        return None if out is None else out.reshape(*x.shape[:-1], y.shape[-1])
    (n, k), m = x.shape[-2:], y.shape[-1]
    outer = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    out = np.empty((*outer, n, m), x.dtype)
    added = NONE[FLOAT32] if bias is None else bias.astype(np.float32)
    if not out.size:
        return out
    if not k:
        out[...] = 0 if bias is None else added
        return out
    (x, lda, turn_x), (y, ldb, turn_y) = _laid(x), _laid(y)
    if max(n, m, k, lda, ldb) > MOST:
        return None
    flat = out.reshape(-1, n, m)
    width = WIDE if k >= LONG else COLUMNS
    count = len(flat) * -(-n // ROWS) * -(-m // width)
    share(
        tiles[FLOAT32], count, out.size * (k / 400 + 0.3), onemkl.gemm_address(),
        _places(x, outer), lda, turn_x, _places(y, outer), ldb, turn_y, k, width, added,
        flat.view(np.uint16),
    )  # fmt: skip
    return out


def _laid(x: Array) -> tuple[Array, int, bool]:
    """x, a copy if need be; the elements from row to row, of its transpose if that is true."""
    (n, k), (down, along) = x.shape[-2:], x.strides[-2:]
    if x.flags.aligned:
        if (along == 2 or k == 1) and (n == 1 or (down >= 2 * k and down % 2 == 0)):
            return x, down // 2 if n > 1 else k, False
        if (down == 2 or n == 1) and (k == 1 or (along >= 2 * n and along % 2 == 0)):
            return x, along // 2 if k > 1 else n, True
    return np.array(x, order="C"), k, False


def _places(x: Array, outer: tuple[int, ...]) -> Array:
    """The address of each of x's matrices, stretched over the outer dims."""
    steps = np.zeros((), np.int64)
    for i, size in enumerate(x.shape[:-2]):
        steps = steps[..., None] + np.arange(size) * x.strides[i]
    steps = steps + x.__array_interface__["data"][0]
    return np.ascontiguousarray(np.broadcast_to(steps, outer)).reshape(-1)


# ---- sums


@kernel
def chunk_sums(lo: int, hi: int, x: BitMatrix, sums: OutMatrix) -> None:
    """Chunks lo to hi of the rows."""
    rows = x.shape[0]
    for chunk in range(lo, hi):
        total = row(sums, chunk)
        for j in range(total.size):
            total[j] = 0
        for i in range(chunk * rows // sums.shape[0], (chunk + 1) * rows // sums.shape[0]):
            line = row(x, i)
            for j in range(line.size):
                total[j] += widen(line[j])


def bf16_sum(x: Array, count: int) -> Array | None:
    """The sum over the first `count` dims, in float32, rounded at the end."""
    if not is_bfloat16(x.dtype) or not x.flags.c_contiguous or not x.flags.aligned or not x.size:
        return None
    shape = x.shape[count:]
    matrix = x.view(np.uint16).reshape(-1, int(np.prod(shape)))
    sums = np.empty((min(CHUNKS, len(matrix)), matrix.shape[1]), np.float32)
    chunk_sums.over(FLOAT32, len(sums), 0.2 * x.size, matrix, sums)
    out: Array = np.add.reduce(sums, 0).astype(x.dtype).reshape(shape)
    return out
