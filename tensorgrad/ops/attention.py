"""Scaled dot-product attention.  Vaswani et al. 2017; kernels by blocks, as in Dao et al. 2022."""

from __future__ import annotations

import math
from typing import Any

from tensorgrad.backend import xp_of
from tensorgrad.dtypes import bool_
from tensorgrad.halves import narrowed, widened
from tensorgrad.kinds import fused
from tensorgrad.ops.choices import masked_fill, where
from tensorgrad.ops.compare import zeros_like
from tensorgrad.ops.elementwise import exp
from tensorgrad.ops.products import _matmul
from tensorgrad.ops.reduce import _amax, _sum
from tensorgrad.ops.shape import _reshape, expand, turn
from tensorgrad.tensor import Tensor
from tensorgrad.tracer import Tracer
from tensorgrad.twins import ask


def weights(q: Any, k: Any, scale: float, hidden: Any = None, bias: Any = None) -> Any:
    """softmax(scale q k^T + bias) over keys not hidden, (..., T, S); zeros, not NaN, if all are."""
    scores = _matmul(q * scale, turn(k))
    if bias is not None:
        scores = scores + bias
    if hidden is not None:
        scores = masked_fill(scores, hidden, -math.inf)
    if 0 in scores.shape:
        return scores  # nothing to weigh
    last = (scores.ndim - 1,)
    top = _amax(scores, last, True)
    e = exp(scores - where(top == -math.inf, zeros_like(top), top))
    total = _sum(e, last, True)
    return e / where(total == 0, zeros_like(total) + 1, total)


def _formula(q: Any, k: Any, v: Any, causal: bool, scale: float) -> Any:
    return _matmul(weights(q, k, scale, _future(q, k) if causal else None), v)


def _future(q: Any, k: Any) -> Any:
    """(T, S), True where key j lies after query i."""
    like = q
    while isinstance(like, Tracer):
        like = like.value
    xp = xp_of(like.array if isinstance(like, Tensor) else like)
    return ~xp.tri(q.shape[-2], k.shape[-2], dtype=bool)


def _forward(xp: Any, q: Any, k: Any, v: Any, /, causal: bool, scale: float) -> Any:
    """The output (B, H, T, E) and the log-sum-exp of each row of scores, (B, H, T)."""
    answer = ask("attention_forward", q, q, k, v, causal, scale)
    if answer is not None:
        return answer
    dtype = q.dtype
    q, k, v = map(widened, (q, k, v))
    if q.dtype != dtype and (answer := ask("attention_forward", q, q, k, v, causal, scale)):
        return narrowed(answer[0], dtype), answer[1]
    scores = (q * q.dtype.type(scale)) @ k.swapaxes(-1, -2)
    if causal:
        scores[..., _future(q, k)] = -xp.inf
    top = scores.max(-1, keepdims=True)
    scores -= top
    xp.exp(scores, scores)
    total = scores.sum(-1, keepdims=True)
    scores /= total
    return narrowed(scores @ v, dtype), (xp.log(total) + top)[..., 0]


def _backward(
    g: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, causal: bool, scale: float
) -> Any:
    """dv = p^T g;  ds = p (g v^T - sum(g out));  dq = scale ds k;  dk = scale ds^T q."""
    answer = ask("attention_backward", q, g, q, k, v, out, lse, causal, scale)
    if answer is not None:
        return answer
    xp, dtype = xp_of(q), q.dtype
    g, q, k, v, out = map(widened, (g, q, k, v, out))
    if q.dtype != dtype:
        answer = ask("attention_backward", q, g, q, k, v, out, lse, causal, scale)
        if answer is not None:
            return tuple(narrowed(part, dtype) for part in answer)
    scale = q.dtype.type(scale)
    p = xp.exp((q * scale) @ k.swapaxes(-1, -2) - lse[..., None])
    if causal:
        p[..., _future(q, k)] = 0
    dv = p.swapaxes(-1, -2) @ g
    p *= g @ v.swapaxes(-1, -2) - (g * out).sum(-1, keepdims=True)
    p *= scale
    parts = p @ k, p.swapaxes(-1, -2) @ q, dv
    return tuple(narrowed(part, dtype) for part in parts)


_attention = fused(
    "attention", _forward, _formula, outputs=("out", "lse"),
    joint=_backward,
)  # fmt: skip


def attention(
    q: Any, k: Any, v: Any, hidden: Any, bias: Any, dropout: Any, causal: bool, scale: float
) -> Any:
    """softmax(scale q k^T + bias) v: fused if nothing is masked but the future, else the formula.

    hidden: None, or True where a key may not be seen.  dropout: None, or a function of the weights.
    """
    if (
        hidden is None
        and bias is None
        and dropout is None
        and q.ndim == 4
        and k.shape[:2] == q.shape[:2] == v.shape[:2]
        and 0 not in (q.numel(), k.numel(), v.numel())
    ):
        return _attention(q, k, v, causal, scale)
    if causal:
        future = _future(q, k)
        hidden = Tensor(future) if hidden is None else hidden | Tensor(future)
    p = weights(q, k, scale, hidden, bias)
    return _matmul(p if dropout is None else dropout(p), v)


def group_heads(x: Any, heads: int, dim: int = -3) -> Any:
    """Each key-value head repeated for its query heads: (..., h, S, D) -> (..., heads, S, D)."""
    have = x.shape[dim]
    if have == 0 or heads % have:
        raise RuntimeError(
            f"scaled_dot_product_attention: {heads} query heads are no multiple of {have} key heads"
        )
    lead, rest = x.shape[:dim], x.shape[dim + 1 :]
    wide = expand(_reshape(x, (*lead, have, 1, *rest)), (*lead, have, heads // have, *rest))
    return _reshape(wide, (*lead, heads, *rest))


def is_bool(mask: Any) -> bool:
    return mask.dtype == bool_  # type: ignore[no-any-return]
