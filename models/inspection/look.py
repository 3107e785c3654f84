"""What a language model makes of a text, layer by layer; the model stays as it is.

Logit lens: nostalgebraist 2020, "Interpreting GPT: the logit lens".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import Any, NamedTuple

import numpy as np

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import Tensor, nn
from tensorgrad.models.attention_maps import attention_maps
from tensorgrad.models.evaluation import token_losses, window_of
from tensorgrad.models.inspection.labels import label
from tensorgrad.models.modes import evaluating

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]


class Parts(NamedTuple):
    """What every GPT is made of, behind its embeddings."""

    blocks: tuple[nn.Module, ...]
    norm: nn.Module
    head: nn.Module


def parts(model: Any) -> Parts:
    """The blocks, the last norm and the head; ValueError for a model that is no GPT."""
    body = getattr(model, "transformer", model)
    blocks = getattr(body, "h", getattr(body, "blocks", None))
    norm, head = getattr(body, "ln_f", None), getattr(model, "lm_head", None)
    if blocks is None or norm is None or head is None:
        raise ValueError(
            f"a {type(model).__name__} has no blocks with a norm and a head behind them; what can "
            "be looked into are GPT-2 and the GPTs of characters"
        )
    return Parts(tuple(blocks), norm, head)


def hidden_states(model: Any, *inputs: Any, **options: Any) -> tuple[Tensor, ...]:
    """x as it enters each block and as it leaves the last, while model(*inputs) runs.

    L + 1 of (B, T, C); the first are the embeddings, and the last norm is not applied to any (in
    transformers it is to the last).  In evaluation mode and without gradients.
    """
    found = parts(model)
    states: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
        states.append(args[0])

    handles = [m.register_forward_pre_hook(keep) for m in (*found.blocks, found.norm)]
    try:
        with evaluating(model), tg.no_grad():
            model(*inputs, **options)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(states)


def logit_lens(model: Any, states: Iterable[Tensor]) -> Iterator[Tensor]:
    """lm_head(ln_f(x)) of each x (B, T, C): the logits (B, T, V) if the blocks ended there.

    The last are the model's own.
    """
    found = parts(model)
    for x in states:
        with evaluating(model), tg.no_grad():
            logits = found.head(found.norm(x))
        yield logits


def weights(model: Any, ids: Tensor) -> Array:
    """p of every attention, (L, B, H, T, T): row t is what token t sees, and sums to 1."""
    if "output_attentions" in signature(model.forward).parameters:
        with evaluating(model), tg.no_grad():
            maps = [numbers(p) for p in model(ids, output_attentions=True).attentions]
    else:
        maps = list(attention_maps(model, ids).values())
    B, T = ids.shape
    return np.stack(maps) if maps else np.zeros((0, B, 1, T, T), np.float32)


def numbers(x: Tensor) -> Array:
    """As a NumPy array, half types as float32."""
    found: Array = (x.float() if x.dtype.itemsize < 4 else x).detach().cpu().numpy()
    return found


@dataclass(frozen=True)
class Lens:
    """Which tokens each of the L + 1 hidden states expects next, and how it likes the true one.

    tokens, probabilities (L + 1, T, K): the K likeliest, the best first.
    true, ranks (L + 1, T - 1): the probability of the token that does follow, and its rank from 1.
    """

    tokens: Array
    probabilities: Array
    true: Array
    ranks: Array


class Inspection:
    """A text of T tokens under the eyes of a model of L layers with H heads.

    vocab encodes and decodes (a CharVocab, a BPE); top: how many tokens the lens keeps.  What is
    asked for is computed then, and kept.  ValueError for a text that the model cannot read.
    """

    def __init__(self, model: Any, vocab: Any, text: str, top: int = 5) -> None:
        parts(model)
        self.model, self.vocab, self.text = model, vocab, text
        self.ids = checked(model, [int(i) for i in vocab.encode(text)])
        self.tokens = [label(vocab, i) for i in self.ids]
        if top < 1:
            raise ValueError(f"top must be at least 1, it is {top}")
        self.top = min(top, model.config.vocab_size)

    @property
    def input(self) -> Tensor:
        """The ids as the model takes them, (1, T)."""
        return tg.tensor([self.ids], device=next(self.model.parameters()).device)

    @cached_property
    def maps(self) -> Array:
        """The weights of every attention, (L, H, T, T)."""
        return weights(self.model, self.input)[:, 0]

    @cached_property
    def states(self) -> Array:
        """The hidden states, (L + 1, T, C); the first are the embeddings."""
        return np.stack([numbers(x[0]) for x in self._states])

    @cached_property
    def _states(self) -> tuple[Tensor, ...]:
        return hidden_states(self.model, self.input)

    @cached_property
    def lens(self) -> Lens:
        """What each hidden state expects next."""
        truth = np.array(self.ids[1:], np.int64)[:, None]  # (T - 1, 1)
        found: list[tuple[Array, ...]] = []
        for logits in logit_lens(self.model, self._states):
            x = logits[0].float() if logits.dtype.itemsize < 4 else logits[0]  # (T, V)
            scores = F.log_softmax(x, -1)
            best, tokens = scores.topk(self.top, -1)
            logs = numbers(scores[:-1])  # (T - 1, V)
            true = np.take_along_axis(logs, truth, 1)
            ranks = 1 + (logs > true).sum(1)
            found.append((tokens.cpu().numpy(), np.exp(numbers(best)), np.exp(true[:, 0]), ranks))
        return Lens(*(np.stack(column) for column in zip(*found, strict=True)))

    @cached_property
    def losses(self) -> Array:
        """-log p in nats of each token but the first, given those before it, (T - 1,)."""
        if len(self.ids) < 2:
            return np.zeros(0, np.float32)
        found: Array = token_losses(self.model, [self.ids])[0]
        return found

    def label(self, token: int) -> str:
        return label(self.vocab, int(token))


def checked(model: Any, ids: list[int]) -> list[int]:
    """The ids; ValueError where there are none, too many, or some that the model does not have."""
    most, size = window_of(model), model.config.vocab_size
    if not ids:
        raise ValueError("the text is empty; give it at least one token")
    if len(ids) > most:
        raise ValueError(
            f"the text has {len(ids):,} tokens, and the model sees {most:,} at once; shorten it"
        )
    if max(ids) >= size:
        raise ValueError(
            f"the vocabulary makes a token {max(ids)} of the text, and the model has only 0 to "
            f"{size - 1}; give the model's own with --tokenizer"
        )
    return ids


def chosen(kind: str, number: int | None, count: int) -> int | None:
    """A layer or head by its number, from 0, or from the end below 0; ValueError outside."""
    if number is None or -count <= number < count:
        return None if number is None else number % count
    told = f"0 to {count - 1}" if count else "none"
    raise ValueError(f"there is no {kind} {number}; the model has {count}: {told}")
