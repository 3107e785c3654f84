"""All the examinations of one model, a sentence on each, and files for people and for programs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorgrad as tg
from tensorgrad import Tensor, nn, optim
from tensorgrad.atomic import replacing
from tensorgrad.models.diagnostics.layers import SATURATES, Layer, watch_layers
from tensorgrad.models.diagnostics.preserved import preserved
from tensorgrad.models.diagnostics.rates import Optimizer, RateCurve, find_learning_rate
from tensorgrad.models.diagnostics.updates import Updates, watch_updates

SATURATED, DEAD, CONFIDENT, UNEVEN = 0.2, 0.01, 1.05, 30.0
"""Too much: the shares of saturated values and dead units, loss / ln V, a gradient's growth."""
TIMID = 30.0
"""How far below the rate at which the loss falls fastest a rate may lie."""
SLOW, FAST = -4.0, -2.0
"""log10 of the update beside the weight: -3 is a healthy pace."""


@dataclass(frozen=True)
class Finding:
    """What was examined, whether it is as it should be, and a sentence."""

    about: str
    well: bool
    sentence: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.well else 'look'}  {self.about}: {self.sentence}"


@dataclass
class Diagnosis:
    """What `diagnose` measured; `save` writes it into a folder."""

    initial_loss: float
    classes: int | None
    rate: float
    layers: list[Layer]
    updates: Updates
    rates: RateCurve

    @property
    def findings(self) -> list[Finding]:
        """A verdict on each examination."""
        return [
            *on_initial_loss(self.initial_loss, self.classes),
            *on_saturation(self.layers),
            *on_dead_units(self.layers),
            *on_gradients(self.layers),
            *on_updates(self.updates),
            *on_rates(self.rates, self.rate),
        ]

    def figures(self) -> dict[str, Any]:
        """All numbers and sentences, ready for JSON."""
        return {
            "initial_loss": self.initial_loss,
            "uniform_loss": math.log(self.classes) if self.classes else None,
            "learning_rate": self.rate,
            "findings": [vars(finding) for finding in self.findings],
            "layers": [layer.figures() for layer in self.layers],
            "updates": self.updates.figures(),
            "rates": self.rates.figures(),
        }

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """layers.png, updates.png, learning_rate.png and diagnosis.json, each replaced whole."""
        from tensorgrad.models.diagnostics import pictures

        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        pictures.plot_layers(self.layers, path / "layers.png")
        pictures.plot_updates(self.updates, path / "updates.png")
        pictures.plot_rates(self.rates, self.rate, path / "learning_rate.png")
        with replacing(path / "diagnosis.json") as file:
            file.write((json.dumps(finite(self.figures()), indent=1) + "\n").encode())
        names = ("layers.png", "updates.png", "learning_rate.png", "diagnosis.json")
        return [path / name for name in names]


def diagnose(
    model: nn.Module,
    loss: Callable[[], Tensor],
    rate: float = 0.1,
    optimizer: Optimizer = optim.SGD,
    classes: int | None = None,
    steps: int = 200,
    span: tuple[float, float] = (1e-4, 10.0),
) -> Diagnosis:
    """Examine a model as it is now, and leave it so: weights, modes, gradients, random stream.

    loss() draws the next batch, runs the model on it and gives the loss; optimizer(parameters)
    makes what trains it, at `rate`.  classes: V, where ln V is the loss of knowing nothing.
    steps: of the updates that are watched, and of the learning rates tried in `span`.
    """

    def at_rate(parameters: Any) -> Any:
        optimiser = optimizer(parameters)
        for group in optimiser.param_groups:
            group["lr"] = rate
        return optimiser

    with preserved(model):
        model.train()
        with preserved(model), tg.no_grad():
            losses = [loss().item() for _ in [None] * 10]
        return Diagnosis(
            math.fsum(losses) / len(losses),
            classes,
            rate,
            watch_layers(model, loss),
            watch_updates(model, loss, steps, at_rate),
            find_learning_rate(model, loss, *span, steps, optimizer),
        )


# ---- verdicts


def on_initial_loss(loss: float, classes: int | None) -> Iterator[Finding]:
    """-ln(1 / V) is the loss of a model that favours nothing; more means confident and wrong."""
    if classes is None:
        return
    uniform = math.log(classes)
    told = f"{loss:.4f}, and knowing nothing would be ln {classes} = {uniform:.4f}"
    if loss <= CONFIDENT * uniform:
        yield Finding("initial loss", True, told)
    else:
        yield Finding(
            "initial loss", False, f"{told}: the first weights are confident and wrong; start the "
            "last layer smaller",
        )  # fmt: skip


def on_saturation(layers: list[Layer]) -> Iterator[Finding]:
    """Where tanh is level no gradient passes."""
    seen = [layer for layer in layers if layer.kind in SATURATES]
    bad = [layer for layer in seen if (layer.flat or 0) > SATURATED]
    for layer in bad:
        yield Finding(
            "saturation", False, f"{layer.title}: {100 * (layer.flat or 0):.0f} % of its values "
            "are saturated, where no gradient passes; start the weights before it smaller, or "
            "normalise what enters",
        )  # fmt: skip
    if seen and not bad:
        most = max(seen, key=lambda layer: layer.flat or 0)
        yield Finding(
            "saturation", True, f"at most {100 * (most.flat or 0):.1f} % of a layer's values "
            f"({most.title})",
        )  # fmt: skip


def on_dead_units(layers: list[Layer]) -> Iterator[Finding]:
    """A unit that is level for every example of the batch learns nothing from it."""
    seen = [layer for layer in layers if layer.units]
    bad = [layer for layer in seen if (layer.dead or 0) > DEAD * (layer.units or 0)]
    for layer in bad:
        yield Finding(
            "dead units", False, f"{layer.title}: {layer.dead} of {layer.units} units pass no "
            "gradient for any example of the batch",
        )  # fmt: skip
    if seen and not bad:
        dead, units = (sum(n or 0 for n in ns) for ns in zip(*((x.dead, x.units) for x in seen)))
        yield Finding("dead units", True, f"{dead or 'none'} of {units:,}")


def on_gradients(layers: list[Layer]) -> Iterator[Finding]:
    """The gradient's size should neither vanish nor grow on its way from the last to the first."""
    seen = [layer for layer in compared(layers) if layer.grad_std]
    if len(seen) < 2:
        return
    first, last = seen[0], seen[-1]
    growth = (first.grad_std or 1) / (last.grad_std or 1)
    told = f"std {last.grad_std:.1e} at {last.title}, {first.grad_std:.1e} at {first.title}"
    if growth < 1 / UNEVEN:
        yield Finding("gradients", False, f"{told}: they vanish on the way down")
    elif growth > UNEVEN:
        yield Finding("gradients", False, f"{told}: they grow on the way down")
    else:
        yield Finding("gradients", True, told)


def on_updates(updates: Updates) -> Iterator[Finding]:
    """A weight that moves by a thousandth of itself per step learns at a good pace."""
    settled = updates.settled()
    paces = {name: r for name, r in settled.items() if math.isfinite(r)}
    still = [name for name in settled if name not in paces]
    if still:
        yield Finding("updates", False, f"{named(still)} does not move")
    slow = {name: r for name, r in paces.items() if r < SLOW}
    fast = {name: r for name, r in paces.items() if r > FAST}
    for some, pace in ((slow, "slow: a higher rate"), (fast, "fast: a lower rate")):
        if some:
            yield Finding(
                "updates", False, f"{named(list(some))} moves by {powers(some.values())} of itself "
                f"per step, which is {pace} would suit it",
            )  # fmt: skip
    fine = [r for name, r in paces.items() if name not in slow and name not in fast]
    if fine:
        yield Finding(
            "updates", True, f"{len(fine)} of {len(settled)} matrices move by {powers(fine)} of "
            "themselves per step; 10^-3 is a good pace",
        )  # fmt: skip


def named(names: list[str]) -> str:
    """The first, and how many more."""
    return names[0] + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")


def powers(logarithms: Collection[float]) -> str:
    """From the least to the most, as powers of ten."""
    low, high = (f"10^{r:.1f}" for r in (min(logarithms), max(logarithms)))
    return low if low == high else f"{low} to {high}"


def on_rates(rates: RateCurve, rate: float) -> Iterator[Finding]:
    """Between where the loss falls fastest and where it begins to rise."""
    told = (
        f"the loss falls fastest at {rates.steepest:.1e} and rises from {rates.lowest:.1e} on; "
        f"this model trains at {rate:.1e}"
    )
    if rate > rates.lowest:
        yield Finding("learning rate", False, f"{told}, which is too much")
    elif rate < rates.steepest / TIMID:
        yield Finding("learning rate", False, f"{told}, which is timid")
    else:
        yield Finding("learning rate", True, told)


def compared(layers: list[Layer]) -> list[Layer]:
    """The nonlinearities, which are like each other; where there are none, all layers."""
    return [layer for layer in layers if layer.nonlinear] or layers


def finite(tree: Any) -> Any:
    """JSON has no infinities: None in their place."""
    if isinstance(tree, dict):
        return {name: finite(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
