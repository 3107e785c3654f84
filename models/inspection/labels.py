"""Tokens as labels: what cannot be seen in them is made visible."""

from __future__ import annotations

import unicodedata
from typing import Any

VISIBLE = {" ": "\u00b7", "\n": "\u21b5", "\t": "\u21e5"}
"""As a dot in the middle and two arrows."""


def label(vocab: Any, token: int) -> str:
    """The text of one token, visible; its number, #50300, where the vocabulary has no such token.

    Bytes that are only a part of a character are shown as \\xe2.
    """
    by_bytes = getattr(getattr(vocab, "encoding", vocab), "decode_single_token_bytes", None)
    try:
        if by_bytes is None:
            text: str = vocab.decode([token])
        else:
            text = by_bytes(token).decode("utf-8", "backslashreplace")
    except (IndexError, KeyError):
        return f"#{token}"
    return visible(text)


def visible(text: str) -> str:
    """A text that shows its blanks, its line ends and whatever else leaves no ink."""
    marks = "".join(VISIBLE.get(c) or (c if c.isprintable() else escaped(c)) for c in text)
    accent = marks and unicodedata.category(marks[0])[0] == "M"  # which needs something below it
    return f"\u25cc{marks}" if accent else marks or "\u2205"


def escaped(character: str) -> str:
    """As Python would write it: \\x00, \\u200b."""
    return ascii(character)[1:-1]
