"""How a tensor prints: in PyTorch's form, aligned, four digits, long dims abridged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorgrad.dtypes import bool_, category, get_default_dtype, int64

PRECISION = 4  # digits after the point
WIDTH = 80  # columns
MANY, EDGE = 1000, 3  # beyond so many elements only so many at each end of a dim
_HEAD = "tensor("


def show(x: Any) -> str:
    """tensor([[1.0000, 2.5000]], grad_fn=<mul>)"""
    array = x.array if isinstance(x.array, np.ndarray) else x.array.get()
    notes = []
    if x.array is not array:
        notes.append(f"device='{x.device}'")
    if not array.size and array.shape != (0,):
        notes.append(f"size={array.shape}")
    usual = (get_default_dtype(), int64, bool_) if array.size else (get_default_dtype(),)
    if array.dtype not in usual:
        notes.append(f"dtype={array.dtype}")
    node = x.history()
    if node is not None:
        notes.append("requires_grad=True" if node.op is None else f"grad_fn=<{node.name()}>")
    text = _HEAD + (numbers(array) if array.size else "[]")
    used = len(text) - text.rfind("\n") + 1
    for note in notes:
        if used + len(note) + 2 > WIDTH:
            text += f",\n{' ' * len(_HEAD)}{note}"
            used = len(_HEAD) + len(note)
        else:
            text += f", {note}"
            used += len(note) + 2
    return text + ")"


def numbers(array: Any) -> str:
    """The elements, nested in brackets, as they stand behind "tensor("."""
    abridged = array.size > MANY
    write, wide = _writer(_edges(array) if abridged else array)
    return _nested(array, len(_HEAD), abridged, write, wide)


def _nested(
    array: Any, indent: int, abridged: bool, write: Callable[[Any], str], wide: int
) -> str:
    if not array.ndim:
        return write(array.item())
    cut = abridged and len(array) > 2 * EDGE
    parts = [*array[:EDGE], None, *array[-EDGE:]] if cut else list(array)
    if array.ndim == 1:
        words: list[str] = [" ..." if v is None else write(v.item()) for v in parts]
        room = max(1, (WIDTH - indent) // (wide + 2))
        lines = [", ".join(words[i : i + room]) for i in range(0, len(words), room)]
        return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
    texts: list[str] = [
        "..." if v is None else _nested(v, indent + 1, abridged, write, wide) for v in parts
    ]
    gap: str = "," + "\n" * (array.ndim - 1) + " " * (indent + 1)
    return f"[{gap.join(texts)}]"


def _edges(array: Any) -> Any:
    """The elements of an abridged array that are shown."""
    for dim, n in enumerate(array.shape):
        if n > 2 * EDGE:
            ends = [slice(None, EDGE), slice(-EDGE, None)]
            array = np.concatenate([array[(slice(None),) * dim + (end,)] for end in ends], dim)
    return array


def _writer(array: Any) -> tuple[Callable[[Any], str], int]:
    """How to write one element, every one as wide as the widest; and that width."""
    kind = category(array.dtype)
    plain: Callable[[Any], str] = str
    wide = 1
    if kind < 2:
        wide = max(len(str(v)) for v in array.ravel().tolist())
    elif kind == 2:
        plain, wide = _floats(array.ravel().astype(np.float64))
    else:
        (re, left), (im, right) = (
            _floats(part.ravel().astype(np.float64)) for part in (array.real, array.imag)
        )
        wide = left + right + 1
        plain = lambda v: f"{re(v.real)}{'+' if v.imag >= 0 else ''}{im(v.imag)}j"  # noqa: E731
        return plain, wide
    return (lambda v: plain(v).rjust(wide)), wide


def _floats(values: Any) -> tuple[Callable[[float], str], int]:
    """One form for all: whole numbers "3.", four digits, or powers of ten."""
    seen = np.abs(values[np.isfinite(values) & (values != 0)])
    whole = bool((seen == np.trunc(seen)).all())
    high, low = seen.max(initial=0.0), seen.min(initial=math.inf)
    if seen.size and (high / low > 1000 or high > 1e8 or (low < 1e-4 and not whole)):
        form = f".{PRECISION}e"
    else:
        form = ".0f" if whole else f".{PRECISION}f"

    def write(value: float) -> str:
        return format(value, form) + ("." if form == ".0f" and math.isfinite(value) else "")

    shown = values[np.isfinite(values) & (values != 0)].tolist()  # the others may stand out
    return write, max((len(write(v)) for v in shown), default=1)
