"""The keys and values of the tokens so far, kept so that each new token costs one token's work.

All the memory is taken at once; what a layer sees of it are views.  No gradient passes through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tensorgrad import Tensor
from tensorgrad.backend import xp_for, xp_of
from tensorgrad.dtypes import float32


class LayerCache:
    """The keys and values of one layer, (B, H, capacity, D) each, of which `length` are filled."""

    __slots__ = ("keys", "length", "values")

    def __init__(self, keys: Any, values: Any) -> None:
        self.keys, self.values, self.length = keys, values, 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """k, v (B, H, T, D) of new tokens -> those of all tokens, (B, H, length + T, D), as views.

        RuntimeError where the keys or values carry gradients; ValueError where their shape or dtype
        is not the cache's, or the capacity is exceeded.
        """
        B, H, capacity, D = self.keys.shape
        T = k.shape[2] if k.ndim == 4 else -1
        if not k.shape == v.shape == (B, H, T, D):
            raise ValueError(
                f"KVCache: keys {tuple(k.shape)} and values {tuple(v.shape)} do not fit a cache "
                f"for (B, H, T, D) = ({B}, {H}, T, {D})"
            )
        if k.node is not None or v.node is not None:
            raise RuntimeError(
                "KVCache: keys and values carry gradients, which a cache does not keep; run the "
                "model under tensorgrad.no_grad(), or without a cache to train it"
            )
        if not k.dtype == v.dtype == self.keys.dtype:
            raise ValueError(
                f"KVCache: keys {k.dtype} and values {v.dtype} do not fit a cache of "
                f"{self.keys.dtype}; make it with dtype={k.dtype}"
            )
        past, n = self.length, self.length + T
        if n > capacity:
            raise ValueError(
                f"KVCache: {past} tokens and {T} more exceed the capacity of {capacity}; make the "
                "cache larger, or crop() it"
            )
        self.keys[:, :, past:n] = k.array
        self.values[:, :, past:n] = v.array
        self.length = n
        return Tensor(self.keys[:, :, :n]), Tensor(self.values[:, :, :n])


class KVCache:
    """`cache[i].append(k, v)` in layer i gives the keys and values of all tokens so far.

    Sizes are those of the keys: with grouped queries, n_head is the number of key heads.  Rows all
    have the same length; where some are padded, the model's attention_mask hides the padding.
    """

    def __init__(
        self, n_layer: int, batch_size: int, n_head: int, capacity: int, head_size: int,
        dtype: Any = float32, device: Any = None,
    ) -> None:  # fmt: skip
        sizes = (n_layer, batch_size, n_head, capacity, head_size)
        if min(sizes) < 0:
            raise ValueError(
                "KVCache: n_layer, batch_size, n_head, capacity and head_size must be at least 0, "
                f"they are {sizes}"
            )
        xp, shape = xp_for(device), (batch_size, n_head, capacity, head_size)
        self.capacity = capacity
        self.layers = [
            LayerCache(xp.empty(shape, dtype), xp.empty(shape, dtype)) for _ in range(n_layer)
        ]

    @property
    def length(self) -> int:
        """The tokens that every layer has seen."""
        return self.layers[-1].length if self.layers else 0

    @property
    def batch_size(self) -> int:
        return len(self.layers[0].keys) if self.layers else 0

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, layer: int) -> LayerCache:
        return self.layers[layer]

    def __iter__(self) -> Iterator[LayerCache]:
        return iter(self.layers)

    def __repr__(self) -> str:
        return (
            f"KVCache({len(self)} layers, {self.batch_size} rows, "
            f"{self.length} of {self.capacity} tokens)"
        )

    def reorder(self, rows: Any) -> None:
        """Row i becomes what row rows[i] was: beams that live on, or one prompt for many answers.

        As many rows as `rows` names, which may repeat, leave out, or add to their number.
        """
        rows = rows.array if isinstance(rows, Tensor) else np.asarray(rows)
        for layer in self.layers:
            rows = xp_of(layer.keys).asarray(rows)
            layer.keys = _taken(layer.keys, rows, layer.length)
            layer.values = _taken(layer.values, rows, layer.length)

    def crop(self, length: int) -> None:
        """Forget all but the first `length` tokens: the rest of a rejected draft.

        ValueError for a length that the cache does not have.
        """
        if not 0 <= length <= self.length:
            raise ValueError(
                f"KVCache: crop({length}) of a cache of {self.length} tokens: the length must lie "
                f"between 0 and {self.length}"
            )
        for layer in self.layers:
            layer.length = length


def _taken(x: Any, rows: Any, length: int) -> Any:
    """x[rows], of which only `length` tokens are copied, in place where the size allows."""
    chosen = x[rows, :, :length]
    if len(chosen) != len(x):
        x = xp_of(x).empty((len(chosen), *x.shape[1:]), x.dtype)
    x[:, :, :length] = chosen
    return x
