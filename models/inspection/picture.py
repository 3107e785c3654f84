"""The attention of a text as a PNG: the heads of a layer, one head, or each layer's mean."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from tensorgrad.atomic import replacing
from tensorgrad.models.inspection.labels import escaped
from tensorgrad.models.inspection.look import Array, Inspection, chosen

BLUES = ("#ffffff", "#deebf7", "#9ecae1", "#4292c6", "#08519c", "#08306b")
LONGEST = 14
"""Letters of a label; of a longer token the beginning is shown."""


def write_picture(
    look: Inspection, path: str | os.PathLike[str], layer: int | None = None,
    head: int | None = None,
) -> None:  # fmt: skip
    """Draw the attention, in grey what a token may not see; a PNG, replaced whole.

    With a layer its heads side by side; with a head, too, that one map, large; with neither each
    layer's mean over its heads.  ValueError for a layer or head that is not there.
    """
    figure = drawn(panels(look, layer, head), inked(look.tokens))
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=140, bbox_inches="tight", pad_inches=0.12)


def panels(look: Inspection, layer: int | None, head: int | None) -> dict[str, Array]:
    """The maps (T, T) to draw, by title."""
    maps = look.maps
    L, H = maps.shape[:2]
    layer, head = chosen("layer", layer if L else 0, L), chosen("head", head, H)
    if layer is None and head is None:
        return {f"layer {i}, mean of {H} heads": p.mean(0) for i, p in enumerate(maps)}
    if layer is None:
        return {f"layer {i}, head {head}": p[head] for i, p in enumerate(maps)}
    heads = range(H) if head is None else [head]
    return {f"layer {layer}, head {h}": maps[layer, h] for h in heads}


def inked(labels: list[str]) -> list[str]:
    """Labels in letters that the picture's font has; of others the numbers, and no formulas."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont("monospace")).get_charmap()
    texts = ("".join(c if ord(c) in known else escaped(c) for c in text) for text in labels)
    short = (t if len(t) <= LONGEST else f"{t[: LONGEST - 1]}\u2026" for t in texts)
    return [t.replace("$", r"\$") for t in short]


def drawn(maps: dict[str, Array], tokens: list[str]) -> Any:
    """The maps in a grid, one scale of colours for all; the tokens stand at the outer sides."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    n, T = len(maps), len(tokens)
    across = min(n, 4)
    down = -(-n // across)
    cell = 0.17 if n == 1 else 0.125  # inches, which a label of cell points more or less fits
    side = min(max(cell * T, 2.6), 11 if n == 1 else 6)
    size = 72 * min(side / T, cell) * 0.66
    every = math.ceil(5 / size)  # labels of so many cells, where all would be too small to read
    size = max(size, 5.0)
    room = 0.6 + 0.0085 * size * max(map(len, tokens))
    figure = Figure(figsize=(across * side + room + 1.2, down * (side + 0.3) + room),
                    layout="constrained")  # fmt: skip
    grid = figure.subplots(down, across, squeeze=False)
    colours = LinearSegmentedColormap.from_list("blues", BLUES).with_extremes(bad="#f0f1f3")
    norm = PowerNorm(0.5, 0, 1)  # by the root, or late tokens, who look at many, look all alike
    future = ~np.tri(T, dtype=np.bool_)
    places = range(0, T, every)
    names = {"labels": tokens[::every], "fontsize": size, "family": "monospace"}
    image: Any = None
    for i, (axes, (title, p)) in enumerate(zip(grid.flat, maps.items(), strict=False)):
        image = axes.imshow(np.ma.masked_where(future, p), cmap=colours, norm=norm)
        axes.set_title(title, fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color("#afb8c1")
        if i % across == 0:
            axes.set_yticks(places, **names)
            axes.set_ylabel("this token ...")
        if i + across >= n:
            axes.set_xticks(places, rotation=90 if max(map(len, tokens)) > 1 else 0, **names)
            axes.set_xlabel("... looks at")
        axes.tick_params(length=0)
    for axes in list(grid.flat)[n:]:
        axes.set_visible(False)
    bar = figure.colorbar(image, ax=grid, shrink=0.7 if down == 1 else 0.4, pad=0.015, aspect=30)
    bar.set_label("share of the attention")
    bar.set_ticks([0, 0.01, 0.05, 0.1, 0.25, 0.5, 1],
                  labels=["0", "1 %", "5 %", "10 %", "25 %", "50 %", "100 %"])  # fmt: skip
    return figure
