"""The middle of a sample: median, quantile; sums and means that leave out NaN; searchsorted."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.convert import cast, tensor
from tensorgrad.dtypes import as_dtype, bool_, category, float32, float64, int32, int64
from tensorgrad.kinds import discrete, general
from tensorgrad.ops.choices import where
from tensorgrad.ops.compare import isnan
from tensorgrad.ops.elementwise import ceil, floor, lerp, round
from tensorgrad.ops.indexing import _gather
from tensorgrad.ops.reduce import _prepared, _sum, norm, numpy_names
from tensorgrad.ops.select import ValuesAndIndices, _picked, _sortable, sort
from tensorgrad.ops.shape import _reshape, movedim, one_dim
from tensorgrad.publish import public, publish
from tensorgrad.tensor import Operable, Tensor

# ---- without NaN


@public()
@numpy_names
def nansum(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """out = sum over dims of what is not NaN."""
    x, dims = _prepared("nansum", x, dim, dtype)
    return _sum(where(isnan(x), 0, x) if category(x.dtype) == 2 else x, dims, keepdim)


@public()
@numpy_names
def nanmean(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """out = mean over dims of what is not NaN."""
    dims = _prepared("nanmean", x, dim, None, floats=True)[1]
    x = x if dtype is None else cast(x, as_dtype(dtype))
    count = _sum(cast(x == x, int64), dims, keepdim)
    return nansum(x, dims, keepdim) / count


# ---- the median: the lower of two in the middle

_median_place = discrete(
    "median_place", lambda xp, x, /, dim, skip: _middle_place(xp, x, dim, skip)
)
_median = general(
    "median", lambda xp, x, /, skip: x[_middle_place(xp, x, 0, skip)].reshape(()),
    dx=lambda g, x, out: _shared(g, (x == out) | (isnan(x) & isnan(out))),
)  # fmt: skip


def _middle_place(xp: Any, x: Any, dim: int, skip: bool) -> Any:
    """Where the lower median stands, the dim at size one.

    One NaN is the median unless it is to be skipped, and then only where all are NaN.
    """
    x, n = _sortable(x), x.shape[dim]
    if category(x.dtype) != 2:
        return _kth(xp, x, (n - 1) // 2, dim)
    nan = x != x
    if not nan.any():
        return _kth(xp, x, (n - 1) // 2, dim)
    if not skip:
        return xp.where(
            nan.any(dim, keepdims=True), nan.argmax(dim, keepdims=True),
            _kth(xp, x, (n - 1) // 2, dim),
        )  # fmt: skip
    counts = xp.sum(~nan, dim, keepdims=True)
    return xp.take_along_axis(xp.argsort(x, dim), xp.maximum(counts - 1, 0) // 2, dim)


def _kth(xp: Any, x: Any, k: int, dim: int) -> Any:
    order = xp.argpartition(x, k, dim)
    return order[(slice(None),) * dim + (slice(k, k + 1),)].copy()


def _shared(g: Any, top: Any) -> Any:
    shares = cast(top, g.dtype)
    return g * (shares / _sum(shares, (0,), True))


@public()
@numpy_names
def median(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The element in the middle, the lower of two; with a dim, (values, indices) along it.

    NaN where there is one.  Over all elements ties share the gradient.
    """
    return _middle("median", x, dim, keepdim, False)


@public()
@numpy_names
def nanmedian(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The median of what is not NaN; with a dim, (values, indices) along it."""
    return _middle("nanmedian", x, dim, keepdim, True)


def _middle(name: str, x: Any, dim: int | None, keepdim: bool, skip: bool) -> Any:
    if x.dtype == bool_:
        raise RuntimeError(f"{name}: not for bools; use x.int()")
    if dim is None:
        if not x.numel():
            nothing = float("nan") if category(x.dtype) == 2 else np.iinfo(x.dtype).min
            return cast(_sum(_reshape(x, (0,)), (0,), False) + nothing, x.dtype)
        return _median(_reshape(x, (x.numel(),)), skip)
    d = one_dim(name, dim, x.ndim)
    if not x.ndim:
        return ValuesAndIndices(
            *(_reshape(part, ()) for part in _middle(name, _reshape(x, (1,)), 0, True, skip))
        )
    if not x.shape[d]:
        raise IndexError(f"{name}: dim {dim} of shape {x.shape} has nothing in the middle")
    return _picked(x, _median_place(x, d, skip), d, keepdim)


# ---- quantiles

_BETWEEN = ("linear", "lower", "higher", "midpoint", "nearest")


@public()
@numpy_names
def quantile(
    x: Any, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Any:
    """out = what a share q of the elements along a dim (of all by default) does not exceed.

    q: a number in [0, 1] or a vector, whose dim then comes first.  The place q (n - 1) in the
    order falls between two elements: interpolation is linear, lower, higher, midpoint or nearest.
    """
    return _quantile("quantile", x, q, dim, keepdim, interpolation, False)


@public()
@numpy_names
def nanquantile(
    x: Any, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Any:
    """quantile of what is not NaN."""
    return _quantile("nanquantile", x, q, dim, keepdim, interpolation, True)


def _quantile(
    name: str, x: Any, q: Any, dim: int | None, keepdim: bool, between: str, skip: bool
) -> Any:
    if x.dtype not in (float32, float64):
        raise RuntimeError(f"{name}: expected a tensor of float32 or float64, not {x.dtype}")
    if not x.numel():
        raise RuntimeError(f"{name}: a tensor of shape {x.shape} has no quantiles")
    if between not in _BETWEEN:
        raise RuntimeError(f"{name}: interpolation must be one of {_BETWEEN}, not {between!r}")
    share = _share(name, x, q)
    kept: tuple[int, ...]
    if dim is None:
        rows = _reshape(x, (x.numel(),))
        kept = (1,) * x.ndim if keepdim else ()
    else:
        d = one_dim(name, dim, x.ndim)
        rows = movedim(x, d, -1) if x.ndim else _reshape(x, (1,))
        kept = tuple(1 if i == d else n for i, n in enumerate(x.shape) if keepdim or i != d)
    ordered = sort(rows, -1).values
    out = _between(ordered, _places(ordered, _reshape(share, (share.numel(),)), skip), between)
    return _reshape(movedim(out, -1, 0), (*share.shape, *kept))


def _share(name: str, x: Any, q: Any) -> Any:
    if not isinstance(q, Operable):
        if not isinstance(q, (int, float)):
            raise TypeError(f"{name}: q must be a number or a tensor, not {type(q).__name__}")
        q = tensor(q, dtype=x.dtype, device=x.device)
    if q.dtype != x.dtype:
        raise RuntimeError(f"{name}: q has dtype {q.dtype}, the tensor {x.dtype}")
    if q.ndim > 1:
        raise RuntimeError(f"{name}: q must be a number or a vector, not of shape {q.shape}")
    if not ((q >= 0) & (q <= 1)).all():
        raise RuntimeError(f"{name}: q must lie in [0, 1], it is {q}")
    return q


def _places(ordered: Any, share: Any, skip: bool) -> Any:
    """q (n - 1) for every row, (..., Q): that of the last, a NaN, in a row that has one."""
    if skip:
        count = _sum(cast(ordered == ordered, ordered.dtype), (ordered.ndim - 1,), True)
        return where(count > 0, share * (count - 1), 0)
    n = ordered.shape[-1]
    return where(isnan(ordered).any(-1, keepdim=True), n - 1, share * (n - 1))


def _between(ordered: Any, place: Any, how: str) -> Any:
    if how in ("lower", "higher", "nearest"):
        rounded = {"lower": floor, "higher": ceil, "nearest": round}[how](place)
        return _gather(ordered, cast(rounded, int64), ordered.ndim - 1)
    low = floor(place)
    below, above = (_gather(ordered, cast(p, int64), ordered.ndim - 1) for p in (low, ceil(place)))
    return lerp(below, above, 0.5 if how == "midpoint" else place - low)


# ---- places in an order

_search = discrete("searchsorted", lambda xp, s, v, /, right: _bisected(xp, s, v, right))


def _bisected(xp: Any, s: Any, v: Any, right: bool) -> Any:
    """Binary search in the last dim of all rows at once: s (..., n), v (..., m) -> (..., m)."""
    if s.ndim == 1 and s.size and bool(s[-1] == s[-1]):  # the libraries place NaN otherwise
        return xp.searchsorted(s, v, "right" if right else "left")
    low = xp.zeros(v.shape, np.int64)
    high = xp.full(v.shape, s.shape[-1], np.int64)
    for _ in range(int(s.shape[-1]).bit_length()):
        middle = (low + high) // 2
        found = xp.take_along_axis(s, xp.minimum(middle, s.shape[-1] - 1), -1)
        later = (low < high) & ~((found > v) if right else (found >= v))
        high = xp.where((low < high) & ~later, middle, high)
        low = xp.where(later, middle + 1, low)
    return low


@public(method=False)
def searchsorted(
    sorted_sequence: Any, input: Any, *, out_int32: bool = False, right: bool = False,
    side: str | None = None, sorter: Any = None,
) -> Any:  # fmt: skip
    """out[..., j] = where input[..., j] belongs in the ascending sorted_sequence[..., :].

    Before its equals, or behind them with right=True or side="right".  One sequence of shape (n)
    serves any input; (*, n) needs inputs of shape (*, m), sizes alike.
    sorter: the indices that sort the sequence, where it is not sorted.
    """
    s, v = sorted_sequence, input
    if side not in (None, "left", "right"):
        raise RuntimeError(f"searchsorted: side must be 'left' or 'right', not {side!r}")
    if side == "left" and right:
        raise RuntimeError("searchsorted: side='left' contradicts right=True; leave one out")
    if not s.ndim:
        raise RuntimeError("searchsorted: the sequence must have a dim, it is 0-d")
    if not isinstance(v, Operable):
        if s.ndim > 1:
            raise RuntimeError(
                f"searchsorted: a number can only be found in a vector, not in shape {s.shape}"
            )
        v = Tensor(np.asarray(v, s.dtype if category(s.dtype) == 2 else None)).to(s.device)
    if s.ndim > 1 and s.shape[:-1] != v.shape[:-1]:
        raise RuntimeError(
            f"searchsorted: all sizes but the last of the sequence, {s.shape}, and of the input, "
            f"{v.shape}, must be equal"
        )
    if sorter is not None:
        if sorter.dtype != int64:
            raise RuntimeError(f"searchsorted: sorter must have dtype int64, not {sorter.dtype}")
        if sorter.shape != s.shape:
            raise RuntimeError(
                f"searchsorted: sorter has shape {sorter.shape}, the sequence {s.shape}"
            )
        if sorter.numel() and not bool(((sorter >= 0) & (sorter < s.shape[-1])).all()):
            raise RuntimeError("searchsorted: an index in sorter is out of range")
        s = _gather(s, sorter, s.ndim - 1)
    flat = s.ndim == 1
    found = _search(
        s.detach(), _reshape(v.detach(), (v.numel(),) if flat else v.shape),
        right or side == "right",
    )  # fmt: skip
    found = _reshape(found, v.shape)
    return cast(found, int32) if out_int32 else found


@public(method=False)
def bucketize(input: Any, boundaries: Any, *, out_int32: bool = False, right: bool = False) -> Any:
    """out[i] = the bucket of input[i] between ascending boundaries: searchsorted, turned round."""
    if boundaries.ndim != 1:
        raise RuntimeError(f"bucketize: boundaries must be a vector, not {boundaries.shape}")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


@public()
def dist(x: Any, other: Any, p: float = 2) -> Any:
    """out = norm_p(x - y), over all elements."""
    return norm(x - other, p)


__all__ = publish(globals())
