"""Attention by blocks with an online softmax: of the scores only each row's log-sum-exp is kept.

Dao et al. 2022, "FlashAttention".  A thread takes whole heads, so no sum depends on the threads."""

import math

import numpy as np

from tensorgrad.kernels.cpu import bf16_attention
from tensorgrad.kernels.cpu.blocks import WIDTH, product, row
from tensorgrad.kernels.cpu.elementary import exp, larger, plus
from tensorgrad.kernels.cpu.jit import (
    Array,
    Cube,
    Heads,
    OutBoard,
    OutCube,
    helper,
    is_bfloat16,
    kernel,
    known,
    ready,
)
from tensorgrad.kernels.cpu.threads import share

QUERIES, KEYS = 16, 96  # rows and columns of a block of scores; multiples of the tile's
FEW = 64  # with so many keys a query, laying the keys out costs more than the blocks save


@helper
def _pad(n: int) -> int:
    return (n + WIDTH - 1) // WIDTH * WIDTH


@helper
def _copy(out: Array, x: Array) -> None:
    for d in range(out.size):
        out[d] = x[d]


@helper
def _pack(out: Array, x: Array, scale: float) -> None:
    """out[:T, :D] = x * scale."""
    for i in range(x.shape[0]):
        line, source = row(out, i), row(x, i)
        for d in range(source.size):
            line[d] = source[d] * scale


@helper
def _pack_turned(out: Array, x: Array, scale: float) -> None:
    """out[:D, :T] = x.T * scale."""
    for i in range(x.shape[0]):
        source = row(x, i)
        for d in range(source.size):
            out[d, i] = source[d] * scale


@helper
def _hide(line: Array, i: int, j0: int, columns: int, causal: bool) -> None:
    """-inf for the columns, which begin at key j0, that row i may not see."""
    seen = min(max(i + 1 - j0, 0), columns) if causal else columns
    for j in range(seen, line.size):
        line[j] = -np.inf


@kernel
def forward(
    lo: int, hi: int, q: Heads, k: Heads, v: Heads, causal: bool, scale: float,
    out: OutBoard, lse: OutCube,
) -> None:  # fmt: skip
    """Heads lo to hi.  A block of scores s becomes exp(s - top) in place; mass is a row's sum."""
    number = q.dtype.type
    one, nothing = number(1), number(-np.inf)
    H, T, D = q.shape[1:]
    S, E = v.shape[2:]
    kt, vs = np.zeros((D, _pad(S)), q.dtype), np.zeros((S, _pad(E)), q.dtype)
    scores, total = np.empty((QUERIES, KEYS), q.dtype), np.empty((QUERIES, _pad(E)), q.dtype)
    tops, mass = np.empty(QUERIES, q.dtype), np.empty(QUERIES, q.dtype)
    for n in range(lo, hi):
        b, h = n // H, n % H
        queries = q[b, h]
        _pack_turned(kt, k[b, h], scale)
        _pack(vs, v[b, h], one)
        for i0 in range(0, T, QUERIES):
            rows = min(QUERIES, T - i0)
            seen = min(S, i0 + rows) if causal else S
            for j0 in range(0, seen, KEYS):
                columns = min(KEYS, seen - j0)
                s = scores[:rows, : _pad(columns)]
                product(s, queries[i0 : i0 + rows], kt[:, j0:], False)
                for i in range(rows):
                    line, acc = row(s, i), row(total, i)
                    _hide(line, i0 + i, j0, columns, causal)
                    old = tops[i] if j0 else nothing
                    top, part = old, number(0)
                    for j in range(line.size):
                        top = larger(top, line[j])
                    for j in range(line.size):
                        p = exp(line[j] - top)
                        line[j] = p
                        part = plus(part, p)
                    tops[i] = top
                    if j0 == 0:
                        mass[i] = part
                    elif top == old:
                        mass[i] += part
                    else:
                        shrink = exp(old - top)
                        mass[i] = mass[i] * shrink + part
                        for d in range(acc.size):
                            acc[d] *= shrink
                product(total[:rows, :], s, vs[j0 : j0 + columns, :], j0 > 0)
            for i in range(rows):
                lse[b, h, i0 + i] = tops[i] + math.log(mass[i])
                line, acc, inverse = out[b, i0 + i, h], row(total, i), one / mass[i]
                for d in range(line.size):
                    line[d] = acc[d] * inverse


@kernel
def backward(
    lo: int, hi: int, g: Heads, q: Heads, k: Heads, v: Heads, out: Heads, lse: Cube, causal: bool,
    scale: float, dq: OutBoard, dk: OutBoard, dv: OutBoard,
) -> None:  # fmt: skip
    """Heads lo to hi: p of each block again, from lse, and ds = p (g v^T - sum(g out))."""
    number = q.dtype.type
    one = number(1)
    H, T, D = q.shape[1:]
    S, E = v.shape[2:]
    kt, vt = np.zeros((D, _pad(S)), q.dtype), np.zeros((E, _pad(S)), q.dtype)
    ks, qs = np.zeros((S, _pad(D)), q.dtype), np.zeros((T, _pad(D)), q.dtype)
    gs, delta = np.zeros((T, _pad(E)), q.dtype), np.empty(T, q.dtype)
    chances, slopes = np.empty((QUERIES, KEYS), q.dtype), np.empty((QUERIES, KEYS), q.dtype)
    q_sum = np.empty((T, _pad(D)), q.dtype)
    k_sum, v_sum = np.empty((KEYS, _pad(D)), q.dtype), np.empty((KEYS, _pad(E)), q.dtype)
    for n in range(lo, hi):
        b, h = n // H, n % H
        queries, slope_of_out = q[b, h], g[b, h]
        _pack_turned(kt, k[b, h], scale)
        _pack_turned(vt, v[b, h], one)
        _pack(ks, k[b, h], scale)
        _pack(qs, queries, scale)
        _pack(gs, slope_of_out, one)
        for i in range(T):
            line, gi, part = row(out[b, h], i), row(gs, i), number(0)
            for d in range(line.size):
                part = plus(part, gi[d] * line[d])
            delta[i] = part
        for j0 in range(0, S, KEYS):
            seen = min(KEYS, min(S, T) - j0 if causal else S - j0)
            first, last = j0 // QUERIES * QUERIES if causal else 0, (T - 1) // QUERIES * QUERIES
            for i0 in range(last, first - 1, -QUERIES):  # the last see most: they begin the sums
                rows = min(QUERIES, T - i0)
                columns = min(seen, i0 + rows - j0) if causal else seen
                p, ds = chances[:rows, : _pad(columns)], slopes[:rows, : _pad(columns)]
                product(p, queries[i0 : i0 + rows], kt[:, j0:], False)
                product(ds, slope_of_out[i0 : i0 + rows], vt[:, j0:], False)
                for i in range(rows):
                    pi, si = row(p, i), row(ds, i)
                    z, mean = lse[b, h, i0 + i], delta[i0 + i]
                    _hide(pi, i0 + i, j0, columns, causal)
                    for j in range(pi.size):
                        e = exp(pi[j] - z)
                        pi[j] = e
                        si[j] = e * (si[j] - mean)
                product(v_sum[:columns, :], p.T, gs[i0 : i0 + rows, :], i0 < last)
                product(k_sum[:columns, :], ds.T, qs[i0 : i0 + rows, :], i0 < last)
                product(q_sum[i0 : i0 + rows, :], ds[:, :columns], ks[j0 : j0 + columns, :], j0 > 0)
            for j in range(seen):
                _copy(dk[b, j0 + j, h], row(k_sum, j))
                _copy(dv[b, j0 + j, h], row(v_sum, j))
        for i in range(T):
            _copy(dq[b, i, h], row(q_sum, i))


def attention_forward(
    q: Array, k: Array, v: Array, is_causal: bool = False, scale: float | None = None
) -> tuple[Array, Array] | None:
    """softmax(scale q k^T) v, (..., T, E), and the log-sum-exp of each row of scores, (..., T).

    q (..., T, D), k (..., S, D), v (..., S, E) with the same outer sizes, of any strides.  Where
    causal, query i sees the keys 0 to i.  Without a scale, 1 / sqrt(D).  (B, H, T, E) lies in
    memory as (B, T, H, E)."""
    if not _fit(q, k, v):
        return None
    outer, (T, D), (S, E) = q.shape[:-2], q.shape[-2:], v.shape[-2:]
    q, k, v = map(_heads, (q, k, v))
    B, H = q.shape[:2]
    scale = 1 / math.sqrt(D) if scale is None else scale
    if is_bfloat16(q.dtype):
        y, lse = bf16_attention.attend(q, k, v, is_causal, scale)
        return (y if len(outer) == 2 else y.reshape(*outer, T, E)), lse.reshape(*outer, T)
    out, lse = np.empty((B, T, H, E), q.dtype), np.empty((B, H, T), q.dtype)
    work = B * H * T * S * (D + E) / (30 if is_causal else 18)
    share(forward[q.dtype], B * H, work, q, k, v, is_causal, scale, out, lse)
    return _unfold(out, outer), lse.reshape(*outer, T)


def attention_backward(
    g: Array, q: Array, k: Array, v: Array, out: Array, lse: Array, is_causal: bool = False,
    scale: float | None = None,
) -> tuple[Array, Array, Array] | None:  # fmt: skip
    """dq, dk, dv from the gradient g of the output, and what the forward pass answered."""
    if not _fit(q, k, v) or not q.dtype == g.dtype == out.dtype:
        return None
    if lse.dtype != (np.float32 if is_bfloat16(q.dtype) else q.dtype):
        return None
    outer, (T, D), (S, E) = q.shape[:-2], q.shape[-2:], v.shape[-2:]
    if not g.shape == out.shape == (*outer, T, E) or lse.shape != (*outer, T):
        return None
    g, q, k, v, out = map(_heads, (g, q, k, v, out))
    B, H = q.shape[:2]
    scale = 1 / math.sqrt(D) if scale is None else scale
    lse = ready(lse).reshape(B, H, T)
    if is_bfloat16(q.dtype):
        parts = bf16_attention.slopes(g, q, k, v, out, lse, is_causal, scale)
        return parts if len(outer) == 2 else tuple(p.reshape(*outer, *p.shape[-2:]) for p in parts)  # type: ignore[return-value]
    empty = np.zeros if is_causal and S > T else np.empty  # for the keys that no query sees
    dq, dk = np.empty((B, T, H, D), q.dtype), empty((B, S, H, D), q.dtype)
    dv = empty((B, S, H, E), q.dtype)
    work = B * H * T * S * (3 * D + 2 * E) / (40 if is_causal else 24)
    share(backward[q.dtype], B * H, work, g, q, k, v, out, lse, is_causal, scale, dq, dk, dv)
    return _unfold(dq, outer), _unfold(dk, outer), _unfold(dv, outer)


def _fit(q: Array, k: Array, v: Array) -> bool:
    if is_bfloat16(q.dtype):
        if not bf16_attention.available() or not q.dtype == k.dtype == v.dtype:
            return False
    elif not known(q, k, v):
        return False
    if not 2 <= q.ndim == k.ndim == v.ndim or not q.size * k.size * v.size:
        return False
    if not q.shape[:-2] == k.shape[:-2] == v.shape[:-2]:
        return False
    if k.shape[-2] >= FEW * q.shape[-2]:
        return False
    return bool(q.shape[-1] == k.shape[-1] and k.shape[-2] == v.shape[-2])


def _heads(x: Array) -> Array:
    """x as (B, H, T, D) whose rows have unit stride."""
    if x.ndim != 4:
        x = x.reshape(1, -1, *x.shape[-2:])
    usable = x.flags.aligned and (x.strides[-1] == x.itemsize or x.shape[-1] == 1)
    return x if usable else np.array(x, order="C")


def _unfold(x: Array, outer: tuple[int, ...]) -> Array:
    """(B, T, H, D) as (B, H, T, D): joining the heads again will copy nothing."""
    x = x.transpose(0, 2, 1, 3)
    return x if len(outer) == 2 else x.reshape(*outer, *x.shape[-2:])
