"""A text made ready for training: ids of its characters, cut in two; random windows of them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from tensorgrad.data import CharVocab, Text, bigram_loss, split
from tensorgrad.models.training.batches import RandomWindows


class Corpus:
    """`ids["train"]` is the first nine tenths of the text, `ids["val"]` the rest."""

    def __init__(self, text: Text, path: Any = None) -> None:
        self.path = path  # of the file that resuming reads again, or None for the default text
        self.text, self.vocab = text, CharVocab.from_text(text.text)
        train, val = split(self.vocab.encode(text.text))
        self.ids = {"train": train, "val": val}

    @cached_property
    def bigram(self) -> float:
        """The validation loss under the pairs counted in training, nats per character."""
        return bigram_loss(self.ids["train"], self.ids["val"], len(self.vocab))

    def windows(self, block_size: int, batch_size: int, seed: int = 1337) -> RandomWindows:
        """Random windows x, and y one character later, both (B, T).

        ValueError where a part of the text is no longer than one block.
        """
        longest = min(len(ids) for ids in self.ids.values()) - 1
        if longest < block_size:
            raise ValueError(
                f"{self.text.name!r} is too short: of {self.text.n_chars:,} characters a tenth, "
                f"{len(self.ids['val']):,}, is for validation, where a block takes "
                f"{block_size + 1:,}; take a longer text"
                + (f", or a block_size of {longest:,} at most" if longest > 0 else "")
            )
        return RandomWindows(self.ids, block_size, batch_size, seed)
