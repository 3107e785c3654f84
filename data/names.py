"""Words, one a line: their alphabet, the lectures' seeded split, all contexts and what follows.

Those of a file, or those in the names of Unicode 3.2's characters, which every Python brings along.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from tensorgrad.data.chars import CharVocab, Ids, shorten
from tensorgrad.data.text import Text, names_text, read_text

BOUNDARY = "."
"""Stands before and after a word, with id 0."""

WORD = re.compile(r"\b[a-z]{3,12}\b")


def names(path: str | PathLike[str] | None = None) -> Text:
    """The words of a file, one a line; or, without one, words out of Unicode 3.2.

    Those are the 3,854 words of 3 to 12 letters in the names of its characters, sorted: the same
    in every Python.  Raises what `read_text` raises.
    """
    if path is not None:
        return read_text(path)
    words = sorted(set(WORD.findall(names_text().text)))
    return Text("words of the names of Unicode 3.2", "\n".join(words) + "\n")


def words_of(text: Text) -> list[str]:
    """The lines without the blanks around them; empty ones do not count.

    ValueError where there is none, and for a line with the boundary in it.
    """
    words = [word for word in map(str.strip, text.text.splitlines()) if word]
    if not words:
        raise ValueError(f"{text.name!r} has no words; write one a line")
    for word in words:
        if BOUNDARY in word:
            raise ValueError(
                f"{text.name!r}: {shorten(word, 40)} has a {BOUNDARY!r}, which marks where words "
                "begin and end; take it out"
            )
    return words


def split_words(words: Sequence[str], seed: int = 42) -> dict[str, list[str]]:
    """{"train": 80 %, "val": 10 %, "test": 10 %} of the words, shuffled as random.seed(42) does.

    ValueError for fewer than ten words, which have no tenth.
    """
    if len(words) < 10:
        raise ValueError(
            f"split_words: {len(words)} words, one a line, are too few for a tenth to validate on "
            "and a tenth to test on; take at least 10"
        )
    shuffled = list(words)
    random.Random(seed).shuffle(shuffled)
    n1, n2 = int(0.8 * len(words)), int(0.9 * len(words))
    return {"train": shuffled[:n1], "val": shuffled[n1:n2], "test": shuffled[n2:]}


class WordVocab:
    """One id per character, in sorted order from 1; id 0 is the boundary.

    >>> vocab = WordVocab(["hello"])
    >>> vocab.symbols, vocab.encode("hole"), vocab.decode([2, 1, 3])
    ('.ehlo', array([2, 4, 3, 1]), 'hel')
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.letters = CharVocab("".join(words).replace(BOUNDARY, ""))
        self.symbols = BOUNDARY + self.letters.symbols

    def __len__(self) -> int:
        return len(self.symbols)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WordVocab) and self.symbols == other.symbols

    def __hash__(self) -> int:
        return hash(self.symbols)

    def __repr__(self) -> str:
        return f"WordVocab([{self.letters.symbols!r}])"

    def encode(self, word: str) -> Ids:
        """The ids of a word, without boundaries; ValueError names the first unknown character."""
        return self.letters.encode(word) + 1

    def decode(self, ids: Any) -> str:
        """The characters of a sequence of ids; 0 gives the boundary."""
        return "".join(self.symbols[i] for i in np.asarray(ids, np.int64).tolist())

    def to_dict(self) -> dict[str, str]:
        """What `from_dict` takes: ready for JSON."""
        return {"kind": "words", "symbols": self.letters.symbols}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WordVocab:
        """The vocabulary that `to_dict` described; ValueError where the data is something else."""
        symbols = data.get("symbols")
        if data.get("kind") != "words" or not isinstance(symbols, str):
            raise ValueError(
                'WordVocab.from_dict: wants {"kind": "words", "symbols": "abc..."}, '
                f"not {shorten(str(dict(data)))}"
            )
        return cls([symbols])


def contexts(words: Sequence[str], vocab: WordVocab, block_size: int) -> tuple[Ids, Ids]:
    """x (N, T): the T = block_size ids before each character, and y (N): it, or 0 at a word's end.

    A word of n characters gives n + 1 rows; before a word lie boundaries.

    >>> x, y = contexts(["ab"], WordVocab(["ab"]), 3)
    >>> x.tolist(), y.tolist()
    ([[0, 0, 0], [0, 0, 1], [0, 1, 2]], [1, 2, 0])
    """
    if block_size < 1:
        raise ValueError(f"contexts: block_size must be at least 1, it is {block_size}")
    T = block_size
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    starts = np.cumsum(lengths + T) - (lengths + T)  # of T boundaries and the word after them
    row = np.zeros(int((lengths + T).sum()) + T + 1, np.int64)  # all words, and an end
    letters = np.repeat(starts + T - (np.cumsum(lengths) - lengths), lengths)
    row[letters + np.arange(len(letters))] = vocab.encode("".join(words))
    ends = lengths + 1
    first = np.repeat(starts - (np.cumsum(ends) - ends), ends) + np.arange(int(ends.sum()))
    windows = np.lib.stride_tricks.sliding_window_view(row, T)
    return np.ascontiguousarray(windows[first]), row[first + T]
