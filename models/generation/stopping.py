"""When a row of text has ended: at eos, at a stop string, at its length or at the window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorgrad import Tensor

Decode = Callable[[list[int]], str]


class Stopping:
    """Which rows go on.  `reasons[i]` says why row i ended: "eos", "stop", "length" or "window"."""

    def __init__(
        self, rows: int, ends: Sequence[int], strings: str | Sequence[str] = (),
        tokenizer: Any = None,
    ) -> None:  # fmt: skip
        self.ends = frozenset(ends)
        self.strings = [strings] if isinstance(strings, str) else list(strings)
        if "" in self.strings:
            raise ValueError("generate: a stop string must have at least one character")
        if self.strings and tokenizer is None:
            raise ValueError(
                "generate: stop_strings need a tokenizer, whose decode(ids) gives the text"
            )
        self.decode: Decode = getattr(tokenizer, "decode", tokenizer)
        # A token stands for at least one byte, so a string that has just ended began within these.
        self.reach = max((len(s.encode()) for s in self.strings), default=0)
        self.reasons: list[str | None] = [None] * rows
        self.texts: list[list[int]] = [[] for _ in range(rows)]

    @property
    def open(self) -> bool:
        return None in self.reasons

    def going(self) -> list[bool]:
        return [reason is None for reason in self.reasons]

    def see(self, tokens: Tensor) -> None:
        """Note the next token of each row, (R,); rows that have ended ignore theirs."""
        for i, token in enumerate(np.asarray(tokens.cpu()).tolist()):
            if self.reasons[i] is None:
                self.texts[i].append(token)
                self.reasons[i] = self.reason(self.texts[i])

    def reason(self, text: list[int]) -> str | None:
        """Why a row with these new tokens ends, if it does."""
        if text[-1] in self.ends:
            return "eos"
        if self.strings:
            tail = self.decode(text[-self.reach :])
            if any(s in tail for s in self.strings):
                return "stop"
        return None

    def close(self, reason: str) -> None:
        """End the rows that are still open."""
        self.reasons = [old or reason for old in self.reasons]

    def answer(self) -> list[str]:
        """Why each row ended; rows of nothing new ended at their length."""
        return [reason or "length" for reason in self.reasons]
