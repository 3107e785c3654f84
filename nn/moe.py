"""A mixture of experts: each token goes to the few MLPs that a router chooses for it.

Shazeer et al. 2017; capacity and the loss that balances: Fedus, Zoph and Shazeer 2021, "Switch"."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorgrad.backend import move, xp_of
from tensorgrad.creation import zeros
from tensorgrad.nn import functional as F
from tensorgrad.nn.containers import ModuleList
from tensorgrad.nn.layers import Dropout, Linear
from tensorgrad.nn.module import Module
from tensorgrad.ops.indexing import index_select
from tensorgrad.ops.scatter import index_add
from tensorgrad.ops.select import topk
from tensorgrad.ops.shape import cat
from tensorgrad.tensor import Tensor

Array = np.ndarray[Any, np.dtype[Any]]


class Expert(Module):
    """out = c_proj(gelu(c_fc(x))): (..., C) -> (..., C), n_inner (4 C) numbers inside; GPT-2's."""

    def __init__(
        self, n_embd: int, n_inner: int | None = None, bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        n_inner = 4 * n_embd if n_inner is None else n_inner
        self.c_fc = Linear(n_embd, n_inner, bias=bias)
        self.c_proj = Linear(n_inner, n_embd, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:  # (..., C) -> (..., C)
        x = F.gelu(self.c_fc(x), approximate="tanh")  # (..., n_inner)
        x = self.dropout(self.c_proj(x))
        return x


class Router(Module):
    """p = softmax(x weight^T): how much each of E experts is wanted, (N, C) -> (N, E).

    Of them the top_k, and gates: the chosen p, which for more than one are made to add up to 1.
    (For one they are not: else the router would get no gradient.)
    """

    def __init__(self, n_embd: int, n_experts: int, top_k: int) -> None:
        super().__init__()
        if not 1 <= top_k <= n_experts:
            raise ValueError(
                f"Router: top_k must lie between 1 and the number of experts, {n_experts}; it is "
                f"{top_k}"
            )
        self.top_k = top_k
        self.score = Linear(n_embd, n_experts, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (N, C) -> p (N, E), gates (N, k), the chosen experts (N, k)."""
        p = F.softmax(self.score(x), -1)
        gates, chosen = topk(p, self.top_k)
        if self.top_k > 1:
            gates = gates / gates.sum(-1, keepdim=True)
        return p, gates, chosen


@dataclass(frozen=True)
class Load:
    """What one batch asked of the experts: `wanted` tokens of each, of which `served`."""

    wanted: Array
    served: Array
    probability: Array
    """the mean of p over the tokens, (E)"""

    @property
    def dropped(self) -> int:
        """How often an expert had no room for a token that had chosen it."""
        return int(self.wanted.sum() - self.served.sum())

    @property
    def imbalance(self) -> float:
        """The busiest expert's tokens over the mean: 1 where all are alike, E where one has all."""
        return float(self.wanted.max() / max(self.wanted.mean(), 1e-9))

    def __str__(self) -> str:
        shares = " ".join(f"{share:.1%}" for share in self.wanted / max(self.wanted.sum(), 1))
        return f"tokens by expert {shares}; imbalance {self.imbalance:.2f}; {self.dropped} dropped"


class MixtureOfExperts(Module):
    """out = sum over the chosen experts of gate expert(x): (..., C) -> (..., C).

    expert: makes an expert; GPT-2's MLP by default.  capacity_factor: an expert takes at most
    ceil(capacity_factor k N / E) of N tokens, first choices first, then in their order; to the rest
    it adds nothing.  None: all that come.

    After a forward pass `balance_loss` is E sum f_i p_i, where f_i is the share of choices that
    went to expert i and p_i its mean probability (1 where they are balanced; Switch), and `load`
    counts who got what.
    """

    balance_loss: Tensor
    load: Load

    def __init__(
        self, n_embd: int, n_experts: int, top_k: int = 2, capacity_factor: float | None = None,
        expert: Callable[[], Module] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if capacity_factor is not None and not capacity_factor > 0:
            raise ValueError(
                f"MixtureOfExperts: capacity_factor must be above 0, it is {capacity_factor}"
            )
        self.router = Router(n_embd, n_experts, top_k)
        make = expert or (lambda: Expert(n_embd))
        self.experts = ModuleList(make() for _ in range(n_experts))
        self.capacity_factor = capacity_factor

    def capacity(self, n: int) -> int:
        """How many of n tokens an expert takes."""
        if self.capacity_factor is None:
            return n
        return math.ceil(self.capacity_factor * self.router.top_k * n / len(self.experts))

    def forward(self, input: Tensor) -> Tensor:
        C, E, k = input.shape[-1], len(self.experts), self.router.top_k
        x = input.reshape(-1, C)  # (N, C)
        N, device = len(x), x.device
        p, gates, chosen = self.router(x)

        choices = move(chosen.array, "cpu").T.reshape(-1)  # (k N): all first choices first
        wanted = np.bincount(choices, minlength=E)
        served = np.minimum(wanted, self.capacity(N))
        order = np.argsort(choices, kind="stable")  # by expert
        starts = np.cumsum(wanted) - wanted
        lists = [order[a : a + n] for a, n in zip(starts, served, strict=True)]
        tokens = [_index(places % N, device) for places in lists]

        parts = [
            expert(index_select(x, 0, index))
            for expert, index in zip(self.experts, tokens, strict=True)
            if len(index)
        ]
        out: Tensor = zeros(N, C, dtype=x.dtype, device=device)
        if parts:
            flat = gates.transpose(0, 1).reshape(-1)  # (k N)
            gate = index_select(flat, 0, _index(np.concatenate(lists), device))
            out = index_add(out, 0, cat(tokens), cat(parts) * gate.unsqueeze(-1))

        share = Tensor(xp_of(p.array).asarray(wanted / max(k * N, 1), p.dtype))
        mean = p.mean(0)
        self.balance_loss = E * (share * mean).sum()
        self.load = Load(wanted, served, move(mean.detach().array, "cpu"))
        return out.reshape(input.shape)  # type: ignore[no-any-return]


def balance_loss(model: Module) -> Tensor:
    """The mean of the balance losses that a model's mixtures had in the last forward pass.

    Added to the loss, times 0.01 as in Switch.  ValueError for a model without mixtures.
    """
    losses = [m.balance_loss for m in model.modules() if isinstance(m, MixtureOfExperts)]
    if not losses:
        raise ValueError("balance_loss: the model has no MixtureOfExperts")
    total: Tensor = sum(losses[1:], losses[0]) / len(losses)
    return total


def _index(places: Array, device: Any) -> Tensor:
    return Tensor(move(np.ascontiguousarray(places, np.int64), device))
