"""Several documents in one window, as if each were alone: its own positions, attention and loss."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tensorgrad.convert import tensor
from tensorgrad.data.collate import IGNORED, as_row
from tensorgrad.data.datasets import Dataset
from tensorgrad.tensor import Tensor

Ids = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


def document_ids(ids: Any, eot: int) -> Ids:
    """d[..., t] = how many `eot` stand at 0 .. t: the number of the document of each token.

    For windows of a TokenLoader, where `<|endoftext|>` begins each document; what comes before the
    first is document 0.  (..., T) -> (..., T), int64.
    """
    return np.cumsum(np.asarray(ids) == eot, axis=-1, dtype=np.int64)


def position_ids(documents: Any) -> Ids:
    """p[..., t] = t - the first place of t's document in the window.  (..., T) int64."""
    documents = np.asarray(documents)
    places = np.arange(documents.shape[-1])
    begins = np.ones(documents.shape, bool)
    begins[..., 1:] = documents[..., 1:] != documents[..., :-1]
    first = np.maximum.accumulate(np.where(begins, places, 0), axis=-1)
    return np.asarray(places - first, np.int64)


def block_diagonal_mask(documents: Any) -> Tensor:
    """m[b, 0, i, j] = (document of i is that of j) and j <= i: who may look at whom.

    (B, T) -> bool (B, 1, T, T), for `scaled_dot_product_attention(..., attn_mask=m)`; every row
    has its diagonal, so no softmax is empty.
    """
    d = np.asarray(documents.numpy() if isinstance(documents, Tensor) else documents)
    same = d[:, None, :, None] == d[:, None, None, :]  # (B, 1, T, T)
    return tensor(same & np.tri(d.shape[-1], dtype=bool))


class PackedDataset(Dataset[dict[str, Tensor]]):
    """Documents, end to end in windows of T = block_size, with nothing leaking between them.

    A document d of n ids gives the n - 1 pairs (d[i], d[i+1]), so no target belongs to another
    document, and every pair has its place once.  An item is a dict of int64 (T,): `input_ids`,
    `targets`, `position_ids` (from 0 at each document, and at a window's start), `document_ids`
    (for `block_diagonal_mask`).  The last window is filled with `pad_token_id`, targets -100 and
    document -1.  Raises ValueError where the documents hold no pair.
    """

    def __init__(self, documents: Iterable[Any], block_size: int, pad_token_id: int) -> None:
        if block_size < 1:
            raise ValueError(f"PackedDataset: block_size must be at least 1, not {block_size}")
        rows = [as_row(document) for document in documents]
        lengths = [max(len(row) - 1, 0) for row in rows]
        total = sum(lengths)
        if total == 0:
            raise ValueError("PackedDataset: no document has two ids, so there is nothing to learn")
        shape = -(-total // block_size), block_size
        self._x, self._y, self._d = (
            np.full(shape, filler, np.int64) for filler in (pad_token_id, IGNORED, -1)
        )
        self._x.reshape(-1)[:total] = np.concatenate([row[:-1] for row in rows])
        self._y.reshape(-1)[:total] = np.concatenate([row[1:] for row in rows])
        self._d.reshape(-1)[:total] = np.repeat(np.arange(len(rows)), lengths)
        self._p = position_ids(self._d)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {
            "input_ids": tensor(self._x[index]),
            "targets": tensor(self._y[index]),
            "position_ids": tensor(self._p[index]),
            "document_ids": tensor(self._d[index]),
        }

    def __len__(self) -> int:
        return len(self._x)
