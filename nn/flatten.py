"""Neighbouring positions joined into one: the layer that gives WaveNet its tree."""

from __future__ import annotations

from typing import Any

from tensorgrad.nn.module import Module


class FlattenConsecutive(Module):
    """out[b, t] = x[b, t n], ..., x[b, t n + n - 1] end to end: (B, T, C) -> (B, T / n, n C).

    A view of a contiguous x, and the same as cat([x[:, 0::n], ..., x[:, n-1::n]], -1).  With
    `squeeze` a single position that remains is dropped: (B, n C).  ValueError where n does not
    divide T.
    """

    def __init__(self, n: int, squeeze: bool = False) -> None:
        super().__init__()
        if n < 1:
            raise ValueError(f"FlattenConsecutive: n must be at least 1, it is {n}")
        self.n, self.squeeze = n, squeeze

    def forward(self, input: Any) -> Any:
        if input.ndim != 3:
            raise ValueError(
                f"FlattenConsecutive: expected an input (B, T, C), not one of shape {input.shape}"
            )
        B, T, C = input.shape
        if T % self.n:
            raise ValueError(
                f"FlattenConsecutive: {T} positions do not divide into groups of n = {self.n}; "
                f"give it {T - T % self.n} or {T - T % self.n + self.n} of them"
            )
        if self.squeeze and self.n == T:
            return input.reshape(B, T * C)
        return input.reshape(B, T // self.n, self.n * C)

    def extra_repr(self) -> str:
        return f"{self.n}, squeeze=True" if self.squeeze else f"{self.n}"
