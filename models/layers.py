"""The layers of GPT-2, which draw their weights once, when they are born: N(0, std^2), biases 0.

Radford et al. 2019."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import Tensor, nn
from tensorgrad.backend import xp_of
from tensorgrad.kinds import linear
from tensorgrad.memory import span


class _Thread(threading.local):
    drawing = True


_thread = _Thread()


@contextmanager
def undrawn() -> Iterator[None]:
    """Layers made inside keep memory that nobody has written: to load weights, or to count them.

    The system hands out such memory when it is first touched, so a model made here costs nothing.
    """
    before, _thread.drawing = _thread.drawing, False
    try:
        yield
    finally:
        _thread.drawing = before


def is_drawing() -> bool:
    """Whether layers draw their weights: not inside `undrawn`."""
    return _thread.drawing


class Linear(nn.Linear):
    """out = x weight^T + bias, where weight ~ N(0, std^2) and bias = 0."""

    def __init__(self, n_in: int, n_out: int, bias: bool = True, std: float = 0.02) -> None:
        self.std = std
        super().__init__(n_in, n_out, bias)

    def reset_parameters(self) -> None:
        if _thread.drawing:
            nn.init.normal_(self.weight, std=self.std)
            if self.bias is not None:
                nn.init.zeros_(self.bias)


class Embedding(nn.Embedding):
    """out = weight[idx], weight ~ N(0, std^2)."""

    def __init__(self, n: int, n_embd: int, std: float = 0.02) -> None:
        self.std = std
        super().__init__(n, n_embd)

    def reset_parameters(self) -> None:
        if _thread.drawing:
            nn.init.normal_(self.weight, std=self.std)


class Head(nn.Module):
    """logits = x weight^T over the vocabulary.  The weight is the embedding's where they are tied.

    multiple: the weight lies in memory of a multiple of so many rows, those behind it zero: 50,257
    in 50,304 suit the tensor cores of a GPU.  `padded` has columns for them, -inf each, so nobody
    draws them, and the loss neither sees them nor sends them a gradient.
    """

    weight: Tensor

    def __init__(self, weight: Tensor, multiple: int = 1) -> None:
        super().__init__()
        self.weight, self.multiple = weight, multiple

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, V)
        logits: Tensor = self.padded(x)[..., : self.weight.shape[0]]
        return logits

    def padded(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, V or the next multiple)
        weight, V = self.weight, self.weight.shape[0]
        rows = V + -V % self.multiple
        if rows == V:
            logits: Tensor = F.linear(x, weight)
            return logits
        if type(weight) is Tensor and not has_room(weight.array, rows):
            weight.data = Tensor(_padded(xp_of(weight.array), weight.array, rows)[:V])
        hide = tg.zeros(rows, dtype=x.dtype, device=x.device)
        hide[V:] = -math.inf
        logits = F.linear(x, _pad_rows(weight, rows), hide)
        return logits

    def extra_repr(self) -> str:
        V, C = self.weight.shape
        return f"in_features={C}, out_features={V}"


def has_room(x: Any, rows: int) -> bool:
    """Whether x is the head of an array with so many rows."""
    home = x.base
    return (
        isinstance(home, type(x))
        and home.shape == (rows, x.shape[1])
        and (home.dtype, home.strides) == (x.dtype, x.strides)
        and span(home)[0] == span(x)[0]
    )


def _padded(xp: Any, x: Any, /, rows: int) -> Any:
    """x with zeros below it; where x has room, what it lies in."""
    if has_room(x, rows):
        return x.base
    out = xp.zeros((rows, x.shape[1]), x.dtype)
    out[: len(x)] = x
    return out


_pad_rows = linear("pad_rows", _padded, dx=lambda g, x_shape: g[: x_shape[0]])
