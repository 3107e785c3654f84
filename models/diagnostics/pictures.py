"""Pictures of what goes on inside a model.  The order of layers is the order of the colours.

Colours are viridis', which tell apart also where red and green look alike, and in grey.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tensorgrad.atomic import replacing
from tensorgrad.models.diagnostics.layers import SATURATES, Histogram, Layer
from tensorgrad.models.diagnostics.rates import RateCurve
from tensorgrad.models.diagnostics.updates import Updates

GREY, ORANGE, BLUE = "#737373", "#d94801", "#2171b5"
PLATE = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
"""behind words that lie over curves"""
MOST = 10
"""Curves in a panel; of more layers some are chosen evenly."""

Path = str | os.PathLike[str]


def plot_layers(layers: Sequence[Layer], path: Path) -> None:
    """Histograms of activations and of gradients, and the share that is level, layer by layer."""
    shown = some([layer for layer in layers if layer.nonlinear] or list(layers))
    bars = any(layer.nonlinear for layer in shown)
    figure = figure_of(13 if bars else 9.5, 4.6)
    panels = figure.subplots(1, 3 if bars else 2, width_ratios=[1.2, 1.2, 1][: 3 if bars else 2])
    colours = shades(len(shown))
    for layer, colour in zip(shown, colours, strict=True):
        outline(panels[0], layer.histogram, colour, f"{layer.title}  std {layer.std:.2f}")
        if layer.grad_histogram is not None and layer.grad_std:
            label = f"{layer.title}  std {layer.grad_std:.1e}"
            outline(panels[1], layer.grad_histogram, colour, label)
    for axes, title in zip(panels, ("activations", "gradients of the loss by them"), strict=False):
        axes.set_title(title, loc="left")
        axes.set_yticks([])
        axes.set_xlabel("value")
        axes.set_ylabel("how often")
        axes.ticklabel_format(axis="x", scilimits=(-2, 3), useMathText=True)
        axes.set_ylim(0, 1.12 * ceiling(axes))
        if axes.lines:
            below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.17)}
            axes.legend(frameon=False, fontsize=8, ncols=1 if len(shown) < 4 else 2, **below)
    if bars:
        level_bars(panels[2], shown, colours)
    write(figure, path)


def level_bars(axes: Any, layers: Sequence[Layer], colours: Sequence[Any]) -> None:
    """How much of each nonlinearity passes no gradient, and how many units never do."""
    ys = np.arange(len(layers))
    for y, layer, colour in zip(ys, layers, colours, strict=True):
        share = 100 * (layer.flat or 0)
        axes.barh(y, share, color=colour, height=0.62)
        dead = f", {layer.dead} of {layer.units} units dead" if layer.dead else ""
        inside = share > 55
        axes.annotate(
            f"{share:.1f} %{dead}", (share, y), (-5 if inside else 5, 0),
            textcoords="offset points", va="center", ha="right" if inside else "left", fontsize=9,
            color=contrast(colour) if inside else "#333333",
        )  # fmt: skip
    axes.set_yticks(ys, [layer.title for layer in layers], fontsize=9)
    axes.set_ylim(max(len(layers), 4) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the values")
    saturating = all(layer.kind in SATURATES for layer in layers)
    axes.set_title("saturated" if saturating else "level: no gradient passes", loc="left")


def plot_updates(updates: Updates, path: Path) -> None:
    """log10 of each weight's change beside the weight, step by step."""
    figure = figure_of(9.5, 5)
    axes = figure.subplots()
    names = some(list(updates.ratios))
    for name, colour in zip(names, shades(len(names)), strict=True):
        ratios = np.array(updates.ratios[name])
        ratios[~np.isfinite(ratios)] = np.nan
        steps = np.arange(1, len(ratios) + 1)
        axes.plot(steps, ratios, color=colour, linewidth=0.6, alpha=0.3)
        axes.plot(steps, running(ratios), color=colour, linewidth=1.8, label=name)
    axes.axhline(-3, color=GREY, linestyle=(0, (4, 3)), linewidth=1)
    axes.annotate(
        "a good pace: a thousandth per step", (1, -3), (-4, -12), color=GREY, fontsize=9,
        xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
    )  # fmt: skip
    axes.set_ylim(min(axes.get_ylim()[0], -3.5), max(axes.get_ylim()[1], -2.5))
    axes.set_xlabel("step")
    axes.set_ylabel("log10( std of the update / std of the weight )")
    axes.set_title("how far each step moves each weight", loc="left")
    axes.grid(axis="y", color="#eeeeee")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    write(figure, path)


def plot_rates(rates: RateCurve, rate: float, path: Path) -> None:
    """The loss while the learning rate grows; where it falls fastest, where it turns."""
    figure = figure_of(9, 5)
    axes = figure.subplots()
    axes.semilogx(rates.rates, rates.losses, color="#c6dbef", linewidth=0.8, label="each step")
    axes.semilogx(rates.rates, rates.smooth, color=BLUE, linewidth=2, label="averaged")
    marks = {"falls fastest": rates.steepest, "turns": rates.lowest}
    for (name, x), side in zip(marks.items(), ("right", "left"), strict=True):
        y = rates.smooth[rates.rates.index(x)]
        axes.plot([x], [y], "o", color=BLUE, markersize=7)
        axes.annotate(
            f"{name}: {x:.1e}", (x, y), (-10 if side == "right" else 10, -14), ha=side,
            textcoords="offset points", color=BLUE, weight="bold", bbox=PLATE,
        )  # fmt: skip
    if rates.rates[0] <= rate <= rates.rates[-1]:
        axes.axvline(rate, color=ORANGE, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.annotate(
            f"set: {rate:.1e}", (rate, 1), (5, -12), xycoords=("data", "axes fraction"),
            textcoords="offset points", color=ORANGE, bbox=PLATE,
        )  # fmt: skip
    low, first = min(rates.losses), rates.smooth[0]
    room = max(first - low, 1e-3 * abs(first))  # where it explodes the curve may leave the picture
    axes.set_ylim(low - 0.15 * room, first + 0.8 * room)
    axes.set_xlabel("learning rate, growing step by step")
    axes.set_ylabel("loss")
    axes.set_title("a short training at ever higher rates", loc="left")
    axes.grid(color="#eeeeee")
    axes.legend(frameon=False, loc="lower left")
    write(figure, path)


# ---- parts


def figure_of(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    return Figure(figsize=(width, height), layout="constrained")


def write(figure: Any, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=140)


def shades(n: int) -> list[Any]:
    """n colours from dark to light, the last still readable on white."""
    from matplotlib import colormaps

    return [colormaps["viridis"](x) for x in np.linspace(0, 0.86, n)]


def contrast(colour: Any) -> str:
    """Black or white, whichever reads on the colour."""
    light: float = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return "#222222" if light > 0.5 else "white"


def some(things: list[Any]) -> list[Any]:
    """At most MOST of them, the first and the last included."""
    if len(things) <= MOST:
        return things
    return [things[round(i)] for i in np.linspace(0, len(things) - 1, MOST)]


def outline(axes: Any, histogram: Histogram, colour: Any, label: str) -> None:
    edges, density = histogram
    middles = [(a + b) / 2 for a, b in pairwise(edges)]
    axes.plot(middles, density, color=colour, linewidth=1.6, label=label)


def ceiling(axes: Any) -> float:
    """A height that shows the curves: where one spike towers over all, it is cut."""
    tops = sorted(float(np.max(line.get_ydata())) for line in axes.lines)
    if not tops:
        return 1.0
    body = max(float(np.quantile(line.get_ydata(), 0.95)) for line in axes.lines)
    return min(tops[-1], 4 * body) or 1.0


def running(ys: Any) -> list[float]:
    """The mean over a twentieth of the curve on either side; nan where there is nothing."""
    reach = max(1, len(ys) // 20)
    parts = [ys[max(0, i - reach) : i + reach + 1] for i in range(len(ys))]
    return [float(np.nanmean(p)) if np.isfinite(p).any() else math.nan for p in parts]
