"""The loss curve as a picture."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from tensorgrad.atomic import replacing


def plot_losses(
    history: Sequence[dict[str, Any]],
    marks: dict[str, float],
    path: str | os.PathLike[str],
    title: str = "",
    unit: str = "character",
    log10: bool = False,
) -> None:
    """Draw the steps' losses, their moving mean, the evaluations, and `marks` as level lines.

    history: dicts with step and loss, some with train_loss and val_loss; where an entry tells the
    mean of several steps, that is the line.  log10: the height is the logarithm of the loss, told
    on the right, as in the lectures on makemore.  A PNG, replaced whole.
    """
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    history = [step for step in history if step.get("loss") is not None]  # skipped: no number
    if not history:
        return
    x, y = [s["step"] for s in history], [s["loss"] for s in history]
    evaluated = [s for s in history if "val_loss" in s]
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    several = x[0]
    if several == 1:
        axes.plot(x, y, color="#c6dbef", linewidth=0.8, label="loss of each batch")
        axes.plot(x, smoothed(y), color="#2171b5", linewidth=1.8, label="moving mean")
    else:
        axes.plot(x, y, color="#2171b5", linewidth=1.8, label=f"mean loss of {several:,} batches")
    if evaluated:
        at, val = [s["step"] for s in evaluated], [s["val_loss"] for s in evaluated]
        axes.plot(at, val, "o-", color="#d94801", markersize=5, label="validation")
        beside = (-8, 8) if log10 else (8, -4)  # on the right stand the logarithms
        axes.annotate(
            f"{val[-1]:.3f}", (at[-1], val[-1]), beside, textcoords="offset points",
            ha="right" if log10 else "left", color="#d94801", weight="bold", annotation_clip=False,
        )  # fmt: skip
    for name, loss in marks.items():
        axes.axhline(loss, color="#737373", linestyle=(0, (4, 3)), linewidth=1)
        axes.annotate(
            f"{name}  {loss:.2f}", (1, loss), (-4, 4), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", color="#737373", fontsize=9,
        )  # fmt: skip
    if log10:
        draw_log10(axes)
    axes.set_xlim(0, x[-1])
    axes.set_title(title, loc="left", fontsize=11, pad=22)
    axes.set_xlabel("step")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylabel(f"nats per {unit}")
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[["top"] if log10 else ["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper center", ncols=3, bbox_to_anchor=(0.5, 1.1))
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=140)


def draw_log10(axes: Any) -> None:
    """A logarithmic height with nats on the left and their log10 on the right."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(MaxNLocator(8))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:.4g}")
    right = axes.twinx()
    right.set_ylim([math.log10(loss) for loss in axes.get_ylim()])
    right.set_ylabel("log10 of the loss")
    right.spines["top"].set_visible(False)


def smoothed(losses: Sequence[float], reach: int = 25) -> list[float]:
    """Each loss averaged with up to `reach` on either side, as many after as before but at the end.

    So the steep beginning stays where it is.
    """
    sums, n = [0.0, *accumulate(losses)], len(losses)
    spans = [(i - min(i, reach), min(n, i + min(i, reach) + 1)) for i in range(n)]
    return [(sums[stop] - sums[start]) / (stop - start) for start, stop in spans]
