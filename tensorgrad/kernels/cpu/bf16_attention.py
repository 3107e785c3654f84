"""Attention of bfloat16 by blocks: products through oneMKL, the softmax between them in float32.

Dao et al. 2022, "FlashAttention".  A thread takes whole heads, so no sum depends on the threads."""

import math

import numpy as np

from tensorgrad.kernels.cpu import onemkl
from tensorgrad.kernels.cpu.bits import multiply, narrow, widen
from tensorgrad.kernels.cpu.blocks import row
from tensorgrad.kernels.cpu.elementary import exp, larger, plus
from tensorgrad.kernels.cpu.jit import (
    Array,
    BitHeads,
    Cube,
    OutBitBoard,
    OutCube,
    helper,
    kernel,
)
from tensorgrad.kernels.cpu.threads import share

FLOAT32 = np.dtype(np.float32)
MOST = 2**31 - 1  # what oneMKL's integers hold
QUERIES, KEYS = 128, 512  # rows and columns of a block of scores, which stays in the second cache


@helper
def _step(x: Array) -> int:
    """Elements from row to row of (B, H, T, D)."""
    return x.strides[2] // 2


@helper
def _place(x: Array, b: int, h: int, i: int) -> int:
    """The address of row i of head h."""
    return x.ctypes.data + b * x.strides[0] + h * x.strides[1] + i * x.strides[2]


@helper
def _seen(i: int, j0: int, columns: int, causal: bool) -> int:
    """How many of the columns, which begin at key j0, row i may see."""
    return min(max(i + 1 - j0, 0), columns) if causal else columns


@kernel
def forward(
    lo: int, hi: int, gemm: int, q: BitHeads, k: BitHeads, v: BitHeads, causal: bool,
    scale: float, out: OutBitBoard, lse: OutCube,
) -> None:  # fmt: skip
    """Heads lo to hi.  Chances p = exp(scale s - top) are rounded for the product with v."""
    zero, one, nothing = np.float32(0), np.float32(1), np.float32(-np.inf)
    H, T, D = q.shape[1:]
    S, E = v.shape[2:]
    high, wide = min(QUERIES, T), min(KEYS, S)
    scores, chances = np.empty((high, wide), np.float32), np.empty((high, wide), np.uint16)
    total = np.empty((high, E), np.float32)
    tops, mass = np.empty(high, np.float32), np.empty(high, np.float32)
    for head in range(lo, hi):
        b, h = head // H, head % H
        for i0 in range(0, T, high):
            rows = min(high, T - i0)
            seen = min(S, i0 + rows) if causal else S
            for j0 in range(0, seen, wide):
                columns = min(wide, seen - j0)
                multiply(
                    gemm, rows, columns, D, _place(q, b, h, i0), _step(q), False,
                    _place(k, b, h, j0), _step(k), True, scores.ctypes.data, wide, False,
                )  # fmt: skip
                for i in range(rows):
                    count = _seen(i0 + i, j0, columns, causal)
                    line, p = row(scores, i)[:count], row(chances, i)
                    old = tops[i] if j0 else nothing
                    top, part = nothing, zero
                    for j in range(count):
                        top = larger(top, line[j] * scale)
                    top = larger(old, top)
                    for j in range(count):
                        e = exp(line[j] * scale - top)
                        line[j] = e
                        part = plus(part, e)
                    for j in range(count):
                        p[j] = narrow(line[j])
                    for j in range(count, columns):
                        p[j] = 0
                    tops[i] = top
                    if j0 == 0:
                        mass[i] = part
                    elif top == old:
                        mass[i] += part
                    else:
                        shrink, acc = exp(old - top), row(total, i)
                        mass[i] = mass[i] * shrink + part
                        for d in range(E):
                            acc[d] *= shrink
                multiply(
                    gemm, rows, E, columns, chances.ctypes.data, wide, False,
                    _place(v, b, h, j0), _step(v), False, total.ctypes.data, E, j0 > 0,
                )  # fmt: skip
            for i in range(rows):
                lse[b, h, i0 + i] = tops[i] + math.log(mass[i])
                line, acc, inverse = out[b, i0 + i, h], row(total, i), one / mass[i]
                for d in range(E):
                    line[d] = narrow(acc[d] * inverse)


@kernel
def backward(
    lo: int, hi: int, gemm: int, g: BitHeads, q: BitHeads, k: BitHeads, v: BitHeads,
    out: BitHeads, lse: Cube, causal: bool, scale: float, dq: OutBitBoard, dk: OutBitBoard,
    dv: OutBitBoard,
) -> None:  # fmt: skip
    """Heads lo to hi: p of each block again, from lse, and ds = scale p (g v^T - sum(g out))."""
    zero = np.float32(0)
    H, T, D = q.shape[1:]
    S, E = v.shape[2:]
    high, wide = min(QUERIES, T), min(KEYS, S)
    scores, slopes = np.empty((high, wide), np.float32), np.empty((high, wide), np.float32)
    p, ds = np.empty((high, wide), np.uint16), np.empty((high, wide), np.uint16)
    q_sum, k_sum = np.empty((high, D), np.float32), np.empty((S, D), np.float32)
    v_sum = np.empty((S, E), np.float32)
    for head in range(lo, hi):
        b, h = head // H, head % H
        k_sum[:] = zero
        v_sum[:] = zero
        for i0 in range(0, T, high):
            rows = min(high, T - i0)
            seen = min(S, i0 + rows) if causal else S
            queries, slope = _place(q, b, h, i0), _place(g, b, h, i0)
            for j0 in range(0, seen, wide):
                columns = min(wide, seen - j0)
                keys = _place(k, b, h, j0)
                multiply(
                    gemm, rows, columns, D, queries, _step(q), False, keys, _step(k), True,
                    scores.ctypes.data, wide, False,
                )  # fmt: skip
                multiply(
                    gemm, rows, columns, E, slope, _step(g), False,
                    _place(v, b, h, j0), _step(v), True, slopes.ctypes.data, wide, False,
                )  # fmt: skip
                for i in range(rows):
                    count = _seen(i0 + i, j0, columns, causal)
                    line, s = row(scores, i)[:count], row(slopes, i)[:count]
                    pi, di, z = row(p, i), row(ds, i), lse[b, h, i0 + i]
                    gi, oi, mean = g[b, h, i0 + i], out[b, h, i0 + i], zero
                    for d in range(E):
                        mean = plus(mean, widen(gi[d]) * widen(oi[d]))
                    for j in range(count):
                        line[j] = exp(line[j] * scale - z)
                    for j in range(count):
                        pi[j] = narrow(line[j])
                    for j in range(count):
                        di[j] = narrow(line[j] * (s[j] - mean) * scale)
                    for j in range(count, columns):
                        pi[j] = di[j] = 0
                multiply(
                    gemm, columns, E, rows, p.ctypes.data, wide, True, slope, _step(g), False,
                    v_sum[j0:].ctypes.data, E, True,
                )  # fmt: skip
                multiply(
                    gemm, columns, D, rows, ds.ctypes.data, wide, True, queries, _step(q), False,
                    k_sum[j0:].ctypes.data, D, True,
                )  # fmt: skip
                multiply(
                    gemm, rows, D, columns, ds.ctypes.data, wide, False, keys, _step(k), False,
                    q_sum.ctypes.data, D, j0 > 0,
                )  # fmt: skip
            for i in range(rows):
                line, acc = dq[b, i0 + i, h], row(q_sum, i)
                for d in range(D):
                    line[d] = narrow(acc[d])
        for j in range(S):
            line, acc = dk[b, j, h], row(k_sum, j)
            for d in range(D):
                line[d] = narrow(acc[d])
            line, acc = dv[b, j, h], row(v_sum, j)
            for d in range(E):
                line[d] = narrow(acc[d])


def available() -> bool:
    return onemkl.gemm_address() != 0


def attend(
    q: Array, k: Array, v: Array, causal: bool, scale: float
) -> tuple[Array, Array]:
    """softmax(scale q k^T) v, (B, H, T, E), and the log-sum-exp of the scores, (B, H, T)."""
    gemm = onemkl.gemm_address()
    (B, H, T, D), (S, E) = q.shape, v.shape[2:]
    out, lse = np.empty((B, T, H, E), q.dtype), np.empty((B, H, T), FLOAT32)
    work = B * H * T * S * (0.4 + (D + E) / 200) * (1 if causal else 2)
    share(
        forward[FLOAT32], B * H, work, gemm, *map(_laid, (q, k, v)), causal, scale,
        out.view(np.uint16), lse,
    )  # fmt: skip
    return out.transpose(0, 2, 1, 3), lse


def slopes(
    g: Array, q: Array, k: Array, v: Array, out: Array, lse: Array, causal: bool, scale: float
) -> tuple[Array, Array, Array]:
    """dq, dk, dv from the gradient g of the output."""
    gemm = onemkl.gemm_address()
    (B, H, T, D), (S, E) = q.shape, v.shape[2:]
    dq, dk = np.empty((B, T, H, D), q.dtype), np.empty((B, S, H, D), q.dtype)
    dv = np.empty((B, S, H, E), q.dtype)
    work = B * H * T * S * (0.6 + (3 * D + 2 * E) / 200) * (1 if causal else 2)
    share(
        backward[FLOAT32], B * H, work, gemm, *map(_laid, (g, q, k, v, out)), lse, causal, scale,
        *(part.view(np.uint16) for part in (dq, dk, dv)),
    )  # fmt: skip
    return tuple(part.transpose(0, 2, 1, 3) for part in (dq, dk, dv))  # type: ignore[return-value]


def _laid(x: Array) -> Array:
    """The bits of (B, H, T, D), whose rows have unit stride and do not overlap."""
    D, step = x.shape[3], x.strides[2]
    usable = x.flags.aligned and (x.strides[3] == 2 or D == 1) and step % 2 == 0
    if not usable or not 2 * D <= step <= 2 * MOST:
        x = np.array(x, order="C")
    return x.view(np.uint16)
