"""Attention by blocks with an online softmax: of the scores only one block is there at a time.

Dao et al. 2022, "FlashAttention".  A `Pattern` says who sees whom, and in which blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tensorgrad.backend import xp_of
from tensorgrad.kernels.cpu import blas, threads
from tensorgrad.kinds import fused
from tensorgrad.ops.attention import group_heads, weights
from tensorgrad.ops.products import _matmul
from tensorgrad.tensor import Tensor
from tensorgrad.tracer import Tracer

Array = np.ndarray[Any, np.dtype[Any]]
Some = slice | Array
"""Some of the tokens."""
Piece = tuple[Some, list[tuple[Some, Array | None]]]
"""Queries, and the blocks of keys that they see, with a mask (queries, keys) unless all see all."""

BLOCK = 128
"""Queries, and keys, in a block."""


class Pattern:
    """Who sees whom; here each token itself and all before it.

    The T queries are the last of S tokens: where keys come from a cache, S is more than T.
    """

    def sees(self, i: Any, j: Any) -> Any:
        """Whether token i sees token j."""
        return j <= i

    def pieces(self, T: int, S: int) -> Iterator[Piece]:
        """Every query once, with blocks that hold all the keys that it sees."""
        for first in range(0, T, BLOCK):
            rows = slice(first, min(first + BLOCK, T))
            yield self.piece(rows, S - T, cut(range(rows.stop + S - T)))

    def piece(self, rows: Some, past: int, blocks: list[Some]) -> Piece:
        """`past` is the position of row 0."""
        i = indices(rows) + past
        return rows, [(cols, self._mask(i, indices(cols))) for cols in blocks]

    def _mask(self, i: Array, j: Array) -> Array | None:
        seen = np.broadcast_to(self.sees(i[:, None], j), (len(i), len(j)))
        return None if seen.all() else seen

    def mask(self, T: int, S: int) -> Array:
        """All of `sees` at once, (T, S): what the blocks spare us."""
        return np.broadcast_to(self.sees(np.arange(S - T, S)[:, None], np.arange(S)), (T, S))

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"


def indices(some: Some) -> Array:
    return np.arange(some.start, some.stop, some.step) if isinstance(some, slice) else some


def cut(tokens: range) -> list[Some]:
    """Blocks of neighbours in the range."""
    parts = [tokens[n : n + BLOCK] for n in range(0, len(tokens), BLOCK)]
    return [slice(part.start, part.stop, part.step) for part in parts]


# ---- the two directions


def _forward(
    xp: Any, q: Any, k: Any, v: Any, /, pattern: Pattern, real: Any, scale: float
) -> tuple[Any, Any]:
    """The output (B, H, T, E) and each row's log-sum-exp of scores (B, H, T), inf if it sees none.

    top, total and acc are the largest score so far, and the sums of exp(score - top) and of
    exp(score - top) v; a larger score shrinks both sums.
    """
    out = xp.empty((*q.shape[:-1], v.shape[-1]), q.dtype)
    lse = xp.empty(q.shape[:-1], _wide(xp, q).dtype)

    def attend(q: Any, k: Any, v: Any, out: Any, lse: Any) -> None:
        for rows, blocks in pattern.pieces(q.shape[-2], k.shape[-2]):
            top, total, acc = -xp.inf, 0.0, 0.0
            for cols, seen in blocks:
                s = _scores(xp, q, k, rows, cols, seen, real, scale)  # (B, H, rows, columns)
                new = xp.maximum(top, s.max(-1, keepdims=True))
                base = xp.where(new == -xp.inf, xp.zeros_like(new), new)
                s -= base
                p, shrink = xp.exp(s, s), xp.exp(top - base)
                total = total * shrink + p.sum(-1, keepdims=True)
                acc = acc * shrink + p @ _wide(xp, v[..., cols, :])
                top = new
            none = total == 0
            total = xp.where(none, xp.ones_like(total), total)
            out[..., rows, :] = acc / total
            lse[..., rows] = xp.where(none, xp.inf, top + xp.log(total))[..., 0]

    _by_heads(xp, attend, q, k, v, out, lse)
    return out, lse


def _backward(
    g: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, pattern: Pattern, real: Any, scale: float
) -> tuple[Any, Any, Any]:
    """p of each block again, from lse;  dv = p^T g;  ds = p (g v^T - sum(g out));
    dq = scale ds k;  dk = scale ds^T q."""
    xp = xp_of(q)
    dq, dk, dv = (xp.zeros(x.shape, lse.dtype) for x in (q, k, v))
    mean = (_wide(xp, g) * out).sum(-1, keepdims=True)

    def attend(
        g: Any, q: Any, k: Any, v: Any, mean: Any, lse: Any, dq: Any, dk: Any, dv: Any
    ) -> None:
        for rows, blocks in pattern.pieces(q.shape[-2], k.shape[-2]):
            qi, gi = _wide(xp, q[..., rows, :]), _wide(xp, g[..., rows, :])
            part = xp.zeros(qi.shape, qi.dtype)
            for cols, seen in blocks:
                p = _scores(xp, q, k, rows, cols, seen, real, scale)
                p -= lse[..., rows, None]
                p = xp.exp(p, p)
                dv[..., cols, :] += p.swapaxes(-1, -2) @ gi
                p *= gi @ _wide(xp, v[..., cols, :]).swapaxes(-1, -2) - mean[..., rows, :]
                p *= p.dtype.type(scale)
                part += p @ _wide(xp, k[..., cols, :])
                dk[..., cols, :] += p.swapaxes(-1, -2) @ qi
            dq[..., rows, :] = part

    _by_heads(xp, attend, g, q, k, v, mean, lse, dq, dk, dv)
    dq, dk, dv = (x.astype(q.dtype, copy=False) for x in (dq, dk, dv))
    return dq, dk, dv


def _by_heads(xp: Any, attend: Callable[..., None], *arrays: Any) -> None:
    """attend(arrays) of (B, H, ...); on the CPU our threads share the heads, and each product of
    blocks keeps to its thread."""

    def some(lo: int, hi: int) -> None:
        attend(*(x[:, lo:hi] for x in arrays))

    heads, found = arrays[0].shape[1], blas._openblas() if xp is np else None
    if found is None:
        some(0, heads)
        return
    set_threads, before = found
    set_threads(1)
    try:
        threads.share(some, heads, 50.0 * arrays[0].size)
    finally:
        set_threads(before)


def _scores(
    xp: Any, q: Any, k: Any, rows: Some, cols: Some, seen: Any, real: Any, scale: float
) -> Any:
    """scale q k^T of a block, -inf where a key is not seen."""
    x = _wide(xp, q[..., rows, :])
    s = (x * x.dtype.type(scale)) @ _wide(xp, k[..., cols, :]).swapaxes(-1, -2)
    if seen is not None:
        xp.copyto(s, -xp.inf, where=xp.asarray(~seen))
    if real is not None:
        xp.copyto(s, -xp.inf, where=~real[:, None, None, cols])
    return s


def _wide(xp: Any, x: Any) -> Any:
    """16-bit floats as float32, where softmax has room."""
    return x.astype(xp.float32) if x.dtype.itemsize == 2 else x


def array_of(x: Any) -> Any:
    """The array beneath a Tensor, or beneath what traces one."""
    while isinstance(x, Tracer):
        x = x.value
    return x.array if isinstance(x, Tensor) else x


def _formula(q: Any, k: Any, v: Any, pattern: Pattern, real: Any, scale: float) -> Any:
    xp = xp_of(array_of(q))
    hidden = ~xp.asarray(pattern.mask(q.shape[-2], k.shape[-2]))
    if real is not None:
        hidden = hidden | ~real[:, None, None, :]
    return _matmul(weights(q, k, scale, hidden), v)


_flash: Any = fused("flash_attention", _forward, _formula, outputs=("out", "lse"), joint=_backward)


def flash_attention(
    query: Any, key: Any, value: Any, pattern: Pattern | None = None, mask: Any = None,
    scale: float | None = None,
) -> Any:  # fmt: skip
    """softmax(scale q k^T) v over what the pattern sees: all tokens before, unless it says else.

    query (B, H, T, D), key (B, h, S, D), value (B, h, S, E) -> (B, H, T, E), where h divides H.
    mask: bool (B, S), True for tokens that are no padding.  A query that sees nothing gets zeros.
    scale: 1 / sqrt(D).  Memory beyond the result: T numbers a head, and one block of scores.
    """
    T, S = query.shape[-2], key.shape[-2]
    if not query.ndim == key.ndim == value.ndim == 4 or key.shape[:3] != value.shape[:3]:
        raise RuntimeError(
            f"flash_attention: query, key and value must be (B, H, T, D), (B, h, S, D) and "
            f"(B, h, S, E), they are {query.shape}, {key.shape} and {value.shape}"
        )
    if S < T:
        raise RuntimeError(
            f"flash_attention: {T} queries are the last of {S} tokens, which are too few"
        )
    if key.shape[1] != query.shape[1]:
        key, value = (group_heads(x, query.shape[1]) for x in (key, value))
    real = None if mask is None else mask.array if isinstance(mask, Tensor) else mask
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    return _flash(query, key, value, pattern or Pattern(), real, scale)
