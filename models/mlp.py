"""The last three characters, embedded side by side, through one hidden layer: a neural 4-gram.

Bengio et al. 2003, in the size of makemore's second and third lecture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tensorgrad import Tensor, nn
from tensorgrad.models.settings import Settings, setting
from tensorgrad.models.words import WordModel


@dataclass(frozen=True)
class MLPConfig(Settings):
    """The sizes of an MLP.  The vocabulary is the words'."""

    vocab_size: int
    block_size: int = setting(3, "characters that the model sees at once", least=1)
    n_embd: int = setting(10, "numbers that stand for a character", least=1)
    n_hidden: int = setting(200, "hidden units", least=1)


class MLP(WordModel):
    """logits = head(tanh(fc(the embeddings of x, end to end))); 11,897 parameters for 27 symbols.

    First weights: fc keeps the variance of what passes through tanh (Kaiming, gain 5/3), and the
    head is small, so that no character is favoured and the loss begins near ln V.
    """

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        V, T, C, H = config.vocab_size, config.block_size, config.n_embd, config.n_hidden
        self.config = config
        self.wte = nn.Embedding(V, C)
        self.fc = nn.Linear(T * C, H)
        self.act = nn.Tanh()
        self.head = nn.Linear(H, V)
        first_weights(self.fc, self.head)

    def logits(self, x: Tensor) -> Any:
        x = self.wte(x).flatten(1)  # (B, T) -> (B, T, C) -> (B, T C)
        x = self.act(self.fc(x))  # (B, H)
        return self.head(x)  # (B, V)


class MLPBatchNorm(WordModel):
    """The MLP with its hidden layer normalised over the batch; 12,097 parameters for 27 symbols.

    fc needs no bias: the normalisation would subtract it.  The running statistics move slowly, as a
    batch of 32 says little.  Ioffe and Szegedy 2015.
    """

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        V, T, C, H = config.vocab_size, config.block_size, config.n_embd, config.n_hidden
        self.config = config
        self.wte = nn.Embedding(V, C)
        self.fc = nn.Linear(T * C, H, bias=False)
        self.bn = nn.BatchNorm1d(H, momentum=0.001)
        self.act = nn.Tanh()
        self.head = nn.Linear(H, V)
        first_weights(self.fc, self.head)

    def logits(self, x: Tensor) -> Any:
        x = self.wte(x).flatten(1)  # (B, T) -> (B, T, C) -> (B, T C)
        x = self.act(self.bn(self.fc(x)))  # (B, H)
        return self.head(x)  # (B, V)


def first_weights(fc: Any, head: Any) -> None:
    """fc: N(0, (5/3)^2 / fan_in), so that tanh gets a variance it can use; head: logits near 0."""
    nn.init.kaiming_normal_(fc.weight, nonlinearity="tanh")
    if fc.bias is not None:
        nn.init.normal_(fc.bias, std=0.01)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
