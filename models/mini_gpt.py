"""A minimal GPT: GPT-2's block and names, small enough to train on one text.

Attention: Vaswani et al. 2017.  Norms first, residual projections scaled: Radford et al. 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import Tensor, nn
from tensorgrad.models.generation import generate
from tensorgrad.models.settings import Settings, divided, setting

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}
"""Under Hugging Face's names; gelu_new is GPT-2's."""


@dataclass(frozen=True)
class GPTConfig(Settings):
    """The sizes of a MiniGPT.  ValueError with the nearest name for one that does not exist."""

    vocab_size: int = 256
    block_size: int = setting(128, "characters that the model sees at once", least=1)
    n_embd: int = setting(256, "width: numbers that stand for a character", least=1)
    n_head: int = setting(8, "attention heads in a block", least=1)
    n_layer: int = setting(6, "blocks", least=1)
    dropout: float = setting(0.1, "share of activations dropped in training", least=0, below=1)
    activation: str = setting("gelu_new", f"between an MLP's layers: {', '.join(ACTIVATIONS)}")
    post_norm: bool = setting(False, "norms after the layers, as in the first Transformer")

    def __new__(cls, *args: Any, **settings: Any) -> Self:
        divided(settings, cls)  # which refuses what is mistyped
        return super().__new__(cls)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vocab_size < 1:
            raise ValueError(f"vocab_size must be at least 1, it is {self.vocab_size}")
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd must be a multiple of n_head: the heads share the width evenly, and "
                f"{self.n_embd} does not divide by {self.n_head}"
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {', '.join(ACTIVATIONS)}, it is {self.activation!r}"
            )


class CausalSelfAttention(nn.Module):
    """softmax(q kT / sqrt(D)) v in each head: each position sees itself and what came before.

    Of four positions, who (down) sees whom (across); nothing of it is stored:

        1 . . .
        1 1 . .
        1 1 1 .
        1 1 1 1
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head, self.p = config.n_head, config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)  # q, k and v at once
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        B, T, C = x.shape
        q, k, v = (
            a.reshape(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, H, T, D)
            for a in self.c_attn(x).split(C, dim=-1)
        )
        p = self.p if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        y = y.transpose(1, 2).reshape(B, T, C)  # (B, H, T, D) -> (B, T, C)
        x = self.drop(self.c_proj(y))
        return x


class MLP(nn.Module):
    """c_proj(gelu(c_fc(x))): each position by itself, four times as wide inside."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)
        self.activation = ACTIVATIONS[config.activation]
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = self.activation(self.c_fc(x))  # (B, T, 4 C)
        x = self.drop(self.c_proj(x))
        return x


class Block(nn.Module):
    """x + attn(ln(x)), then x + mlp(ln(x)): what enters at the bottom reaches the top unscaled."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = x + self.attn(self.ln_1(x))
        x = x + self.mlp(self.ln_2(x))
        return x


class PostNormBlock(Block):
    """ln(x + attn(x)), then ln(x + mlp(x)): every norm rescales the gradient on its way down.

    The first Transformer's order, which needs a warm-up.  Xiong et al. 2020.
    """

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = self.ln_1(x + self.attn(x))
        x = self.ln_2(x + self.mlp(x))
        return x


class MiniGPT(nn.Module):
    """p(next character | the block_size before it); `generate(idx, n)` continues a text by n."""

    generate = generate

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        block = PostNormBlock if config.post_norm else Block
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)  # what the character is
        self.wpe = nn.Embedding(config.block_size, config.n_embd)  # where it stands
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.wte.weight  # tied: read and written with one table
        self.init_weights()

    def init_weights(self) -> None:
        """Matrices N(0, 0.02), those that add to the residual stream 1 / sqrt(2 n_layer) of it;
        biases 0, norms as they are born.  A tied weight has one name here, so it is drawn once.
        """
        for name, p in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * self.config.n_layer))
            elif p.ndim == 2:
                nn.init.normal_(p, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """idx (B, T) -> logits (B, T, V) and None, or with targets (B, T) the mean loss in nats.

        A target of -1 does not count.  ValueError where T exceeds block_size.
        """
        T, most = idx.shape[1], self.config.block_size
        if most < T:
            raise ValueError(
                f"MiniGPT: {T} characters are more than block_size {most}; give it the last {most}"
            )
        x = self.wte(idx) + self.wpe(tg.arange(T, device=idx.device))  # (B, T, C) + (T, C)
        x = self.drop(x)
        for block in self.blocks:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))  # (B, T, V)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
