"""Six layers of tanh, each normalised over the batch, so that depth does not stop the gradient.

Karpathy, "Building makemore, part 3", 2022; Ioffe and Szegedy 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import tensorgrad as tg
from tensorgrad import Tensor, nn
from tensorgrad.models.settings import Settings, setting
from tensorgrad.models.words import WordModel


@dataclass(frozen=True)
class DeepConfig(Settings):
    """The sizes of a deep net.  The vocabulary is the words'."""

    vocab_size: int
    block_size: int = setting(3, "characters that the model sees at once", least=1)
    n_embd: int = setting(10, "numbers that stand for a character", least=1)
    n_hidden: int = setting(100, "units in a layer", least=1)
    n_layer: int = setting(6, "layers, the last one to the vocabulary", least=2)


class Deep(WordModel):
    """Linear, BatchNorm, tanh, five times, and Linear, BatchNorm; 47,024 parameters.

    First weights N(0, 1 / fan_in): the normalisation makes a gain needless.  The last one begins
    at 0.1, which makes the model unsure, and its loss near ln V.
    """

    def __init__(self, config: DeepConfig) -> None:
        super().__init__()
        V, T, C, H = config.vocab_size, config.block_size, config.n_embd, config.n_hidden
        self.config = config
        self.wte = nn.Embedding(V, C)
        sizes = [T * C, *[H] * (config.n_layer - 1), V]
        self.layers = nn.Sequential()
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            if i:
                self.layers.append(nn.Tanh())
            self.layers.append(nn.Linear(fan_in, fan_out, bias=False))
            self.layers.append(nn.BatchNorm1d(fan_out))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        with tg.no_grad():
            self.layers[-1].weight *= 0.1

    def logits(self, x: Tensor) -> Any:
        x = self.wte(x).flatten(1)  # (B, T) -> (B, T, C) -> (B, T C)
        return self.layers(x)  # (B, V)
