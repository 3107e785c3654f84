"""Characters joined two by two, then pairs by pairs: a tree over the last eight.

van den Oord et al. 2016, in the size of makemore's fifth lecture.
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
class WaveNetConfig(Settings):
    """The sizes of a WaveNet.  The vocabulary is the words'."""

    vocab_size: int
    block_size: int = setting(8, "characters that the model sees at once: a power of 2", least=2)
    n_embd: int = setting(24, "numbers that stand for a character", least=1)
    n_hidden: int = setting(128, "units in a layer", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block_size & (self.block_size - 1):
            raise ValueError(
                f"block_size must be a power of 2, as positions are joined two by two; "
                f"it is {self.block_size}"
            )


class Join(nn.Module):
    """tanh(norm(fc(two neighbours end to end))), normalised over batch and positions.

    The joining is a view: in memory neighbours lie end to end already.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.pair = nn.FlattenConsecutive(2)
        self.fc = nn.Linear(2 * n_in, n_out, bias=False)
        self.bn = nn.BatchNorm1d(n_out, channels_last=True)
        self.act = nn.Tanh()

    def forward(self, x: Tensor) -> Any:  # (B, T, C) -> (B, T / 2, H)
        return self.act(self.bn(self.fc(self.pair(x))))

    def dilated(self, x: Tensor, apart: int) -> Any:  # (B, T, C) -> (B, T - apart, H)
        """The same for every two positions that are `apart`: a convolution of two taps."""
        earlier, later = self.fc.weight.chunk(2, dim=1)
        x = F.linear(x[:, :-apart], earlier) + F.linear(x[:, apart:], later)
        return self.act(self.bn(x))


class WaveNet(WordModel):
    """A join for each halving of block_size, and a head; 76,579 parameters for 8 of 27 symbols.

    First weights N(0, 1 / fan_in), the head's a tenth of that, so that the loss begins near ln V.
    """

    def __init__(self, config: WaveNetConfig) -> None:
        super().__init__()
        V, C, H = config.vocab_size, config.n_embd, config.n_hidden
        self.config = config
        self.wte = nn.Embedding(V, C)
        depth = config.block_size.bit_length() - 1
        self.joins = nn.Sequential(*(Join(H if i else C, H) for i in range(depth)))
        self.head = nn.Linear(H, V)
        for join in self.joins:
            nn.init.kaiming_normal_(join.fc.weight, nonlinearity="linear")
        first_head(self.head)

    def logits(self, x: Tensor) -> Any:
        x = self.joins(self.wte(x))  # (B, T) -> (B, T, C) -> (B, 1, H)
        return self.head(x.flatten(1))  # (B, V)

    def dilated(self, x: Tensor) -> Any:
        """The logits after every full context of a long row: ids (B, L) -> (B, L - T + 1, V).

        What `logits` says of each window of T = block_size, with no window computed twice: 3 joins
        a position for T = 8, where a window takes 7.  In evaluation mode; in training a window's
        positions would count once, and the batch's statistics be others.  ValueError for L < T.
        """
        T, L = self.config.block_size, x.shape[1]
        if self.training:
            raise RuntimeError("WaveNet.dilated: in training the statistics differ; call eval()")
        if L < T:
            raise ValueError(f"WaveNet.dilated: {L} characters are fewer than block_size {T}")
        h = self.wte(x)  # (B, L, C)
        for i, join in enumerate(self.joins):
            h = join.dilated(h, 2**i)
        return self.head(h)  # (B, L - T + 1, V)


@tg.no_grad()
def first_head(head: Any) -> None:
    """A tenth of N(0, 1 / fan_in), and no bias."""
    nn.init.kaiming_normal_(head.weight, nonlinearity="linear")
    nn.init.zeros_(head.bias)
    head.weight *= 0.1
