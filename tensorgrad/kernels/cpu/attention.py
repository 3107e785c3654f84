"""Attention in blocks with an online softmax: no T x T matrix, only each row's log-sum-exp is kept.

Dao et al. 2022, "FlashAttention"; a thread takes whole heads, so no sum depends on the thread count."""

import math

import numpy as np

from tensorgrad.kernels.cpu.elementary import exp, larger
from tensorgrad.kernels.cpu.jit import FLOATS, Array, Heads, OutCube, OutBoard, Cube, helper, kernel
from tensorgrad.kernels.cpu.product import WIDTH, add_product, unit_row
from tensorgrad.kernels.cpu.threads import share

QUERIES, KEYS = 32, 64  # rows and columns of a block of scores


@helper
def _pad(n):
    return (n + WIDTH - 1) // WIDTH * WIDTH


@helper
def _seen(i, j0, columns, causal):
    """How many of the block's columns, which begin at key j0, row i may see."""
    return min(max(i + 1 - j0, 0), columns) if causal else columns


@helper
def _copy(out, x):
    for d in range(out.size):
        out[d] = x[d]


@helper
def _pack(out, x, scale):
    """out[:T, :D] = x * scale, the rest 0."""
    T, D = x.shape
    zero = out.dtype.type(0)
    for i in range(T):
        row, source = out[i], unit_row(x, i)
        for d in range(D):
            row[d] = source[d] * scale
        row[D:] = zero
    out[T:] = zero


@helper
def _pack_turned(out, x, scale):
    """out[:D, :T] = x.T * scale, the rest 0."""
    T, D = x.shape
    for i in range(T):
        source = unit_row(x, i)
        for d in range(D):
            out[d, i] = source[d] * scale
    out[:, T:] = out.dtype.type(0)


@kernel
def forward(
    lo: int, hi: int, q: Heads, k: Heads, v: Heads, causal: bool, scale: float,
    out: OutBoard, lse: OutCube,
) -> None:  # fmt: skip
    number = q.dtype.type
    zero, one, nothing = number(0), number(1), number(-np.inf)
    H, T, D = q.shape[1:]
    S, E = v.shape[2:]
    kt = np.empty((D, _pad(S)), q.dtype)
    vs = np.empty((_pad(S), _pad(E)), q.dtype)
    scores = np.empty((QUERIES, KEYS), q.dtype)
    total = np.empty((QUERIES, _pad(E)), q.dtype)
    top, mass = np.empty(QUERIES, q.dtype), np.empty(QUERIES, q.dtype)
    for n in range(lo, hi):
        b, h = n // H, n % H
        _pack_turned(kt, k[b, h], scale)
        _pack(vs, v[b, h], one)
        for i0 in range(0, T, QUERIES):
            rows = min(QUERIES, T - i0)
            seen = min(S, i0 + rows) if causal else S
            top[:], mass[:], total[:] = nothing, zero, zero
            for j0 in range(0, seen, KEYS):
                columns = min(KEYS, seen - j0)
                s = scores[:rows, : _pad(columns)]
                s[:] = zero
                add_product(s, q[b, h, i0 : i0 + rows], kt[:, j0 : j0 + KEYS])
                for i in range(rows):
                    line, new, part = unit_row(s, i), top[i], zero
                    line[_seen(i0 + i, j0, columns, causal) :] = nothing
                    for j in range(line.size):
                        new = larger(new, line[j])
                    for j in range(line.size):
                        p = exp(line[j] - new)
                        line[j] = p
                        part += p
                    shrink = exp(top[i] - new)
                    top[i], mass[i] = new, mass[i] * shrink + part
                    if shrink != one:
                        acc = total[i]
                        for d in range(acc.size):
                            acc[d] *= shrink
                add_product(total[:rows, :], s, vs[j0 : j0 + s.shape[1], :])
            for i in range(rows):
                lse[b, h, i0 + i] = top[i] + math.log(mass[i])
                inverse = one / mass[i]
                line = out[b, i0 + i, h]
                for d in range(E):
                    line[d] = total[i, d] * inverse


@kernel
def backward(
    lo: int, hi: int, g: Heads, q: Heads, k: Heads, v: Heads, out: Heads, lse: Cube, causal: bool,
    scale: float, dq: OutBoard, dk: OutBoard, dv: OutBoard,
) -> None:  # fmt: skip
    number = q.dtype.type
    zero, one, nothing = number(0), number(1), number(-np.inf)
    H, T, D = q.shape[1:]
    S, E = v.shape[2:]
    kt, ks = np.empty((D, _pad(S)), q.dtype), np.empty((_pad(S), _pad(D)), q.dtype)
    vt = np.empty((E, _pad(S)), q.dtype)
    qs, gs = np.empty((T, _pad(D)), q.dtype), np.empty((T, _pad(E)), q.dtype)
    delta = np.empty(T, q.dtype)
    q_sum, k_sum = np.empty((T, _pad(D)), q.dtype), np.empty((_pad(S), _pad(D)), q.dtype)
    v_sum = np.empty((_pad(S), _pad(E)), q.dtype)
    chance, slope = np.empty((QUERIES, KEYS), q.dtype), np.empty((QUERIES, KEYS), q.dtype)
    for n in range(lo, hi):
        b, h = n // H, n % H
        _pack_turned(kt, k[b, h], scale)
        _pack(ks, k[b, h], scale)
        _pack_turned(vt, v[b, h], one)
        _pack(qs, q[b, h], scale)
        _pack(gs, g[b, h], one)
        for i in range(T):
            delta[i], source = zero, unit_row(out[b, h], i)
            for d in range(E):
                delta[i] += gs[i, d] * source[d]
        q_sum[:], k_sum[:], v_sum[:] = zero, zero, zero
        for j0 in range(0, S, KEYS):
            for i0 in range(j0 // QUERIES * QUERIES if causal else 0, T, QUERIES):
                rows = min(QUERIES, T - i0)
                columns = min(KEYS, S - j0)
                if causal:
                    columns = min(columns, i0 + rows - j0)
                width = _pad(columns)
                p, ds = chance[:rows, :width], slope[:rows, :width]
                p[:], ds[:] = zero, zero
                add_product(p, q[b, h, i0 : i0 + rows], kt[:, j0 : j0 + width])
                add_product(ds, g[b, h, i0 : i0 + rows], vt[:, j0 : j0 + width])
                for i in range(rows):
                    pi, si = unit_row(p, i), unit_row(ds, i)
                    z, mean = lse[b, h, i0 + i], delta[i0 + i]
                    pi[_seen(i0 + i, j0, columns, causal) :] = nothing
                    for j in range(pi.size):
                        e = exp(pi[j] - z)
                        pi[j] = e
                        si[j] = e * (si[j] - mean)
                add_product(v_sum[j0 : j0 + width, :], p.T, gs[i0 : i0 + rows, :])
                add_product(k_sum[j0 : j0 + width, :], ds.T, qs[i0 : i0 + rows, :])
                add_product(q_sum[i0 : i0 + rows, :], ds, ks[j0 : j0 + width, :])
        for i in range(T):
            _copy(dq[b, i, h], q_sum[i])
        for j in range(S):
            _copy(dk[b, j, h], k_sum[j])
            _copy(dv[b, j, h], v_sum[j])


def _turn(x: Array) -> Array:
    """(B, T, H, D) as (B, H, T, D), so that joining the heads again copies nothing."""
    return x.transpose(0, 2, 1, 3)


def _unit(x: Array) -> Array:
    """x, copied if the numbers of a row do not lie side by side."""
    return x if x.strides[-1] == x.itemsize and x.flags.aligned else x.copy()


def attention_forward(
    q: Array, k: Array, v: Array, is_causal: bool = False, scale: float | None = None
) -> tuple[Array, Array] | None:
    """softmax(scale q kT) v of each head, (B, H, T, E), and the log-sum-exp of its rows, (B, H, T).

    q (B, H, T, D), k (B, H, S, D), v (B, H, S, E), any strides; causal: row i sees keys 0 to i."""
    if q.dtype not in FLOATS or k.dtype != q.dtype or v.dtype != q.dtype or 0 in (*q.shape, *v.shape):
        return None
    B, H, T, D = q.shape
    S, E = v.shape[2:]
    scale = 1 / math.sqrt(D) if scale is None else scale
    out, lse = np.empty((B, T, H, E), q.dtype), np.empty((B, H, T), q.dtype)
    work = B * H * T * S * (D + E) / (50 if is_causal else 25)
    share(forward[q.dtype], B * H, work, _unit(q), _unit(k), _unit(v), is_causal, scale, out, lse)
    return _turn(out), lse


def attention_backward(
    g: Array, q: Array, k: Array, v: Array, out: Array, lse: Array, is_causal: bool = False,
    scale: float | None = None,
) -> tuple[Array, Array, Array] | None:  # fmt: skip
    """dq, dk, dv from the gradient of the output, (B, H, T, E), and what the forward pass answered."""
    if q.dtype not in FLOATS or any(a.dtype != q.dtype for a in (g, k, v, out)):
        return None
    B, H, T, D = q.shape
    S, E = v.shape[2:]
    scale = 1 / math.sqrt(D) if scale is None else scale
    dq, dk = np.empty((B, T, H, D), q.dtype), np.empty((B, S, H, D), q.dtype)
    dv = np.empty((B, S, H, E), q.dtype)
    work = B * H * T * S * (3 * D + 2 * E) / (50 if is_causal else 25)
    g, q, k, v, out = map(_unit, (g, q, k, v, out))
    share(backward[q.dtype], B * H, work, g, q, k, v, out, lse, is_causal, scale, dq, dk, dv)
    return _turn(dq), _turn(dk), _turn(dv)
