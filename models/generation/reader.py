"""A language model that reads tokens: its cache, its window and the padding, in one place.

Prompts are read once and then a token a time; past the window the text is cropped and read anew."""

from __future__ import annotations

import inspect
from typing import Any

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.nn import KVCache


class Reader:
    """`read(tokens)` gives the logits of what follows, given all that was read before.

    The model's forward gives (logits, loss), or an object with .logits, and may know a cache (as
    `cache` or `past_key_values`), `attention_mask` and `position_ids`: what it knows is used.
    mask (B, T): 0 where the prompt is padded, on its left.
    """

    def __init__(
        self, model: Any, rows: int, mask: Tensor | None = None, length: int | None = None,
        use_cache: bool = True,
    ) -> None:  # fmt: skip
        self.model = model
        self.known = inspect.signature(model.forward).parameters
        self.window = window(model)
        self.vocab_size = model.config.vocab_size
        self.real = None if mask is None else mask.bool()  # (B, T), of what was read
        if mask is not None and "attention_mask" not in self.known:
            raise ValueError(
                f"generate: {type(model).__name__} does not know an attention_mask, so its rows "
                "cannot be padded; generate them one by one"
            )
        self.ids = tg.zeros(rows, 0, dtype=tg.int64)
        self.cache_name = next((n for n in ("past_key_values", "cache") if n in self.known), None)
        self.cache: KVCache | None = None
        if use_cache and self.cache_name is not None:
            room = min(n for n in (length, self.window, 2**31) if n is not None)
            self.cache = new_cache(model, rows, room)

    def beyond(self, length: int) -> bool:
        """Whether so many tokens are more than the model sees at once."""
        return self.window is not None and length > self.window

    def read(self, tokens: Tensor, keep: int = 1) -> Any:
        """tokens (B, T) -> the logits after each of the last `keep` of them, (B, keep, V).

        Where the text outgrows the window, its last tokens are read anew, without a cache.
        """
        self.ids = tokens if self.ids.shape[1] == 0 else tg.cat([self.ids, tokens], dim=1)
        B, length = self.ids.shape
        if self.real is not None and self.real.shape[1] < length:
            more = tg.ones(B, length - self.real.shape[1], dtype=tg.bool, device=self.ids.device)
            self.real = tg.cat([self.real, more], dim=1)
        if self.beyond(length):
            self.cache = None  # its keys stand at positions that the cropped text no longer has
        first = 0 if self.cache is None else self.cache.length
        begin = max(first, length - (self.window or length))
        logits = self.logits(self.ids[:, begin:], begin, keep)[:, -keep:, : self.vocab_size]
        logits = logits.detach()
        return logits if logits.dtype.itemsize > 2 else logits.float()  # softmax needs the room

    def logits(self, ids: Tensor, begin: int, keep: int) -> Tensor:
        """What the model makes of ids, which are those from `begin` on."""
        given: dict[str, Any] = {}
        if self.real is not None:
            seen = self.real if self.cache is not None else self.real[:, begin:]
            given["attention_mask"] = seen.long()
            if "position_ids" in self.known:
                places = (seen.long().cumsum(1) - 1).clamp(min=0)
                given["position_ids"] = places[:, -ids.shape[1] :]
        if self.cache is not None and self.cache_name is not None:
            given[self.cache_name] = self.cache
        if "use_cache" in self.known:
            given["use_cache"] = self.cache is not None
        if "logits_to_keep" in self.known:
            given["logits_to_keep"] = keep
        out = self.model(ids, **given)
        logits: Tensor = out[0] if isinstance(out, tuple) else out.logits
        return logits

    def reorder(self, rows: Any) -> None:
        """Row i becomes what row rows[i] was; there may be more rows than before."""
        self.ids = self.ids[rows]
        if self.real is not None:
            self.real = self.real[rows]
        if self.cache is not None:
            self.cache.reorder(rows)

    def crop(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        self.ids = self.ids[:, :length]
        if self.real is not None:
            self.real = self.real[:, :length]
        if self.cache is not None:
            self.cache.crop(min(length, self.cache.length))


def window(model: Any) -> int | None:
    """How many tokens the model sees at once; None if any number."""
    for name in ("n_positions", "block_size", "context_size", "context_length"):
        size = getattr(model.config, name, None)
        if size is not None:
            return int(size)
    return None


def new_cache(model: Any, rows: int, capacity: int) -> KVCache:
    """An empty cache of the model's sizes: its own `new_cache`, or what its config says."""
    maker: Any = model if hasattr(model, "new_cache") else getattr(model, "transformer", None)
    if hasattr(maker, "new_cache"):
        own: KVCache = maker.new_cache(rows, capacity)
        return own
    config, weight = model.config, next(model.parameters())
    heads = getattr(config, "n_kv_head", None) or config.n_head
    return KVCache(
        config.n_layer, rows, heads, capacity, config.n_embd // config.n_head, weight.dtype,
        weight.device,
    )  # fmt: skip
