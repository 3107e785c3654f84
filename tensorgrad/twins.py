"""The faster twins of formulas, found by name: Numba kernels for NumPy arrays, CUDA for CuPy's.

A twin answers None where it declines (an unknown dtype, no compiler); small arrays never ask.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

WORTH = 256
"""Elements below which NumPy's formula is as quick as a kernel, whose first call compiles."""

enabled = True
"""Set to False to run every formula as it is written."""

_found: dict[tuple[str, type], Callable[..., Any] | None] = {}


def ask(name: str, like: Any, *args: Any) -> Any:
    """What the kernel `name` makes of `args`; None if there is none for `like`'s size and type."""
    return ask_any(name, like, *args) if like.size >= WORTH else None


def ask_any(name: str, like: Any, *args: Any) -> Any:
    """`ask` for kernels that beat NumPy's formula at any size."""
    if not enabled:
        return None
    key = (name, type(like))
    if key not in _found:
        _found[key] = find(name, type(like))
    kernel = _found[key]
    return None if kernel is None else kernel(*args)


def find(name: str, array_type: type) -> Callable[..., Any] | None:
    """The kernel of this name for this type of array, or None; loads the compiler."""
    if not enabled:
        return None
    if array_type is np.ndarray:
        from tensorgrad.kernels import available

        if not available():
            return None
        home = "maps" if name.startswith("map_") else name.rsplit("_", 1)[0]
        home = "tensorgrad.kernels.cpu." + _HOME.get(name, home)
    else:
        home = "tensorgrad.kernels.cuda"
    return getattr(import_module(home), name, None)


def quicken(function: Any, kernel: str | None, *slopes: str | None, least: int = 2048) -> None:
    """Let an op, and its rules, run these kernels on NumPy arrays of `least` elements and more.

    What a kernel declines goes the old way.  The rules that record themselves stay as they are.
    """
    op = function.op
    if kernel is not None:
        wrap = tried_alone if len(op.inputs) == 1 and not op.params else tried
        op.register(np.ndarray, wrap(kernel, op.implementation(np.ndarray), least))
    if slopes:
        op.plain = tuple(
            rule if slope is None else tried(slope, rule, least)
            for rule, slope in zip(op.rules, slopes, strict=True)
        )


def tried(name: str, general: Callable[..., Any], least: int) -> Callable[..., Any]:
    """The kernel of this name, and where it declines `general`."""

    def run(x: Any, *args: Any) -> Any:
        if type(x) is np.ndarray and x.size >= least:
            answer = ask_any(name, x, x, *args)
            if answer is not None:
                return answer
        return general(x, *args)

    return run


def tried_alone(name: str, general: Callable[..., Any], least: int) -> Callable[..., Any]:
    """`tried` for the array of an op without parameters, at less cost where it is small."""

    def run(x: Any) -> Any:
        if type(x) is not np.ndarray or x.size < least:
            return general(x)
        answer = ask_any(name, x, x)
        return general(x) if answer is None else answer

    return run


_HOME = {"log_softmax_forward": "softmax", "log_softmax_backward": "softmax"}
