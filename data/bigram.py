"""The loss that a model must beat to have learnt more than pairs of characters."""

from __future__ import annotations

from typing import Any

import numpy as np

Ids = np.ndarray[tuple[int, ...], np.dtype[Any]]


def bigram_loss(train: Ids, val: Ids, vocab_size: int) -> float:
    """mean of -ln p(b|a) over the pairs (a, b) of val, p(b|a) = (n(a, b) + 1) / (n(a) + V).

    n counts the pairs of train; V is the vocabulary's size; nats per character, in float64.  Memory
    grows with the text, not with V squared.  Raises ValueError for fewer than two ids on a side
    and for ids outside 0 .. V - 1.
    """
    for name, ids in (("train", train), ("val", val)):
        if ids.ndim != 1 or ids.dtype.kind not in "iu" or len(ids) < 2:
            raise ValueError(
                f"bigram_loss: {name} is a row of at least two integers, not {ids.dtype} "
                f"of {ids.shape}"
            )
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= vocab_size:
            raise ValueError(
                f"bigram_loss: {name} has ids from {low} to {high}, outside a vocabulary of "
                f"{vocab_size}"
            )
    train, val = train.astype(np.int64), val.astype(np.int64)
    pairs, counts = np.unique(pair_ids(train, vocab_size), return_counts=True)
    after = np.bincount(train[:-1], minlength=vocab_size)
    seen = pair_ids(val, vocab_size)
    at = np.minimum(np.searchsorted(pairs, seen), len(pairs) - 1)
    both = np.where(pairs[at] == seen, counts[at], 0)
    return float(np.mean(np.log(after[val[:-1]] + vocab_size) - np.log(both + 1)))


def pair_ids(ids: Ids, vocab_size: int) -> Ids:
    return ids[:-1] * vocab_size + ids[1:]
