"""What a model makes of a text, as tables to print."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from tensorgrad.models.inspection.look import Inspection

MOST = 13
"""Columns of layers; of more some are chosen evenly."""

Rows = list[Sequence[str]]


def losses_table(look: Inspection) -> Iterator[str]:
    """Each token's loss, probability and rank, and what was expected in its place."""
    losses, lens = look.losses, look.lens
    if not len(losses):
        raise ValueError("a single token has no loss: there is nothing before it; give two or more")
    rows: Rows = [("", "token", "loss", "", "p", "rank", "expected")]
    top = max(float(losses.max()), 1e-9)
    rows.append(("0", look.tokens[0], "", "", "", "", ""))
    for t, loss in enumerate(losses):
        bar, rank = "\u2588" * round(12 * loss / top), lens.ranks[-1, t]
        best = f"{look.label(lens.tokens[-1, t, 0])}  {percent(lens.probabilities[-1, t, 0])}"
        numbers = f"{loss:.3f}", bar, percent(lens.true[-1, t]), f"{rank:,}"
        rows.append((str(t + 1), look.tokens[t + 1], *numbers, "" if rank == 1 else best))
    yield from aligned(rows, "><><>><")
    mean = float(losses.mean())
    yield ""
    yield (
        f"mean {mean:.4f} nats a token ({mean / math.log(2):.3f} bits), perplexity "
        f"{math.exp(min(mean, 700)):,.2f}, {int((lens.ranks[-1] == 1).sum())} of {len(losses)} "
        "guessed"
    )


def lens_table(look: Inspection) -> Iterator[str]:
    """The probability of the token that does follow, after each layer."""
    lens = look.lens
    count = len(lens.tokens)
    layers = [round(i) for i in np.linspace(0, count - 1, min(count, MOST))]
    rows: Rows = [("", "token", "next", *(layer_name(i) for i in layers), "expected")]
    for t, token in enumerate(look.tokens):
        last = t + 1 == len(look.tokens)
        chances = ["" if last else percent(lens.true[i, t]) for i in layers]
        follows = "" if last else look.tokens[t + 1]
        rows.append((str(t), token, follows, *chances, look.label(lens.tokens[-1, t, 0])))
    yield "the probability of the token that follows, as each layer leaves it"
    yield ""
    yield from aligned(rows, "><<" + ">" * len(layers) + "<")


def position_table(look: Inspection, position: int) -> Iterator[str]:
    """What each layer expects after one token: the likeliest tokens, best first."""
    lens, T = look.lens, len(look.tokens)
    if not -T <= position < T:
        raise ValueError(f"there is no token {position}; the text has {T}: 0 to {T - 1}")
    t = position % T
    last = t + 1 == T
    rows: Rows = [("layer", "true", "rank", *["expected", ""] * look.top)]
    for i in range(len(lens.tokens)):
        row = [layer_name(i), *(["", ""] if last else
               [percent(lens.true[i, t]), f"{lens.ranks[i, t]:,}"])]  # fmt: skip
        for token, p in zip(lens.tokens[i, t], lens.probabilities[i, t], strict=True):
            row += [look.label(token), percent(p)]
        rows.append(row)
    told = "nothing, the text ends here" if last else look.tokens[t + 1]
    yield f"after token {t}, {look.tokens[t]}, follows: {told}"
    yield ""
    yield from aligned(rows, ">>>" + "<>" * look.top)


def layer_name(state: int) -> str:
    """State 0 is what enters the first block; state i what block i - 1 leaves."""
    return str(state - 1) if state else "embed"


def percent(p: float) -> str:
    return f"{100 * p:.1f}%"


def aligned(rows: Rows, sides: str) -> Iterator[str]:
    """The rows in columns, each to its side, < or >."""
    wide = [max(width(row[i]) for row in rows) for i in range(len(sides))]
    for row in rows:
        cells = []
        for cell, n, side in zip(row, wide, sides, strict=True):
            room = " " * (n - width(cell))
            cells.append(room + cell if side == ">" else cell + room)
        yield "  ".join(cells).rstrip()


def width(text: str) -> int:
    """Columns of a terminal: Chinese takes two, accents none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
