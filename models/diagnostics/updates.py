"""How far each step moves each weight, beside the weight's own spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorgrad import Tensor, nn, optim
from tensorgrad.models.diagnostics.preserved import preserved


@dataclass
class Updates:
    """ratios[name][i] = log10(std(change of the weight in step i) / std(the weight)).

    For SGD the change is lr * grad.  -3 is a healthy pace: a thousandth of itself per step.  -inf
    where a weight did not move, nan where all its entries are equal.
    """

    ratios: dict[str, list[float]]
    losses: list[float]

    def settled(self) -> dict[str, float]:
        """The median of each weight's second half."""
        return {name: float(np.median(rs[len(rs) // 2 :])) for name, rs in self.ratios.items()}

    def figures(self) -> dict[str, Any]:
        finite = {n: [r if math.isfinite(r) else None for r in rs] for n, rs in self.ratios.items()}
        return {"ratios": finite, "losses": self.losses}


def watch_updates(
    model: nn.Module,
    loss: Callable[[], Tensor],
    steps: int = 200,
    optimizer: Callable[[Iterable[Tensor]], Any] = lambda ps: optim.SGD(ps, lr=0.1),
) -> Updates:
    """Train for some steps and compare each matrix with what a step adds to it; put all back.

    loss() draws the next batch and gives its loss; optimizer(parameters) makes the optimiser.
    Biases and norms are left out: they start at 0 or 1 alike and have no spread.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.ndim >= 2 and p.requires_grad]
    ratios: dict[str, list[float]] = {name: [] for name, _ in named}
    losses: list[float] = []
    with preserved(model):
        optimiser = optimizer(model.parameters())
        for _ in range(steps):
            before = [p.detach().clone() for _, p in named]
            now = loss()
            optimiser.zero_grad()
            now.backward()
            optimiser.step()
            losses.append(now.item())
            for (name, p), old in zip(named, before, strict=True):
                ratios[name].append(ratio(p.detach() - old, p))
    return Updates(ratios, losses)


def ratio(change: Tensor, weight: Tensor) -> float:
    """log10(std(change) / std(weight)), in float64."""
    moved, spread = (t.detach().double().std().item() for t in (change, weight))
    if spread == 0 or math.isnan(spread):
        return math.nan
    return math.log10(moved / spread) if moved > 0 else -math.inf
