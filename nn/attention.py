"""Causal self-attention from parts: how many key heads, which positions, who sees whom.

It is called as the attention of GPT-2 is, with a cache, masks, positions and maps."""

from __future__ import annotations

import math
from typing import Any

from tensorgrad.backend import xp_of
from tensorgrad.creation import eye
from tensorgrad.nn import functional as F
from tensorgrad.nn.cache import LayerCache
from tensorgrad.nn.flash import Pattern, array_of, flash_attention
from tensorgrad.nn.layers import Dropout, Linear
from tensorgrad.nn.module import Module
from tensorgrad.nn.positions import Positions
from tensorgrad.ops.choices import where
from tensorgrad.tensor import Tensor


class GroupedQueryAttention(Module):
    """softmax(q kT / sqrt(D)) v in each of n_head query heads; n_kv_head heads of keys serve them.

    With n_kv_head = n_head, the default, this is multi-head attention (Vaswani et al. 2017), with 1
    multi-query attention (Shazeer 2019), between them grouped-query attention (Ainslie et al.
    2023): query head i reads key head i // (n_head / n_kv_head), and the cache shrinks as much.

    positions: what turns queries and keys or prices distance (`RoPE`, `ALiBi`).
    pattern: who sees whom (`Local`, `Longformer`, ...), computed by blocks (unless distances are
    priced, or maps are asked for); None: all before.
    dropout: of the weights, and of what is answered.
    """

    def __init__(
        self, n_embd: int, n_head: int, n_kv_head: int | None = None, bias: bool = True,
        dropout: float = 0.0, positions: Positions | None = None, pattern: Pattern | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        n_kv_head = n_head if n_kv_head is None else n_kv_head
        if n_head < 1 or n_embd % n_head:
            raise ValueError(
                f"GroupedQueryAttention: n_embd {n_embd} does not divide into {n_head} heads"
            )
        if n_kv_head < 1 or n_head % n_kv_head:
            raise ValueError(
                f"GroupedQueryAttention: {n_head} query heads do not divide into groups for "
                f"{n_kv_head} key heads; n_kv_head must divide n_head"
            )
        if pattern is not None and dropout:
            raise ValueError(
                "GroupedQueryAttention: attention by blocks never has all weights of a row, so "
                "none can be dropped; give dropout=0 with a pattern"
            )
        self.n_head, self.n_kv_head, self.head_size = n_head, n_kv_head, n_embd // n_head
        self.p, self.pattern = dropout, pattern
        self.c_attn = Linear(n_embd, n_embd + 2 * n_kv_head * self.head_size, bias=bias)
        self.c_proj = Linear(n_embd, n_embd, bias=bias)
        self.resid_dropout = Dropout(dropout)
        self.positions = positions

    def forward(
        self, x: Tensor, mask: Tensor | None = None, cache: LayerCache | None = None,
        positions: Tensor | None = None, maps: list[Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """x (B, T, C) -> (B, T, C); S is the number of tokens in the cache, and T.

        mask: bool, (B, S) True for tokens that are no padding, or (B or 1, 1, T, S) True where a
        key may be seen.  positions: (T) or (B, T); they follow those in the cache by default.
        maps receives the weights (B, H, T, S).
        """
        B, T, C = x.shape
        D = self.head_size
        q, k, v = (
            a.reshape(B, T, -1, D).transpose(1, 2)  # (B, H, T, D), then (B, h, T, D) twice
            for a in self.c_attn(x).split((C, self.n_kv_head * D, self.n_kv_head * D), dim=-1)
        )
        past = 0 if cache is None else cache.length
        if self.positions is not None:
            at = past if positions is None else positions
            q, k = self.positions.turn(q, at), self.positions.turn(k, at)
        if past and cache is not None:
            k, v = cache.append(k, v)  # (B, h, S, D)
        elif cache is not None:
            cache.append(k.detach(), v.detach())  # the first tokens keep their gradients
        y = self.attend(q, k, v, mask, maps)
        y = y.transpose(1, 2).reshape(B, T, C)  # (B, H, T, D) -> (B, T, C)
        x = self.resid_dropout(self.c_proj(y))
        return x

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, maps: list[Tensor] | None
    ) -> Tensor:
        """q (B, H, T, D), k and v (B, h, S, D) -> (B, H, T, D)"""
        T, S = q.shape[2], k.shape[2]
        bias = None if self.positions is None else self.positions.bias(T, S, q)
        if self.pattern is not None and bias is None and maps is None:
            real = mask if mask is None or mask.ndim == 2 else mask[:, 0, -1]  # the last sees all
            y: Tensor = flash_attention(q, k, v, self.pattern, real)
            return y
        see = self.seen(T, S, mask, q) if bias is None else self.priced(bias, T, S, mask, q)
        how: Any = {"attn_mask": see, "is_causal": see is None and T > 1, "enable_gqa": True}
        if maps is not None:
            unit = eye(S, dtype=k.dtype, device=k.device).expand(*k.shape[:2], S, S)
            maps.append(F.scaled_dot_product_attention(q, k, unit, **how))  # p I = p
        p = self.p if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, **how)
        return y

    def seen(self, T: int, S: int, mask: Tensor | None, like: Tensor) -> Tensor | None:
        """Which keys each query may see, (B or 1, 1, T, S); None: causal order says it all."""
        if self.pattern is None and mask is None and T in (1, S):
            return None
        xp = xp_of(array_of(like))
        visible: Tensor = Tensor(xp.asarray((self.pattern or Pattern()).mask(T, S)))[None, None]
        if mask is not None:
            visible = visible & (mask[:, None, None] if mask.ndim == 2 else mask)
        return visible

    def priced(self, bias: Tensor, T: int, S: int, mask: Tensor | None, like: Tensor) -> Tensor:
        """The bias (H, T, S), -inf where a key may not be seen: (B or 1, H, T, S)."""
        see = self.seen(T, S, mask, like)
        if see is None:
            see = Tensor(xp_of(array_of(like)).asarray(Pattern().mask(T, S)))
        return where(see, bias, -math.inf)  # type: ignore[no-any-return]
