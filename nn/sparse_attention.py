"""Who sees whom where not everybody sees everybody: near tokens, every s-th, or a chosen few.

What a pattern leaves out is never computed, so for T tokens no T x T matrix is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tensorgrad.nn.flash import BLOCK, Array, Pattern, Piece, Some, cut, indices


class Local(Pattern):
    """i sees j if 0 <= i - j < window: work and memory are linear in T.  Beltagy et al. 2020."""

    def __init__(self, window: int) -> None:
        self.window = at_least_one("Local", "window", window)

    def sees(self, i: Array, j: Array) -> Array:
        seen: Array = (j <= i) & (i - j < self.window)
        return seen

    def pieces(self, T: int, S: int) -> Iterator[Piece]:
        for rows in cut(range(T)):
            yield self.piece(rows, S - T, [self.near(rows, S - T)])

    def near(self, rows: Some, past: int) -> slice:
        """The window of the first row to that of the last."""
        i = indices(rows) + past
        return slice(max(0, int(i[0]) - self.window + 1), int(i[-1]) + 1)


class Strided(Pattern):
    """i sees j if i - j = 0, s, 2s, ...: with s near sqrt(T), T sqrt(T) work.  Child et al. 2019.

    The tokens of one remainder see each other and nobody else.
    """

    def __init__(self, stride: int) -> None:
        self.stride = at_least_one("Strided", "stride", stride)

    def sees(self, i: Array, j: Array) -> Array:
        seen: Array = (j <= i) & ((i - j) % self.stride == 0)
        return seen

    def pieces(self, T: int, S: int) -> Iterator[Piece]:
        past = S - T
        for first in range(min(self.stride, T)):
            for rows in cut(range(first, T, self.stride)):
                i = indices(rows)
                alike = range((first + past) % self.stride, int(i[-1]) + past + 1, self.stride)
                yield self.piece(rows, past, cut(alike))


class Longformer(Pattern):
    """i sees j <= i if i - j < window, or if one of the two is global.  Beltagy et al. 2020.

    tokens: the positions of global tokens, or how many of the first are.
    """

    def __init__(self, window: int, tokens: int | Sequence[int]) -> None:
        self.window = at_least_one(type(self).__name__, "window", window)
        chosen = range(tokens) if isinstance(tokens, int) else sorted(set(tokens))
        self.tokens = np.array(chosen, np.int64)
        if (self.tokens < 0).any():
            raise ValueError(f"{type(self).__name__}: tokens are positions from 0, not {tokens}")

    def sees(self, i: Array, j: Array) -> Array:
        chosen = np.isin(i, self.tokens) | np.isin(j, self.tokens)
        seen: Array = (j <= i) & ((i - j < self.window) | chosen)
        return seen

    def pieces(self, T: int, S: int) -> Iterator[Piece]:
        past = S - T
        for rows in cut(range(T)):
            near = Local(self.window).near(rows, past)
            before = self.tokens[self.tokens < near.start]
            others = np.setdiff1d(indices(rows), self.tokens - past)
            if len(others):
                yield self.piece(others, past, [np.r_[before, near]])
        chosen = self.tokens[(self.tokens >= past) & (self.tokens < S)]
        for n in range(0, len(chosen), BLOCK):
            rows = chosen[n : n + BLOCK]
            yield self.piece(rows - past, past, cut(range(int(rows[-1]) + 1)))


class Global(Longformer):
    """i sees itself, and j <= i if one of the two is global.

    tokens: the positions of global tokens, or how many of the first are.
    """

    def __init__(self, tokens: int | Sequence[int]) -> None:
        super().__init__(1, tokens)


def at_least_one(kind: str, name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{kind}: {name} must be at least 1, it is {value}")
    return value
