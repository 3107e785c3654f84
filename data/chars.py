"""Characters to integers and back, whole texts at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Ids = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


class CharVocab:
    """One id per character: a symbol's id is its place in the sorted alphabet.

    >>> vocab = CharVocab.from_text("hello")
    >>> vocab.symbols, vocab.encode("hole"), vocab.decode([1, 0, 2])
    ('ehlo', array([1, 3, 2, 0]), 'hel')
    """

    def __init__(self, symbols: Iterable[str]) -> None:
        self.symbols = "".join(sorted(set("".join(symbols))))
        if not self.symbols:
            raise ValueError("CharVocab: a vocabulary needs at least one character")
        self._codes = code_points(self.symbols)
        # Ids by code point, with -1 for the unknown and, last, for all beyond the largest.
        self._ids = np.full(int(self._codes[-1]) + 2, -1, np.int64)
        self._ids[self._codes] = np.arange(len(self._codes))

    @classmethod
    def from_text(cls, text: str) -> CharVocab:
        """The characters of a text."""
        return cls(text)

    @property
    def opening(self) -> str:
        """What a new text follows: the end of a line, where there are lines."""
        return "\n" if self.has_lines else self.symbols[0]

    @property
    def has_lines(self) -> bool:
        """Whether the end of a line is among the characters."""
        return "\n" in self.symbols

    def __len__(self) -> int:
        return len(self.symbols)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CharVocab) and self.symbols == other.symbols

    def __hash__(self) -> int:
        return hash(self.symbols)

    def __repr__(self) -> str:
        return f"CharVocab({self.symbols!r})"

    def encode(self, text: str) -> Ids:
        """The ids of the characters, int64 (len(text),); ValueError names the first unknown one."""
        codes = code_points(text)
        ids: Ids = self._ids[np.minimum(codes, len(self._ids) - 1)]
        if len(ids) and ids.min() < 0:
            at = int(np.argmin(ids))
            raise ValueError(
                f"encode: {text[at]!r} (U+{ord(text[at]):04X}) at position {at:,} is not among the "
                f"{len(self)} characters of this vocabulary, {shorten(self.symbols)}; "
                "leave it out, or make the vocabulary from a text that has it"
            )
        return ids

    def decode(self, ids: Any) -> str:
        """The text of a sequence of ids; IndexError names the first id outside 0 .. len - 1."""
        ids = np.asarray(ids)
        if ids.ndim != 1:
            raise ValueError(f"decode: one sequence of ids at a time, not an array of {ids.shape}")
        if not ids.size:
            return ""
        if ids.dtype.kind not in "iu":
            raise TypeError(f"decode: ids are integers, not {ids.dtype}")
        outside = (ids < 0) | (ids >= len(self))
        if outside.any():
            at = int(np.argmax(outside))
            raise IndexError(
                f"decode: id {ids[at]} at position {at:,} is outside this vocabulary of "
                f"{len(self)} characters (0 to {len(self) - 1})"
            )
        codes: bytes = self._codes[ids].tobytes()
        return codes.decode("utf-32-le", "surrogatepass")

    def to_dict(self) -> dict[str, str]:
        """What `from_dict` takes: ready for JSON."""
        return {"kind": "characters", "symbols": self.symbols}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CharVocab:
        """The vocabulary that `to_dict` described; ValueError where the data is something else."""
        symbols = data.get("symbols")
        if data.get("kind") != "characters" or not isinstance(symbols, str):
            raise ValueError(
                'CharVocab.from_dict: wants {"kind": "characters", "symbols": "abc..."}, '
                f"not {shorten(str(dict(data)))}"
            )
        vocab = cls(symbols)
        if vocab.symbols != symbols:
            raise ValueError(
                "CharVocab.from_dict: the symbols are not sorted, each once; their ids are in doubt"
            )
        return vocab


def code_points(text: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint32]]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def shorten(text: str, limit: int = 120) -> str:
    """The text as Python would write it, cut in the middle where it is long."""
    if len(text) > limit:
        text = text[: limit // 2] + " ... " + text[-limit // 2 :]
    return repr(text)
