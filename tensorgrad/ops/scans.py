"""Running extremes, the running log-sum-exp, and differences of neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.dtypes import bool_, category
from tensorgrad.kinds import discrete, general
from tensorgrad.ops.choices import where
from tensorgrad.ops.elementwise import exp
from tensorgrad.ops.reduce import _is_half, numpy_names
from tensorgrad.ops.select import ValuesAndIndices, _picked
from tensorgrad.ops.shape import _flip, _reshape, cat, one_dim, split
from tensorgrad.publish import public, publish

_cummax_places = discrete(
    "cummax_places", lambda xp, x, /, dim: _running_places(xp, x, dim, xp.maximum)
)
_cummin_places = discrete(
    "cummin_places", lambda xp, x, /, dim: _running_places(xp, x, dim, xp.minimum)
)
_logcumsumexp = general(
    "logcumsumexp", lambda xp, x, /, dim: _running_logsumexp(xp, x, dim),
    dx=lambda g, x, out, dim: exp(_less(x, out)) * _decayed(g, out, dim),
)  # fmt: skip


def _running(xp: Any, f: Any, x: Any, dim: int) -> Any:
    """f(f(x[0], x[1]), x[2]), ... along a dim; CuPy in rounds that double it."""
    if xp is np:
        return f.accumulate(x, dim)
    step, n = 1, x.shape[dim]
    while step < n:
        head, tail, before = (
            x[(slice(None),) * dim + (part,)]
            for part in (slice(step), slice(step, None), slice(n - step))
        )
        x = xp.concatenate((head, f(before, tail)), dim)
        step *= 2
    return x


def _running_places(xp: Any, x: Any, dim: int, f: Any) -> Any:
    """Where the extreme so far stands: of equals the last, and NaN beats everything."""
    if not x.size:
        return xp.zeros(x.shape, np.int64)
    best = _running(xp, f, x, dim)
    hit = (x == best) | (x != x)
    places = xp.arange(x.shape[dim]).reshape(tuple(-1 if d == dim else 1 for d in range(x.ndim)))
    return _running(xp, xp.maximum, xp.where(hit, places, 0), dim)


def _running_logsumexp(xp: Any, x: Any, dim: int) -> Any:
    if category(x.dtype) < 2:
        raise TypeError("expected floats; use x.float()")
    if not x.size:
        return x.copy()
    wide = x.astype(np.float32) if _is_half(x) else x
    return _running(xp, xp.logaddexp, wide, dim).astype(x.dtype, copy=False)


def _less(x: Any, out: Any) -> Any:
    """x - out, 0 where both are the same infinity."""
    return where(x == out, 0, x - out)


def _decayed(g: Any, out: Any, dim: int) -> Any:
    """h[i] = g[i] + exp(out[i] - out[i + 1]) h[i + 1] from the end, in rounds that double it.

    No factor exceeds 1, so nothing overflows, however far apart the numbers are.
    """
    n, step = g.shape[dim], 1
    if n < 2:
        return g
    h = _flip(g, (dim,))
    back = _flip(out, (dim,))
    first, later = split(back, (1, n - 1), dim)
    before = split(back, (n - 1, 1), dim)[0]
    factor = cat((where(first == first, 0, first), exp(_less(later, before))), dim)
    while step < n:
        head, tail = split(h, (step, n - step), dim)
        f_head, f_tail = split(factor, (step, n - step), dim)
        h = cat((head, tail + f_tail * split(h, (n - step, step), dim)[0]), dim)
        factor = cat((f_head, f_tail * split(factor, (n - step, step), dim)[0]), dim)
        step *= 2
    return _flip(h, (dim,))


def _extremes(name: str, search: Any, x: Any, dim: int) -> ValuesAndIndices:
    d = one_dim(name, dim, x.ndim)
    if x.ndim:
        return _picked(x, search(x, d), d)
    found = _extremes(name, search, _reshape(x, (1,)), 0)
    return ValuesAndIndices(*(_reshape(part, ()) for part in found))


@public()
@numpy_names
def cummax(x: Any, dim: int) -> ValuesAndIndices:
    """(values, indices) of the largest of x[0], ..., x[i] along a dim; of equals the last."""
    return _extremes("cummax", _cummax_places, x, dim)


@public()
@numpy_names
def cummin(x: Any, dim: int) -> ValuesAndIndices:
    """(values, indices) of the smallest of x[0], ..., x[i] along a dim; of equals the last."""
    return _extremes("cummin", _cummin_places, x, dim)


@public()
@numpy_names
def logcumsumexp(x: Any, dim: int) -> Any:
    """out[i] = log(exp(x[0]) + ... + exp(x[i])) along a dim; nothing overflows."""
    d = one_dim("logcumsumexp", dim, x.ndim)
    return _logcumsumexp(x, d) if x.ndim else x.clone()


@public()
def diff(x: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """out[i] = x[i + 1] - x[i] along a dim, n times over; of bools whether they differ.

    prepend, append: tensors joined to x along the dim first.
    """
    if not x.ndim:
        raise RuntimeError("diff: a 0-d tensor has no neighbours; expected at least one dim")
    if n < 0:
        raise RuntimeError(f"diff: n must not be negative, it is {n}")
    parts = [part for part in (prepend, x, append) if part is not None]
    for part in parts:
        if part.ndim != x.ndim:
            raise RuntimeError(
                f"diff: prepend and append need {x.ndim} dims like x, not shape {part.shape}"
            )
    if not n:
        return x.clone()
    d = one_dim("diff", dim, x.ndim)
    x = cat(parts, d) if len(parts) > 1 else x
    for _ in range(min(n, x.shape[d])):
        size = x.shape[d]
        high = split(x, (1, size - 1), d)[1]
        low = split(x, (size - 1, 1), d)[0]
        x = high ^ low if x.dtype == bool_ else high - low
    return x


__all__ = publish(globals())
