"""Data sets with PyTorch's interface, and seed texts as rows of ids with honest masks."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Generic, TypeVar

import numpy as np

from tensorgrad.convert import tensor
from tensorgrad.data.collate import IGNORED
from tensorgrad.random import generator_for
from tensorgrad.tensor import Tensor

T_co = TypeVar("T_co", covariant=True)


class Dataset(Generic[T_co]):
    """A map from indices to items: a subclass has `__getitem__`, and usually `__len__`.

    One that has `__getitems__` as well is asked for whole batches at once.
    """

    def __getitem__(self, index: Any) -> T_co:
        raise TypeError(f"{type(self).__name__} is a Dataset without __getitem__")

    def __add__(self, other: Dataset[Any]) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T_co]):
    """A stream of items: a subclass has `__iter__`, and no indices."""

    def __iter__(self) -> Iterator[T_co]:
        raise TypeError(f"{type(self).__name__} is an IterableDataset without __iter__")


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Item i is row i of each tensor."""

    def __init__(self, *tensors: Tensor) -> None:
        sizes = [t.shape[0] for t in tensors]
        if any(size != sizes[0] for size in sizes):
            raise ValueError(f"TensorDataset: the first sizes differ: {sizes}")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(t[index] for t in self.tensors)

    def __len__(self) -> int:
        return int(self.tensors[0].shape[0])


class ConcatDataset(Dataset[Any]):
    """The items of several data sets, one after the other."""

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("ConcatDataset: needs at least one data set")
        self.cumulative_sizes = list(accumulate(len(d) for d in self.datasets))

    def __getitem__(self, index: int) -> Any:
        n = len(self)
        if not -n <= index < n:
            raise IndexError(f"ConcatDataset: index {index} is outside {n} items")
        index %= n
        which = bisect_right(self.cumulative_sizes, index)
        before = self.cumulative_sizes[which - 1] if which else 0
        return self.datasets[which][index - before]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]


class Subset(Dataset[Any]):
    """Some items of a data set, by their indices."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)


def random_split(
    dataset: Any, lengths: Sequence[int | float], generator: Any = None
) -> list[Subset]:
    """Parts of these lengths, or fractions that sum to 1, at random; PyTorch's permutation.

    What fractions leave over goes to the first parts, one each.  ValueError where the lengths do
    not sum to the data set's.
    """
    n = len(dataset)
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        if any(not 0 <= fraction <= 1 for fraction in lengths):
            raise ValueError(f"random_split: fractions lie between 0 and 1, not {list(lengths)}")
        sizes = [math.floor(n * fraction) for fraction in lengths]
        for i in range(n - sum(sizes)):
            sizes[i % len(sizes)] += 1
    else:
        sizes = [int(length) for length in lengths]
    if sum(sizes) != n:
        raise ValueError(f"random_split: lengths {sizes} sum to {sum(sizes)}, not to {n}")
    order = generator_for("cpu", generator).randperm(n).tolist()
    return [Subset(dataset, order[end - size : end]) for end, size in zip(accumulate(sizes), sizes)]


class TextDataset(Dataset[dict[str, Tensor]]):
    """Texts as rows of `max_length` ids: `input_ids`, `attention_mask`, `labels`, each (T,) int64.

    A text's ids come from `tokenizer.encode`, cut at max_length.  The mask is 1 on them and 0 on
    padding; labels are the ids, and -100 on padding, where no loss is taken.  Both come from the
    length before padding, so an id that equals the pad id counts where the text has it.

    pad_token_id: what fills the rows; by default the tokenizer's own `pad_token_id`, else its
    `eot` (tiktoken: `eot_token`).  It can be read as `.pad_token_id`.  Raises TypeError for a
    tokenizer that cannot encode, ValueError for a max_length below 1, for an empty text, and where
    a pad id is needed and none is known.
    """

    def __init__(
        self,
        texts: Iterable[str],
        tokenizer: Any,
        max_length: int,
        pad_token_id: int | None = None,
    ) -> None:
        if max_length < 1:
            raise ValueError(f"TextDataset: max_length must be at least 1, not {max_length}")
        encode = getattr(tokenizer, "encode_ordinary", None) or getattr(tokenizer, "encode", None)
        if encode is None:
            raise TypeError(
                f"TextDataset: {tokenizer!r} has no encode; take gpt2(), train_bpe(texts, size) or "
                "CharVocab.from_text(text)"
            )
        self.texts, self.tokenizer, self.max_length = list(texts), tokenizer, max_length
        rows = [np.asarray(encode(text), np.int64)[:max_length] for text in self.texts]
        for text, row in zip(self.texts, rows):
            if not len(row):
                raise ValueError(f"TextDataset: the text {text!r} has no ids to learn from")
        if pad_token_id is None:
            known = (getattr(tokenizer, at, None) for at in ("pad_token_id", "eot", "eot_token"))
            pad_token_id = next((i for i in known if isinstance(i, int)), None)
        if pad_token_id is None and any(len(row) < max_length for row in rows):
            raise ValueError(
                f"TextDataset: texts are shorter than {max_length} ids and the tokenizer names no "
                "pad id; say which id fills the rows with pad_token_id="
            )
        self.pad_token_id = pad_token_id
        self._rows = rows

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = self._rows[index]
        n, T = len(row), self.max_length
        ids, labels = np.full((2, T), IGNORED, np.int64)
        ids[:n] = labels[:n] = row
        if self.pad_token_id is not None:
            ids[n:] = self.pad_token_id
        mask = (np.arange(T) < n).astype(np.int64)
        return {"input_ids": tensor(ids), "attention_mask": tensor(mask), "labels": tensor(labels)}

    def __len__(self) -> int:
        return len(self._rows)
