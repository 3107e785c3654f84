"""Self-attention from an average, in four steps; python -m tensorgrad.models.attention_toys runs.

Each position of a text hears those before it: by loops, by a product, by a softmax, by asking.
"""

from __future__ import annotations

import math

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import Tensor, nn


def by_loops(x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
    """1. out[b, t] = mean of x[b, 0 .. t]: everyone hears the average of what came before.

    Positions talk along the edges of a graph, each to itself and to those behind; texts of a batch
    (b) never talk to each other.
    """
    B, T, _ = x.shape
    x = tg.stack([tg.stack([x[b, : t + 1].mean(0) for t in range(T)]) for b in range(B)])
    return x


def by_product(x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
    """2. out = W x, where row t of W has 1 / (t + 1) up to column t: the same sums as a product."""
    T = x.shape[1]
    wei = tg.tril(tg.ones(T, T, dtype=x.dtype))
    wei = wei / wei.sum(1, keepdim=True)  # keepdim: each row by its own sum
    x = wei @ x  # (T, T) @ (B, T, C) -> (B, T, C)
    return x


def by_softmax(x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
    """3. W = softmax of 0 where a position may look and of -inf where not: the same weights.

    The zeros are scores, how much each wants to hear each; they need not stay zero.  Without the
    mask everyone hears everyone: an encoder.  With it nobody hears the future: a decoder.
    """
    wei = softmax_of_past(tg.zeros(x.shape[1], x.shape[1], dtype=x.dtype))
    x = wei @ x
    return x


class Head(nn.Module):
    """4. W = softmax(q kT / sqrt(D)): each position asks (q), each answers (k), and tells (v).

    Scores of q and k of variance 1 have variance D; divided by its root they start near 1, where
    softmax still spreads.  Keys and values from another text make it cross-attention.  Positions
    have no place of their own: shuffle those that are seen, and the answer is the same.
    """

    def __init__(self, n_embd: int, head_size: int) -> None:
        super().__init__()
        self.key = nn.Linear(n_embd, head_size, bias=False)
        self.query = nn.Linear(n_embd, head_size, bias=False)
        self.value = nn.Linear(n_embd, head_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, D)
        q, k = self.query(x), self.key(x)
        wei = q @ k.transpose(-2, -1) / math.sqrt(k.shape[-1])  # (B, T, D) @ (B, D, T) -> (B, T, T)
        wei = softmax_of_past(wei)
        x = wei @ self.value(x)  # (B, T, T) @ (B, T, D) -> (B, T, D)
        return x


def softmax_of_past(scores: Tensor) -> Tensor:  # (..., T, T) -> (..., T, T)
    """Each row's softmax over the columns up to its own; the others get 0."""
    T = scores.shape[-1]
    future = tg.tril(tg.ones(T, T, dtype=scores.dtype)) == 0
    wei: Tensor = F.softmax(scores.masked_fill(future, -math.inf), dim=-1)
    return wei


def lesson(seed: int = 1337) -> None:
    """Print what each version makes of the same numbers, and that they are equal."""
    tg.manual_seed(seed)
    B, T, C = 4, 8, 2
    x = tg.randn(B, T, C)
    print(f"x, {B} texts of {T} positions with {C} numbers each; the first text:\n{show(x[0])}\n")
    first = by_loops(x)
    for version in (by_loops, by_product, by_softmax):
        out = version(x)
        print(f"{version.__doc__.splitlines()[0].strip()}\n{show(out[0])}")  # type: ignore[union-attr]
        print(f"   apart from version 1: {(out - first).abs().max().item():.0e}\n")

    C, D = 32, 16
    x, head = tg.randn(B, T, C), Head(C, D)
    with tg.no_grad():
        out = head(x)
        q, k, v = (linear(x)[:, None] for linear in (head.query, head.key, head.value))
        same = F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0]
        wei = softmax_of_past(q @ k.transpose(-2, -1) / math.sqrt(D))[0, 0]
        head.query.weight.zero_()  # nobody asks: all scores are 0, and version 3 comes back
        average = head(x)
        apart = (average - by_softmax(head.value(x))).abs().max().item()
    print(f"{Head.__doc__.splitlines()[0].strip()}")  # type: ignore[union-attr]
    print(f"who hears whom in the first text, no longer evenly:\n{show(wei)}")
    print(f"   apart from scaled_dot_product_attention: {(out - same).abs().max().item():.0e}")
    print(f"   with q = 0, apart from version 3 of v: {apart:.0e}")


def show(rows: Tensor) -> str:
    return "\n".join("   " + " ".join(f"{a:7.4f}" for a in row) for row in rows.tolist())


if __name__ == "__main__":
    lesson()
