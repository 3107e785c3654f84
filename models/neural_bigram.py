"""The counting bigram once more, as one layer that gradient descent finds.

Karpathy, "The spelled-out intro to language modeling", 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import Tensor, nn
from tensorgrad.models.settings import Settings, setting
from tensorgrad.models.words import WordModel


@dataclass(frozen=True)
class NeuralBigramConfig(Settings):
    """The vocabulary, and how strongly weights are drawn towards zero."""

    vocab_size: int
    regularization: float = setting(0.01, "of the weights' mean square, added to the loss", least=0)
    block_size: int = 1  # it sees one character, and nothing before it


class NeuralBigram(WordModel):
    """p(. | a) = softmax(W[a]): W[a] learns the logarithms of the counts, but for a constant.

    one_hot(a) @ W is row a of W, so rows are looked up.  What smoothing is to counts, drawing W
    towards zero is here: in training regularization * mean(W^2) is added to the loss.
    """

    def __init__(self, config: NeuralBigramConfig) -> None:
        super().__init__()
        self.config = config
        self.W = nn.Parameter(tg.randn(config.vocab_size, config.vocab_size))

    def logits(self, x: Tensor) -> Any:  # (B, T) -> (B, V)
        return F.embedding(x[:, -1], self.W)

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        logits, loss = super().forward(x, y)
        if loss is not None and self.training:
            loss = loss + self.config.regularization * (self.W**2).mean()
        return logits, loss
