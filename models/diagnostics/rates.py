"""The learning-rate finder: a few hundred steps of a rate that grows, in a loop of its own.

Smith 2017, "Cyclical Learning Rates for Training Neural Networks".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorgrad import Tensor, nn, optim
from tensorgrad.models.diagnostics.preserved import preserved

Optimizer = Callable[[Iterable[Tensor]], Any]
"""optimizer(parameters) -> an optimiser"""


@dataclass
class RateCurve:
    """rates[i] is the learning rate of step i, losses[i] the loss before it."""

    rates: list[float]
    losses: list[float]
    smooth: list[float]
    """the losses, averaged over neighbours"""
    steepest: float
    """the rate at which the smooth loss falls fastest, by its logarithm"""
    lowest: float
    """the rate at which it is lowest: from here on it rises"""

    def figures(self) -> dict[str, Any]:
        names = ("steepest", "lowest", "rates", "losses", "smooth")
        return {name: getattr(self, name) for name in names}


def find_learning_rate(
    model: nn.Module,
    loss: Callable[[], Tensor],
    low: float = 1e-4,
    high: float = 1.0,
    steps: int = 200,
    optimizer: Optimizer = optim.SGD,
) -> RateCurve:
    """Train once with rates evenly spaced by their logarithm, low to high; then put the model back.

    loss() draws the next batch and gives its loss.  Ends early where the loss exceeds four times
    the least so far, or is no longer finite.  ValueError for a range or steps that make no curve.
    """
    if not (0 < low < high and math.isfinite(high)) or steps < 2:
        raise ValueError(
            f"find_learning_rate: wants 0 < low < high and at least 2 steps, not {low}, {high} "
            f"and {steps}"
        )
    rates = np.geomspace(low, high, steps).tolist()
    losses: list[float] = []
    with preserved(model):
        optimiser = optimizer(model.parameters())
        for rate in rates:
            now = loss()
            if not math.isfinite(now.item()) or (losses and now.item() > 4 * min(losses)):
                break
            losses.append(now.item())
            optimiser.zero_grad()
            now.backward()
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
    if len(losses) < 2:
        raise ValueError(
            f"find_learning_rate: the loss was {losses or now.item()} and grew at once, at the "
            f"rate {low}; take a lower `low`"
        )
    return curve(rates[: len(losses)], losses)


def curve(rates: list[float], losses: list[float]) -> RateCurve:
    """The losses with what is read off them: means over a tenth of the curve, slope and minimum."""
    reach = max(1, len(losses) // 20)
    ends = [(max(0, i - reach), min(len(losses), i + reach + 1)) for i in range(len(losses))]
    smooth = np.array([np.mean(losses[a:b]) for a, b in ends])
    at = int(smooth.argmin())
    slope = np.gradient(smooth, np.log(rates))[: at + 1]
    return RateCurve(rates, losses, smooth.tolist(), rates[int(slope.argmin())], rates[at])
