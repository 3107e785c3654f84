"""Who sees whom, and where tokens stand: padding and the past of a cache, as boolean masks."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.backend import xp_of


def causal_attention_mask(seq_len: int, device: Any = None, past: int = 0) -> Tensor:
    """True where token past + i (down) may see token j (across): j <= past + i.

    (1, 1, T, past + T): the square of the new tokens lies at the right, behind the past that all
    of them see.
    """
    mask: Tensor = tg.ones(1, 1, seq_len, past + seq_len, dtype=tg.bool, device=device).tril(past)
    return mask


class Seen:
    """What one forward pass over ids (B, T) tells every attention, with `past` tokens in a cache.

    attention_mask (B, past + T): 1 for a token, 0 for padding; or (B or 1, 1, T, past + T), True
    where the token down may see the token across, which then is all that is asked.  ValueError for
    another shape.
    """

    def __init__(
        self, ids: Tensor, past: int = 0, attention_mask: Any = None, positions: Any = None
    ) -> None:
        self.T, self.past, self.device = ids.shape[1], past, ids.device
        whole = getattr(attention_mask, "ndim", 2) == 4
        self.given = pairs(attention_mask, ids.array, past) if whole else None
        self.real = None if whole else as_bool(attention_mask, ids.array, past)
        """(B, past + T), an array, True for tokens; None where all are."""
        self.positions: Tensor = self.counted() if positions is None else positions
        """Of the new tokens: (T,), or (B, T) where padding does not count."""

    def counted(self) -> Tensor:
        if self.real is None:
            return tg.arange(self.past, self.past + self.T, device=self.device)
        xp = xp_of(self.real)
        return Tensor(xp.maximum(self.real.cumsum(1) - 1, 0)[:, self.past :])

    @cached_property
    def mask(self) -> Tensor | None:
        """Which keys each new token may see, (B or 1, 1, T, past + T); None: all before it."""
        if self.given is not None:
            return self.given
        if self.real is None and (self.past == 0 or self.T == 1):
            return None
        mask = causal_attention_mask(self.T, self.device, self.past)
        return mask if self.real is None else mask & Tensor(self.real)[:, None, None, :]


def pairs(given: Any, ids: Any, past: int) -> Tensor:
    """attention_mask (B or 1, 1, T, past + T) as a Tensor of bool beside the ids."""
    xp = xp_of(ids)
    seen = xp.asarray(given.array if isinstance(given, Tensor) else given) != 0
    B, T = ids.shape
    if seen.shape not in ((B, 1, T, past + T), (1, 1, T, past + T)):
        raise ValueError(
            f"GPT2: attention_mask of four dims must be ({B} or 1, 1, {T}, {past + T}), who sees "
            f"whom; its shape is {seen.shape}"
        )
    return Tensor(seen)


def as_bool(given: Any, ids: Any, past: int) -> Any:
    """attention_mask as an array of bool (B, past + T); None where nothing is padding."""
    if given is None:
        return None
    xp = xp_of(ids)
    real = xp.asarray(given.array if isinstance(given, Tensor) else given) != 0
    shape = (ids.shape[0], past + ids.shape[1])
    if real.shape != shape:
        raise ValueError(
            f"GPT2: attention_mask must be {shape}, one column for each of {past} tokens in the "
            f"cache and {ids.shape[1]} new ones; its shape is {real.shape}"
        )
    return None if bool(real.all()) else real
