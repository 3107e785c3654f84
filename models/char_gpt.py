"""A GPT that reads and writes characters: embeddings, blocks of attention and MLP, a head.

Attention: Vaswani et al. 2017.  Norms before the layers, as in GPT-2: Radford et al. 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import Tensor, nn
from tensorgrad.models.generation import generate
from tensorgrad.models.settings import Settings, setting


@dataclass(frozen=True)
class CharGPTConfig(Settings):
    """The sizes of a CharGPT, under nanoGPT's names.  The vocabulary is the text's."""

    vocab_size: int
    block_size: int = setting(64, "characters that the model sees at once", least=1)
    n_layer: int = setting(4, "blocks", least=1)
    n_head: int = setting(4, "attention heads in a block", least=1)
    n_embd: int = setting(128, "width: numbers that stand for a character", least=1)
    dropout: float = setting(0.0, "share of activations dropped in training", least=0, below=1)
    tied: bool = setting(False, "the head's weights are the embeddings, as in GPT-2")
    head_bias: bool = setting(True, "the head has a bias")
    scaled_init: bool = setting(
        False, "first weights of what is added to x over sqrt(2 n_layer), as in GPT-2"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vocab_size < 1:
            raise ValueError(f"vocab_size must be at least 1, it is {self.vocab_size}")
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd must be a multiple of n_head: the heads share the width evenly, and "
                f"{self.n_embd} does not divide by {self.n_head}"
            )


class Head(nn.Module):
    """softmax(q kT / sqrt(D)) v: each character sees itself and what came before.

    One head as one writes it first, from n_embd to D = n_embd / n_head numbers.  MultiHeadAttention
    computes all of them at once, and the weights below are rows of its `qkv`.
    """

    def __init__(self, config: CharGPTConfig) -> None:
        super().__init__()
        head_size = config.n_embd // config.n_head
        self.query = nn.Linear(config.n_embd, head_size, bias=False)
        self.key = nn.Linear(config.n_embd, head_size, bias=False)
        self.value = nn.Linear(config.n_embd, head_size, bias=False)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, D)
        q, k, v = self.query(x), self.key(x), self.value(x)
        scores = q @ k.transpose(1, 2) * k.shape[-1] ** -0.5  # (B, T, T): who looks at whom
        future = tg.ones(x.shape[1], x.shape[1], dtype=tg.bool, device=x.device).triu(1)
        weights = F.softmax(scores.masked_fill(future, -math.inf), -1)  # each row sums to one
        x = self.drop(weights) @ v
        return x


class MultiHeadAttention(nn.Module):
    """n_head times Head, side by side, and a projection that mixes what they found."""

    def __init__(self, config: CharGPTConfig) -> None:
        super().__init__()
        self.n_head, self.p = config.n_head, config.dropout
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.proj = nn.Linear(config.n_embd, config.n_embd)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        B, T, C = x.shape
        q, k, v = (
            a.reshape(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, H, T, D)
            for a in self.qkv(x).split(C, dim=-1)
        )
        p = self.p if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        y = y.transpose(1, 2).reshape(B, T, C)  # (B, H, T, D) -> (B, T, C)
        x = self.drop(self.proj(y))
        return x


class FeedForward(nn.Module):
    """proj(relu(fc(x))): each character by itself, four times as wide inside."""

    def __init__(self, config: CharGPTConfig) -> None:
        super().__init__()
        self.fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.proj = nn.Linear(4 * config.n_embd, config.n_embd)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = F.relu(self.fc(x))  # (B, T, 4 C)
        x = self.drop(self.proj(x))
        return x


class Block(nn.Module):
    """Characters look at each other, then each thinks; both are added to x, which runs through."""

    def __init__(self, config: CharGPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = MultiHeadAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = x + self.attn(self.ln_1(x))
        x = x + self.mlp(self.ln_2(x))
        return x


class CharGPT(nn.Module):
    """p(next character | the block_size before it); `generate(idx, n)` continues a text by n."""

    generate = generate

    def __init__(self, config: CharGPTConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)  # what the character is
        self.wpe = nn.Embedding(config.block_size, config.n_embd)  # where it stands
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.n_layer)))
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=config.head_bias)
        self.apply(self.init_weights)
        if config.scaled_init:
            std = 0.02 / math.sqrt(2 * config.n_layer)
            for block in self.blocks:
                nn.init.normal_(block.attn.proj.weight, std=std)
                nn.init.normal_(block.mlp.proj.weight, std=std)
        if config.tied:
            self.lm_head.weight = self.wte.weight

    @staticmethod
    def init_weights(module: nn.Module) -> None:
        """Weights N(0, 0.02), biases 0; norms stay as they are born, weight 1 and bias 0."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """idx (B, T) -> logits (B, T, V) and None, or with targets (B, T) the mean loss in nats.

        ValueError where T exceeds block_size.
        """
        T, most = idx.shape[1], self.config.block_size
        if most < T:
            raise ValueError(
                f"CharGPT: {T} characters are more than block_size {most}; give it the last {most}"
            )
        x = self.wte(idx) + self.wpe(tg.arange(T, device=idx.device))  # (B, T, C) + (T, C)
        x = self.ln_f(self.blocks(self.drop(x)))
        logits = self.lm_head(x)  # (B, T, V)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())
