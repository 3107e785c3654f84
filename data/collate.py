"""Items of a data set to one batch: stacked, or padded with masks that know the true lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tensorgrad.convert import as_tensor, tensor
from tensorgrad.dtypes import float64
from tensorgrad.ops.shape import stack
from tensorgrad.tensor import Tensor

IGNORED = -100  # cross_entropy's ignore_index


def default_collate(batch: Sequence[Any]) -> Any:
    """n items to one with a new first axis of n: tensors, arrays and numbers become tensors.

    Dicts and (named) tuples of them are collated field by field, strings stay a list; a Python
    float becomes float64 as in PyTorch.  Raises RuntimeError for sequences of different lengths,
    TypeError for other types.
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return stack(list(batch), 0)
    if isinstance(first, np.ndarray | np.generic):
        if first.dtype.kind in "SUOV":
            raise TypeError(f"default_collate: arrays of {first.dtype} cannot become a tensor")
        return tensor(np.stack([np.asarray(item) for item in batch]))
    if isinstance(first, float):
        return tensor(list(batch), dtype=float64)
    if isinstance(first, int):
        return tensor(list(batch))
    if isinstance(first, str | bytes):
        return batch
    if isinstance(first, Mapping):
        return {key: default_collate([item[key] for item in batch]) for key in first}
    if isinstance(first, Sequence):
        if any(len(item) != len(first) for item in batch):
            raise RuntimeError(
                "default_collate: the items have "
                f"{', '.join(str(len(item)) for item in batch)} elements, where a batch wants "
                "equally many; pad them, as PadCollate does"
            )
        fields = [default_collate(list(field)) for field in zip(*batch)]
        if hasattr(first, "_fields"):  # a named tuple
            return type(first)(*fields)
        return fields
    raise TypeError(
        "default_collate: a batch holds tensors, arrays, numbers, dicts or lists, not "
        f"{type(first).__name__}; give the DataLoader a collate_fn"
    )


def default_convert(item: Any) -> Any:
    """One item as it is, its arrays as tensors: what `batch_size=None` gives."""
    if isinstance(item, np.ndarray | np.generic):
        return as_tensor(np.asarray(item)) if item.dtype.kind not in "SUOV" else item
    if isinstance(item, Mapping):
        return {key: default_convert(value) for key, value in item.items()}
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return type(item)(*map(default_convert, item))
    if isinstance(item, Sequence) and not isinstance(item, str | bytes):
        return [default_convert(value) for value in item]
    return item


class PadCollate:
    """Rows of ids of different lengths to `input_ids`, `attention_mask`, `labels`, each (B, T).

    T is the longest row's length, or the next multiple of `multiple_of`.  The mask is 1 on the
    row's own ids and 0 on padding, which it knows from the lengths, so an id equal to the pad id
    that belongs to the text counts.  labels are the ids (or the row's own `labels`), -100 on
    padding: the loss leaves padding out.  side: "right", or "left" for generation.  Rows are lists,
    arrays, tensors, or dicts with `input_ids` (and `labels`).  Raises ValueError for no rows, and
    for labels of another length than their ids.
    """

    def __init__(
        self,
        pad_token_id: int,
        *,
        ignore_index: int = IGNORED,
        side: str = "right",
        multiple_of: int = 1,
    ) -> None:
        if side not in ("right", "left"):
            raise ValueError(f"PadCollate: side is 'right' or 'left', not {side!r}")
        if not isinstance(pad_token_id, int | np.integer) or pad_token_id < 0:
            raise ValueError(f"PadCollate: pad_token_id is an id, not {pad_token_id!r}")
        self.pad_token_id, self.ignore_index = int(pad_token_id), ignore_index
        self.side, self.multiple_of = side, multiple_of

    def __call__(self, batch: Sequence[Any]) -> dict[str, Tensor]:
        rows = [item if isinstance(item, Mapping) else {"input_ids": item} for item in batch]
        if not rows:
            raise ValueError("PadCollate: an empty batch has no length")
        ids = [as_row(row["input_ids"]) for row in rows]
        labels = [as_row(row.get("labels", i)) for row, i in zip(rows, ids)]
        for i, label in zip(ids, labels):
            if len(i) != len(label):
                raise ValueError(f"PadCollate: {len(i)} ids have {len(label)} labels")
        longest = max(len(row) for row in ids)
        T = -(-longest // self.multiple_of) * self.multiple_of
        return {
            "input_ids": self._padded(ids, T, self.pad_token_id),
            "attention_mask": self._padded([np.ones_like(row) for row in ids], T, 0),
            "labels": self._padded(labels, T, self.ignore_index),
        }

    def _padded(self, rows: list[Any], T: int, filler: int) -> Tensor:
        out = np.full((len(rows), T), filler, np.int64)
        for line, row in zip(out, rows):
            if self.side == "right":
                line[: len(row)] = row
            else:
                line[T - len(row) :] = row
        return tensor(out)


def as_row(ids: Any) -> Any:
    row = np.asarray(ids.numpy() if isinstance(ids, Tensor) else ids)
    if row.ndim != 1 or (row.size and row.dtype.kind not in "iu"):
        raise ValueError(f"PadCollate: a row of ids is wanted, not {row.dtype} of {row.shape}")
    return row.astype(np.int64)
