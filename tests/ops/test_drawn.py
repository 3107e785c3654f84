"""200 drawn cases for every row of every table: value and first gradient equal PyTorch's.

Shapes, layouts and values are drawn; what PyTorch refuses must be refused, and does not count.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tests.ops.compare import assert_same, floats, gradients, leaves, outcome, tensors
from tests.ops.table import Row, Shape

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning"),
]

CASES = 200
ROWS = [
    row
    for file in sorted(Path(__file__).parent.glob("table*.py"))
    for row in import_module(f"tests.ops.{file.stem}").ROWS
]


# ---- shapes: from those of the row to any at all; a row goes as far as PyTorch takes it


def same(row: Row, draw: Any) -> list[Shape]:
    """The row's own."""
    return row.shapes


def resized(row: Row, draw: Any) -> list[Shape]:
    """Equal sizes replaced by equal sizes, zero and one among them."""
    sizes = {n: resize(row, n, draw) for shape in row.shapes for n in shape}
    return [tuple(sizes[n] for n in shape) for shape in row.shapes]


def resize(row: Row, n: int, draw: Any) -> int:
    others = [1, 2, 3, 4, n + 1, 2 * n] + ([] if "empty" in row.lacks else [0])
    return n if draw.random() < 0.5 else int(draw.choice(others))


def broadcast(row: Row, draw: Any) -> list[Shape]:
    """Some dims of some inputs of size one, some leading dims gone."""
    found = []
    for shape in resized(row, draw):
        kept = shape if draw.random() < 0.7 else shape[draw.integers(0, len(shape) + 1) :]
        found.append(tuple(1 if draw.random() < 0.25 else n for n in kept))
    return found


def deeper(row: Row, draw: Any) -> list[Shape]:
    """A leading dim more, in all inputs or in some."""
    extra = int(draw.integers(1, 4))
    everywhere = draw.random() < 0.5
    return [(extra, *s) if everywhere or draw.random() < 0.5 else s for s in resized(row, draw)]


def any_shapes(row: Row, draw: Any) -> list[Shape]:
    """Any shapes that broadcast together."""
    least = 1 if "empty" in row.lacks else 0
    whole = tuple(int(n) for n in draw.integers(least, 5, draw.integers(least, 5)))
    found = []
    for _ in row.shapes:
        part = whole[draw.integers(0, len(whole) + 1) :] if draw.random() < 0.3 else whole
        found.append(tuple(1 if draw.random() < 0.2 else n for n in part))
    return found


SHAPES = (same, resized, broadcast, deeper, any_shapes)


class Vary(NamedTuple):
    """How far the shapes of a row may vary, where not as far as PyTorch takes them; and why."""

    why: str
    kinds: tuple[Any, ...] = SHAPES
    fits: Any = None  # which shapes, a list of them, make sense
    stretched: bool = True  # whether inputs may be of size one, and be expanded


VARY = {
    "clamp tensors": Vary(
        "PyTorch's gradient fails where x itself is broadcast",
        fits=lambda s: outcome(lambda: np.broadcast_shapes(*s)) == s[0],
    ),
    "var correction": Vary(
        "where the correction exceeds the count PyTorch divides by a negative number",
        fits=lambda s: len(s[0]) > 2 and s[0][0] * s[0][2] > 2,
    ),
    "take_along_dim": Vary(
        "PyTorch reads beyond the end where an index is broadcast", fits=lambda s: s[0][-1:] > (2,)
    ),
    "scatter": Vary(
        "PyTorch's gradient fails for a src larger than its index",
        fits=lambda s: s[1] == (2, 2),
    ),
    "scatter_add": Vary(
        "PyTorch's gradient fails for a src larger than its index",
        fits=lambda s: s[1] == (2, 3),
    ),
    **dict.fromkeys(
        ("batch_norm", "batch_norm images", "batch_norm evaluation"),
        Vary(
            "PyTorch's gradient is wrong for an expanded weight, and it takes a 0-d one",
            (same, resized),
            stretched=False,
        ),
    ),
    "adaptive_avg_pool2d one": Vary(
        "PyTorch takes any rank where the result has one place", (same, resized)
    ),
    "max_pool2d indices": Vary(
        "PyTorch writes beyond the end where a window lies in the padding",
        fits=lambda s: min(s[0][-2:], default=0) > 4,
    ),
    "nanmedian dim": Vary("which of nothing but NaN is taken is open", (same,)),
    **dict.fromkeys(
        ("linalg.cholesky", "linalg.cholesky upper"),
        Vary("only square ones are made definite", fits=lambda s: s[0][-2:-1] == s[0][-1:]),
    ),
    "bilinear": Vary("PyTorch takes biases of more dims", (same, resized)),
    "addmv": Vary("PyTorch refuses some sums over nothing", fits=lambda s: 0 not in s[1]),
    "attention": Vary("PyTorch does not look at shapes of which one is empty", (same, resized)),
    "attention causal": Vary("as attention", (same, resized)),
}


# ---- layouts: how the same elements may lie in memory

LAYOUTS = {
    "in order": lambda a: a,
    "transposed": lambda a: np.asfortranarray(a),
    "stepped": lambda a: np.repeat(a, 2, -1)[..., ::2],
    "offset": lambda a: np.concatenate([a, a])[len(a) :],
    "reversed": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "reversed last": lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1],
    "read-only": lambda a: np.broadcast_to(a, (2, *a.shape))[1],
}


class Case(NamedTuple):
    """Inputs as they are given, the layout of each, and the shapes they are stretched to."""

    arrays: list[np.ndarray]
    layouts: list[str]
    wide: list[Shape]
    shapes: str  # how the shapes were drawn


def drawn(row: Row, kind: Any, draw: Any) -> Case:
    vary = VARY.get(row.name, Vary(""))
    wide = kind(row, draw)
    unfit = vary.fits is not None and not vary.fits(wide)
    if unfit or ("empty" in row.lacks and not all(wide)):
        wide = row.shapes
    narrow, layouts = list(wide), ["in order"] * len(wide)
    for i, shape in enumerate(wide):
        if shape and "strided" not in row.lacks and draw.random() < 0.5:
            layouts[i] = str(draw.choice(list(LAYOUTS)))
        free = vary.stretched and not {"stretched", "strided"} & set(row.lacks)
        if shape and free and draw.random() < 0.1:
            d = draw.integers(0, len(shape))
            narrow[i] = tuple(1 if j == d and n else n for j, n in enumerate(shape))
    return Case(values(row, narrow, draw), layouts, wide, kind.__name__)


def values(row: Row, shapes: list[Shape], draw: Any) -> list[np.ndarray]:
    """The places of a grid, shaken, in random order: no two are equal or close."""
    domains = row.domain if isinstance(row.domain, list) else [row.domain] * len(shapes)
    found = []
    for shape, (low, high) in zip(shapes, domains, strict=True):
        n = int(np.prod(shape))
        places = draw.permutation(n) + 0.5 + draw.uniform(-0.3, 0.3, n)
        found.append((low + (high - low) * places / max(n, 1)).reshape(shape))
    return found


# ---- the comparison


def answer(t: Any, row: Row, case: Case) -> Any:
    """Values and gradients, or the class of the error."""

    def run() -> Any:
        if t is torch:
            xs = leaves(case.arrays, t)
        else:
            laid = [LAYOUTS[how](a) for how, a in zip(case.layouts, case.arrays, strict=True)]
            xs = [tg.from_numpy(a).requires_grad_() for a in laid]
        wide = [
            x if tuple(x.shape) == shape else x.expand(shape)
            for x, shape in zip(xs, case.wide, strict=True)
        ]
        result = tensors(row.call(t, *wide))
        return result, gradients(t, floats(result), xs)

    return outcome(run)


def agree(row: Row, case: Case) -> bool:
    """Whether the case counts; AssertionError where the two differ."""
    theirs = answer(torch, row, case)
    mine = answer(tg, row, case)
    if isinstance(theirs, type):
        if theirs is not NotImplementedError:
            assert isinstance(mine, type), f"{theirs.__name__} in PyTorch, here a result"
        return False
    if isinstance(mine, type) and not any(x.numel() for x in theirs[0]):
        return False  # PyTorch looks at nothing where the result is empty
    assert not isinstance(mine, type), f"{mine.__name__}, but in PyTorch a result"
    assert_same(mine[0], theirs[0], what="value")
    assert_same(mine[1], theirs[1], what="gradient")
    return True


def counted(row: Row, cases: int, seed: int = 0) -> Iterator[Case]:
    """Cases that PyTorch takes; kinds of shapes that it seldom takes are drawn seldom."""
    draw = np.random.default_rng([zlib.crc32(row.name.encode()), seed])
    kinds = VARY.get(row.name, Vary("")).kinds
    tried = dict.fromkeys(kinds, 1)
    taken = dict.fromkeys(kinds, 1)
    found = 0
    while found < cases:
        odds = np.array([max(taken[k] / tried[k], 0.02) for k in kinds])
        kind = kinds[draw.choice(len(kinds), p=odds / odds.sum())]
        case = drawn(row, kind, draw)
        try:
            good = agree(row, case)
        except Exception as error:
            error.add_note(f"{row.name}, case {sum(tried.values())}, {case}")
            raise
        tried[kind] += 1
        taken[kind] += good
        if good:
            found += 1
            yield case


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_drawn_cases_equal_pytorch(row: Row):
    cases = list(counted(row, CASES))
    assert len(cases) == CASES
    assert len({how for case in cases for how in case.layouts}) > 1 or "strided" in row.lacks
