"""Which character follows which, by counting: the first model of makemore.

Karpathy, "The spelled-out intro to language modeling", 2022; after Markov 1913.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import Tensor
from tensorgrad.models.settings import Settings, setting
from tensorgrad.models.words import WordModel

Ids = np.ndarray[tuple[int, ...], np.dtype[Any]]


@dataclass(frozen=True)
class CountBigramConfig(Settings):
    """The vocabulary, and what is added to every count."""

    vocab_size: int
    smoothing: float = setting(1.0, "added to every count: more is more uniform", least=0)
    block_size: int = 1  # it sees one character, and nothing before it


class CountBigram(WordModel):
    """p(b | a) = (N[a, b] + smoothing) / sum over b of the same.

    N[a, b] is how often b followed a: int64 (V, V), a buffer.  `count` adds to it; nothing else is
    learnt.  What was never seen has, without smoothing, probability 0 and an infinite loss.
    """

    counts: Tensor

    def __init__(self, config: CountBigramConfig) -> None:
        super().__init__()
        self.config = config
        V = config.vocab_size
        self.register_buffer("counts", tg.zeros(V, V, dtype=tg.int64))

    def count(self, x: Any, y: Any) -> None:
        """Count that y[i] followed x[i]: ids (B) or (B, T), whose last column counts, and (B)."""
        x, y = np.asarray(x), np.asarray(y)
        x, V = x.reshape(len(y), -1)[:, -1], self.config.vocab_size
        pairs = np.bincount(x * V + y, minlength=V * V).reshape(V, V)
        self.counts += tg.tensor(pairs, device=self.counts.device)

    def probabilities(self) -> Any:
        """p (V, V) in float64; a row sums to one, or to zero where nothing can be said."""
        N = self.counts.double() + self.config.smoothing
        # keepdim leaves the sums a column, which divides rows.  As a row, (V), they would divide
        # columns, without a complaint.
        return N / N.sum(1, keepdim=True).clamp(min=np.finfo(np.float64).tiny)

    def logits(self, x: Tensor) -> Any:
        """ln p(. | the last character): ids (B, T) -> (B, V), float64; -inf for p = 0."""
        return self.probabilities().log()[x[:, -1]]

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        logits = self.logits(x)  # normalised already
        return logits, None if y is None else F.nll_loss(logits, y)
