"""Text that goes on from a text, in pieces as they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad.models.generation import stream

UNFINISHED = "\N{REPLACEMENT CHARACTER}"


def write(model: Any, vocab: Any, text: str, max_new_tokens: int, **options: Any) -> Iterator[str]:
    """What the model writes after `text`, a piece at a time; options as of `generate`.

    vocab has encode(text) -> ids and decode(ids) -> text, and ends texts at stop_strings.
    """
    where = next(model.parameters()).device
    idx = tg.tensor(np.asarray(vocab.encode(text))[None], dtype=tg.int64, device=where)  # (1, T)
    tokens = stream(model, idx, max_new_tokens, tokenizer=vocab, **options)
    return pieces((token.item() for token in tokens), vocab.decode)


def pieces(tokens: Iterable[int], decode: Callable[[list[int]], str]) -> Iterator[str]:
    """The text of the tokens, as soon as it is certain: a character may take several of them."""
    waiting: list[int] = []
    for token in tokens:
        waiting.append(token)
        text = decode(waiting)
        if not text.endswith(UNFINISHED):
            yield text
            waiting = []
    if waiting:
        yield decode(waiting)
