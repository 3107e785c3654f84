"""Anomaly mode: where was this NaN or inf born?  It names the op, the shapes and the user's line.

While it is on, every op is watched and every node remembers its line; off, it costs nothing.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from tensorgrad import mode
from tensorgrad.backend import is_array, xp_of
from tensorgrad.dtypes import is_differentiable
from tensorgrad.node import Node
from tensorgrad.op import PICK


class set_detect_anomaly:
    """Turn anomaly mode on or off in this thread; in a with-statement, for the block."""

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self._before = _state()
        _switch(mode, mode and check_nan)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: Any) -> None:
        _switch(*self._before)


class detect_anomaly:
    """with detect_anomaly(): the op that first makes a NaN or inf raises, forward or backward.

    check_nan=False only remembers lines: errors of a later backward then name the forward line.
    """

    def __init__(self, check_nan: bool = True) -> None:
        self._check = check_nan
        self._before: list[tuple[bool, bool]] = []

    def __enter__(self) -> None:
        self._before.append(_state())
        _switch(True, self._check)

    def __exit__(self, *error: Any) -> None:
        _switch(*self._before.pop())


def is_anomaly_enabled() -> bool:
    """Whether this thread's operations are watched."""
    return _state()[0]


def is_anomaly_check_nan_enabled() -> bool:
    """Whether a NaN or inf raises."""
    return _state()[1]


def _state() -> tuple[bool, bool]:
    return _watch in mode.thread.watchers, mode.thread.anomaly


def _switch(on: bool, check: bool) -> None:
    was, checked = _state()
    if on != was:
        others = tuple(w for w in mode.thread.watchers if w is not _watch)
        mode.thread.watchers = (*others, _watch) if on else others
        mode.be_careful(on - was)
    if check != checked:
        mode.thread.anomaly = check
        mode.be_careful(check - checked)


def _watch(op: Any, values: Any, params: Any, outs: Any, results: Any) -> None:
    """Called after every op: its nodes remember the user's line, its results are looked at."""
    line = _line()
    for result in results:
        node = getattr(result, "node", None)
        if node is not None:
            _remember(node.parents[0] if node.op is PICK else node, line)
    if mode.thread.anomaly:
        for out, _ in zip(outs, results, strict=False):  # residuals come behind
            _look(op, [*values, *params], out, line)


def _look(op: Any, given: list[Any], out: Any, line: str) -> None:
    """Raise if `out` holds a NaN that no operand has, or an inf where all operands are finite."""
    if not is_array(out) or not is_differentiable(out.dtype):
        return
    xp = xp_of(out)
    if xp.isfinite(out).all():
        return
    seen = list(_numbers(given))
    nan, inf = xp.isnan(out), xp.isinf(out)
    if nan.any() and not any(xp_of(v).isnan(v).any() for v in seen):
        kind, bad = "nan", nan
    elif inf.any() and all(xp_of(v).isfinite(v).all() for v in seen):
        kind, bad = "inf", inf
    else:
        return
    at = tuple(int(i) for i in np.argwhere(bad if isinstance(bad, np.ndarray) else bad.get())[0])
    shapes = " and ".join(str(v.shape) for v in given if is_array(v)) or "numbers"
    raise RuntimeError(
        f"anomaly: {op.name} of {shapes} made {int(bad.sum())} {kind} in its result of shape "
        f"{out.shape}, the first at {at}; {line}"
    )


def _numbers(given: Any) -> Iterator[Any]:
    """The floats among operands and parameters, alone or in sequences."""
    for value in given:
        if isinstance(value, (list, tuple)):
            yield from _numbers(value)
        elif isinstance(value, float) or (is_array(value) and is_differentiable(value.dtype)):
            yield np.float64(value) if isinstance(value, float) else value


# ---- lines


def _remember(node: Node, line: str) -> None:
    extra = getattr(node, "extra", None)
    if extra is None:
        node.extra = {"line": line}  # not node.extras(): backward need not look for a hook here
    else:
        extra["line"] = line


def describe(node: Node) -> str:
    """The forward line of a node, or how to learn it."""
    line = node.peek("line")
    if line is None:
        return "run forward, too, under autograd.detect_anomaly() to see its line"
    return str(line)


def _line() -> str:
    """'forward line file.py:13: `y = x.log()`': the innermost frame that is not the library's."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _ours(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    path, number = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(path, number, frame.f_globals).strip()
    return f"forward line {path}:{number}" + (f": `{text}`" if text else "")


def _ours(module: str) -> bool:
    """Whether a module is the library's; its models count as a user's."""
    return module.partition(".")[0] == "tensorgrad" and not module.startswith("tensorgrad.models.")
