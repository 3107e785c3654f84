"""What the models of names share: a loss, and words drawn a character at a time.

A word is its characters between boundaries; id 0 is the boundary, and fills the context before it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import Tensor, nn
from tensorgrad.models.modes import evaluating

LONGEST = 100
"""Characters after which a word that does not end is cut."""


class WordModel(nn.Module):
    """p(next character | the block_size before it); a subclass has `config` and `logits(x)`."""

    config: Any

    def logits(self, x: Tensor) -> Any:
        """ids (B, T) -> (B, V), the logarithms of p but for a constant."""
        raise TypeError(f"{type(self).__name__} has no logits(x)")

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """x (B, T) -> logits (B, V) and None, or with y (B) the mean of -ln p(y | x) in nats."""
        logits = self.logits(x)
        return logits, None if y is None else F.cross_entropy(logits, y)


@tg.no_grad()
def draw_words(
    model: Any,
    count: int,
    generator: Any = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    start: Any = (),
    longest: int | None = None,
) -> list[list[int]]:
    """The ids of `count` words, each begun with the ids `start` and drawn until the boundary.

    One after another, as the lectures draw them: a generator of the same seed gives the same words.
    A word that has not ended after `longest` characters more (100) is cut.  ValueError for settings
    out of range.
    """
    if not temperature >= 0:
        raise ValueError(f"draw_words: temperature must be at least 0, it is {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"draw_words: top_k must be at least 1, it is {top_k}")
    T, longest = model.config.block_size, LONGEST if longest is None else longest
    if longest < 0:
        raise ValueError(f"draw_words: longest must be at least 0, it is {longest}")
    device = next(iter((*model.parameters(), *model.buffers()))).device
    words = []
    with evaluating(model):
        for _ in range(count):
            row = [0] * T + [int(i) for i in start]
            for _ in range(longest):
                logits = model(tg.tensor([row[-T:]], device=device))[0]  # (1, V)
                row.append(choose(logits, temperature, top_k, generator))
                if not row[-1]:
                    row.pop()
                    break
            words.append(row[T:])
    return words


def choose(logits: Tensor, temperature: float, top_k: int | None, generator: Any) -> int:
    """One index of logits (1, V), drawn with softmax(logits / temperature) from the top_k first."""
    if temperature == 0:
        return int(logits.argmax(-1).item())
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -np.inf)
    p = F.softmax(logits, -1)
    return int(tg.multinomial(p, 1, replacement=True, generator=generator).item())
