"""Where a token stands: sines that are added to it, angles that turn it, or a price on distance.

Attention is given a `Positions`, which turns queries and keys and adds to their scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.backend import device_of, move, xp_of
from tensorgrad.creation import empty
from tensorgrad.kinds import linear
from tensorgrad.nn.flash import array_of
from tensorgrad.nn.module import Module
from tensorgrad.nn.parameter import Buffer
from tensorgrad.tensor import Tensor


class Positions(Module):
    """What attention asks about positions; here the answers of one that knows of none."""

    def turn(self, x: Tensor, positions: Tensor | int) -> Tensor:
        """Queries or keys x (B, H, T, D) as they are at these positions (T) or (B, T)."""
        return x

    def bias(self, T: int, S: int, like: Tensor) -> Tensor | None:
        """What is added to the scores (B, H, T, S) of T queries, the last of S tokens."""
        return None


# ---- sines


def sinusoids(positions: Any, n_embd: int, base: float = 10_000.0) -> Any:
    """sin(p / base^(2i/C)) in column 2i, cos of the same in 2i + 1: (...) numbers -> (..., C)."""
    xp = xp_of(positions)
    angle = positions[..., None] / base ** (xp.arange(0, n_embd, 2) / n_embd)  # (..., C / 2)
    both = xp.stack((xp.sin(angle), xp.cos(angle)), -1)  # (..., C / 2, 2)
    return both.reshape(*positions.shape, -1)[..., :n_embd]


class SinusoidalPositions(Module):
    """out[..., 2i] = sin(p / 10000^(2i/C)), out[..., 2i+1] = cos(...): (...) ints -> (..., C).

    It takes the place of an Embedding of positions, without parameters or a last position.
    Vaswani et al. 2017.
    """

    def __init__(self, n_embd: int, base: float = 10_000.0) -> None:
        super().__init__()
        self.n_embd, self.base = n_embd, base
        self.like = Buffer(empty(0), persistent=False)  # the dtype of what is answered

    def forward(self, positions: Tensor) -> Tensor:
        return Tensor(sinusoids(positions.array, self.n_embd, self.base).astype(self.like.dtype))

    def extra_repr(self) -> str:
        return f"{self.n_embd}"


# ---- rotations


def _rotated(xp: Any, x: Any, /, cos: Any, sin: Any, interleaved: bool) -> Any:
    out = xp.empty(x.shape, x.dtype)
    (a, b), (c, d) = _pairs(x, interleaved), _pairs(out, interleaved)
    c[...] = a * cos - b * sin
    d[...] = b * cos + a * sin
    return out


def _pairs(x: Any, interleaved: bool) -> tuple[Any, Any]:
    """The first and the second number of each pair, (..., D / 2)."""
    half = x.shape[-1] // 2
    return (x[..., ::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])


_rotate: Any = linear(
    "rotate", _rotated,
    dx=lambda g, cos, sin, interleaved: _rotate(g, cos, -sin, interleaved),  # and back
)  # fmt: skip


class RoPE(Positions):
    """(a, b) -> (a cos pt - b sin pt, b cos pt + a sin pt), t = base^(-2i/D) for pair i of D / 2.

    Then q . k depends on how far apart the two stand, not on where.  A pair is (x[i], x[i + D/2]),
    as in GPT-NeoX and Llama, or, interleaved, (x[2i], x[2i + 1]), as in the paper: Su et al. 2021.
    """

    def __init__(self, head_size: int, base: float = 10_000.0, interleaved: bool = False) -> None:
        super().__init__()
        if head_size % 2:
            raise ValueError(f"RoPE: pairs of numbers turn, and head_size {head_size} is odd")
        self.head_size, self.base, self.interleaved = head_size, base, interleaved
        self.tables: dict[Any, tuple[Any, Any]] = {}

    def turn(self, x: Tensor, positions: Tensor | int = 0) -> Tensor:
        """x (B, H, T, D) at positions (T), (B, T), or `positions` and those that follow it."""
        if x.shape[-1] != self.head_size:
            raise ValueError(
                f"RoPE: heads of {self.head_size} numbers are wanted, these have {x.shape[-1]}"
            )
        like, T = array_of(x), x.shape[-2]
        if isinstance(positions, int):
            rows: Any = slice(positions, positions + T)
            most = positions + T
        else:
            rows = positions.array
            most = int(rows.max()) + 1 if rows.size else 0
            if rows.shape[-1] != T:
                raise ValueError(
                    f"RoPE: {T} tokens have positions of shape {tuple(rows.shape)}; give (T) or "
                    "(B, T)"
                )
        cos, sin = (a[rows] for a in self.table(most, like))  # (T, D / 2) or (B, T, D / 2)
        if cos.ndim == 3:
            cos, sin = cos[:, None], sin[:, None]  # the same in each head
        return _rotate(x, cos, sin, self.interleaved)  # type: ignore[no-any-return]

    forward = turn

    def table(self, n: int, like: Any) -> tuple[Any, Any]:
        """cos and sin of the angles at n positions or more, (n, D / 2), kept for the next time."""
        key = (type(like), like.dtype)
        if key not in self.tables or len(self.tables[key][0]) < n:
            n = 1 << max(n - 1, 1).bit_length()
            D = self.head_size
            angles = np.arange(n)[:, None] * self.base ** (-np.arange(0, D, 2) / D)
            self.tables[key] = tuple(
                move(f(angles).astype(like.dtype), device_of(like)) for f in (np.cos, np.sin)
            )
        return self.tables[key]

    def extra_repr(self) -> str:
        return f"{self.head_size}, base={self.base:g}, interleaved={self.interleaved}"


# ---- a price on distance


def alibi_slopes(n_head: int) -> np.ndarray[Any, np.dtype[Any]]:
    """2^(-8i/n) of head i = 1 ... n, a power of two; for other numbers of heads the slopes of the
    power below, then every other one of the power above."""
    n = 1 << (n_head.bit_length() - 1)
    slopes = 2.0 ** (-8 / n * np.arange(1, n + 1))
    more = 2.0 ** (-4 / n * np.arange(1, 2 * n + 1, 2))
    return np.concatenate((slopes, more[: n_head - n]))


class ALiBi(Positions):
    """score -= m_h (p - q) for a key q that lies p - q tokens back; m_h: see `alibi_slopes`.

    Press, Smith and Lewis 2021, "Train short, test long".
    """

    def __init__(self, n_head: int) -> None:
        super().__init__()
        if n_head < 1:
            raise ValueError(f"ALiBi: n_head must be at least 1, it is {n_head}")
        self.n_head = n_head

    def bias(self, T: int, S: int, like: Tensor) -> Tensor:  # (H, T, S)
        xp = xp_of(array_of(like))
        back = xp.arange(S) - xp.arange(S - T, S)[:, None]  # minus the distance, (T, S)
        slopes = xp.asarray(alibi_slopes(self.n_head))[:, None, None]
        return Tensor((slopes * xp.minimum(back, 0)).astype(like.dtype))

    def extra_repr(self) -> str:
        return f"{self.n_head}"
