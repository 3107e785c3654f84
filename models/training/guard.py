"""A look at every step before it changes the weights: is the loss finite, is it an outlier?

What then happens is the recipe's choice: stop, skip the step, or roll back to the checkpoint."""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Any, NamedTuple

ACTIONS = ("stop", "skip", "rollback")
WINDOW = 128  # steps that an outlier is held against, as in llm.c


class Verdict(NamedTuple):
    """What to do with a step, and why."""

    action: str
    reason: str


class RollBack(Exception):
    """The step shall not have been: training goes on from the last checkpoint, past its batches."""


class Guard:
    """z = (value - mean) / std of the loss, and of the gradient's norm, over the last 128 steps.

    The value is one of the 128, as in llm.c, so no z is above sqrt(127) = 11.27.  on_nonfinite,
    on_spike: one of `ACTIONS`; for spikes also "none".  A spike is a z above spike_z, once there
    are 128 steps before it; it stays among those to compare with, so what stays high is no spike
    for long.
    """

    def __init__(self, on_nonfinite: str, on_spike: str, spike_z: float) -> None:
        self.on_nonfinite, self.on_spike, self.spike_z = on_nonfinite, on_spike, spike_z
        self.recent: dict[str, deque[float]] = {
            name: deque(maxlen=WINDOW) for name in ("loss", "gradient's norm")
        }

    def look(self, loss: float, norm: float) -> Verdict | None:
        """None for a step that is sound."""
        if not math.isfinite(loss + norm):
            return Verdict(
                self.on_nonfinite,
                f"the loss is {loss}, the gradient's norm {norm}; take a lower learning_rate, or "
                "let autograd.detect_anomaly() name the op",
            )
        spikes = []
        for (name, recent), value in zip(self.recent.items(), (loss, norm), strict=True):
            full = len(recent) == WINDOW
            recent.append(value)
            z = z_score(recent) if full and self.on_spike != "none" else 0.0
            if z > self.spike_z:
                spikes.append(
                    f"the {name} is {value:.4g}, {z:.1f} standard deviations above the mean of the "
                    f"last {WINDOW} steps"
                )
        return Verdict(self.on_spike, " and ".join(spikes)) if spikes else None

    def state(self) -> dict[str, Any]:
        return {name: list(recent) for name, recent in self.recent.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        for name, recent in self.recent.items():
            recent.clear()
            recent.extend(state[name])


def z_score(recent: deque[float]) -> float:
    """How many standard deviations the last lies above the mean of all; 0 where all are equal."""
    std = statistics.pstdev(recent)
    return (recent[-1] - statistics.fmean(recent)) / std if std else 0.0
