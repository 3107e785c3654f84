"""A text as pairs of windows, each character's successor beside it: what a loader draws from."""

from __future__ import annotations

from typing import Any

from tensorgrad.data.chars import CharVocab, Ids
from tensorgrad.data.text import Text
from tensorgrad.data.windows import check_window, pair


class CharDataset:
    """dataset[i] = ids[i : i + T], ids[i + 1 : i + 1 + T], for every i: two int64 arrays (T,).

    The windows overlap: of n characters there are n - T, and a pass over all of them reads each
    character T times.  The ids are one array; a window is cut when it is asked for.

    >>> dataset = CharDataset("hello", 3)
    >>> x, y = dataset[1]
    >>> len(dataset), dataset.vocab_size, dataset.decode(x), dataset.decode(y)
    (2, 4, 'ell', 'llo')
    """

    def __init__(self, text: str | Text, block_size: int, vocab: CharVocab | None = None) -> None:
        text = text.text if isinstance(text, Text) else text
        self.vocab = CharVocab.from_text(text) if vocab is None else vocab
        self.block_size, self.ids = block_size, self.vocab.encode(text)
        check_window("CharDataset", self.ids, block_size, 1)

    @property
    def vocab_size(self) -> int:
        return len(self.vocab)

    @property
    def stoi(self) -> dict[str, int]:
        """The id of each character."""
        return {symbol: i for i, symbol in enumerate(self.vocab.symbols)}

    @property
    def itos(self) -> dict[int, str]:
        """The character of each id."""
        return dict(enumerate(self.vocab.symbols))

    def encode(self, text: str) -> Ids:
        """The ids of a text; ValueError names the first unknown character."""
        return self.vocab.encode(text)

    def decode(self, ids: Any) -> str:
        """The text of a sequence of ids."""
        return self.vocab.decode(ids)

    def __len__(self) -> int:
        return len(self.ids) - self.block_size

    def __getitem__(self, i: int) -> tuple[Ids, Ids]:
        """IndexError beyond the last window; negative i count from it."""
        at = i + len(self) if i < 0 else i
        if not 0 <= at < len(self):
            raise IndexError(f"CharDataset: window {i} of {len(self):,} windows")
        x, y = pair(self.ids[None, at : at + self.block_size + 1])
        return x[0], y[0]

    def __repr__(self) -> str:
        return f"CharDataset({len(self):,} windows of {self.block_size}, {self.vocab_size} symbols)"
