"""A GPT that reads and writes characters: token and position embeddings, pre-norm blocks, a head over the vocabulary.

Attention: Vaswani et al. 2017.  Pre-norm decoder: Radford et al. 2019.  The lecture's model, heads fused into one.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import nn
from tensorgrad.tensor import Tensor


@dataclass(frozen=True)
class CharGPTConfig:
    """The sizes of a CharGPT; the names are nanoGPT's."""

    vocab_size: int
    block_size: int = 64
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            if getattr(self, name) < 1:
                raise ValueError(f"CharGPTConfig: {name} must be at least 1, it is {getattr(self, name)}")
        if self.n_embd % self.n_head:
            raise ValueError(f"CharGPTConfig: n_embd {self.n_embd} is no multiple of n_head {self.n_head}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"CharGPTConfig: dropout must lie in [0, 1), it is {self.dropout}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class MultiHeadAttention(nn.Module):
    """softmax(q kT / sqrt(D)) v in each head, each character seeing itself and what came before."""

    def __init__(self, config: CharGPTConfig) -> None:
        super().__init__()
        self.n_head, self.dropout_p = config.n_head, config.dropout
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.proj = nn.Linear(config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        B, T, C = x.shape
        q, k, v = (self.by_head(a) for a in self.qkv(x).split(C, dim=-1))  # (B, H, T, D)
        dropout_p = self.dropout_p if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p, is_causal=True)
        return self.dropout(self.proj(y.transpose(1, 2).reshape(B, T, C)))  # type: ignore[no-any-return]

    def by_head(self, a: Tensor) -> Tensor:  # (B, T, C) -> (B, H, T, D)
        B, T, C = a.shape
        return a.reshape(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """proj(relu(fc(x))), four times as wide inside."""

    def __init__(self, config: CharGPTConfig) -> None:
        super().__init__()
        self.fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.proj = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        return self.dropout(self.proj(F.relu(self.fc(x))))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Communication, then computation, each added to a stream that runs through unchanged."""

    def __init__(self, config: CharGPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = MultiHeadAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class CharGPT(nn.Module):
    """forward(idx, targets) -> (logits, loss); generate(idx, n) continues a text."""

    def __init__(self, config: CharGPTConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.n_layer)))
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size)
        self.apply(self.init_weights)

    @staticmethod
    def init_weights(module: Any) -> None:
        """Weights N(0, 0.02), biases 0."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """idx (B, T) -> logits (B, T, V); with targets (B, T) also the mean loss in nats per character."""
        T = idx.shape[1]
        if T > self.config.block_size:
            raise ValueError(f"CharGPT: {T} characters exceed block_size {self.config.block_size}; crop the input")
        x = self.wte(idx) + self.wpe(tg.arange(T, device=idx.device))  # (B, T, C)
        x = self.ln_f(self.blocks(self.drop(x)))
        logits = self.lm_head(x)  # (B, T, V)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))

    @tg.no_grad()
    def generate(
        self, idx: Tensor, max_new_tokens: int, temperature: float = 1.0, top_k: int | None = None, generator: Any = None
    ) -> Tensor:
        """idx (B, T) -> (B, T + max_new_tokens): characters drawn one by one, each from the last block_size before it.

        temperature 0 takes the likeliest.  The model runs in eval mode and is left in the mode it was in.
        """
        if idx.shape[1] == 0:
            raise ValueError("generate: the prompt is empty; give it at least one character")
        if temperature < 0 or (top_k is not None and top_k < 1):
            raise ValueError(f"generate: temperature {temperature} and top_k {top_k} must be positive")
        was_training = self.training
        self.eval()
        try:
            for _ in range(max_new_tokens):
                logits, _ = self(idx[:, -self.config.block_size :])
                idx = tg.cat([idx, draw(logits[:, -1], temperature, top_k, generator)], dim=1)
        finally:
            self.train(was_training)
        return idx


def draw(logits: Tensor, temperature: float, top_k: int | None, generator: Any = None) -> Tensor:
    """One index per row of logits (B, V) -> (B, 1).  Ties with the k-th largest survive top_k."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)  # type: ignore[no-any-return]
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    return F.softmax(logits, -1).multinomial(1, generator=generator)  # type: ignore[no-any-return]
