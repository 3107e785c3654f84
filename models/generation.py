"""Text from a language model: one token after another, each drawn given the last ones."""

from __future__ import annotations

import math
from typing import Any

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import Tensor
from tensorgrad.models.modes import evaluating


@tg.no_grad()
def generate(
    model: Any,
    idx: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: Any = None,
) -> Tensor:
    """idx (B, T) -> (B, T + max_new_tokens), where p(next) = softmax(logits / temperature).

    The model sees the last `config.block_size` tokens; its forward gives (logits, loss).  It runs
    in evaluation mode and is left as it was.  temperature 0 takes the likeliest token, top_k draws
    from the k likeliest.  ValueError for an empty idx or settings out of range.
    """
    if idx.ndim != 2 or 0 in idx.shape:
        raise ValueError(
            f"generate: idx must be (B, T) with at least one token, it is {tuple(idx.shape)}"
        )
    if max_new_tokens < 0:
        raise ValueError(f"generate: max_new_tokens must be at least 0, it is {max_new_tokens}")
    if not temperature >= 0:
        raise ValueError(f"generate: temperature must be at least 0, it is {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"generate: top_k must be at least 1, it is {top_k}")
    with evaluating(model):
        for _ in range(max_new_tokens):
            logits, _ = model(idx[:, -model.config.block_size :])  # (B, T, V)
            idx = tg.cat([idx, draw(logits[:, -1], temperature, top_k, generator)], dim=1)
    return idx


def draw(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, generator: Any = None
) -> Tensor:
    """One index for each row of logits: (B, V) -> (B, 1).  What ties with the k-th is kept."""
    if temperature == 0:
        likeliest: Tensor = logits.argmax(-1, keepdim=True)
        return likeliest
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < least, -math.inf)
    return tg.multinomial(F.softmax(logits, -1), 1, generator=generator)
