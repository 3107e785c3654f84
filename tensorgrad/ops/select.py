"""Choosing elements by their order: max, min, sort, topk.  Each is a search, then a gather."""

from __future__ import annotations

from typing import Any, NamedTuple

from tensorgrad.backend import xp_of
from tensorgrad.dtypes import category, float32
from tensorgrad.kinds import discrete
from tensorgrad.ops.choices import maximum, minimum
from tensorgrad.ops.indexing import _gather, _slice
from tensorgrad.ops.reduce import _argmax, _argmin, _not_empty, amax, amin, numpy_names
from tensorgrad.ops.shape import _reshape, one_dim
from tensorgrad.publish import public, publish
from tensorgrad.tensor import Operable, Tensor


class ValuesAndIndices(NamedTuple):
    """The chosen elements and where along the dim they stood."""

    values: Any
    indices: Any


_argsort = discrete("argsort", lambda xp, x, /, dim, descending: _order(xp, x, dim, descending))
_argtop = discrete("argtopk", lambda xp, x, /, k, dim, largest: _partition(xp, x, k, dim, largest))


def _order(xp: Any, x: Any, dim: int, descending: bool) -> Any:
    """The stable order; NaN counts as the largest, as in NumPy and PyTorch."""
    x = _sortable(x)
    if not descending:
        return xp.argsort(x, dim, kind="stable")
    backwards = xp.argsort(xp.flip(x, dim), dim, kind="stable")
    return xp.flip(x.shape[dim] - 1 - backwards, dim)


def _sortable(x: Any) -> Any:
    """bfloat16, whose own order knows no place for NaN, as float32."""
    return x.astype(float32) if x.dtype.kind == "V" else x


def _partition(xp: Any, x: Any, k: int, dim: int, largest: bool) -> Any:
    """The k largest or smallest, in order: cut off from the rest first, which stays unsorted."""
    x, n = _sortable(x), x.shape[dim]
    if not 0 < k < n:
        return xp.take(_order(xp, x, dim, largest), xp.arange(k), dim)
    cut = xp.argpartition(x, n - k if largest else k - 1, dim)
    chosen = xp.take(cut, xp.arange(n - k, n) if largest else xp.arange(k), dim)
    chosen.sort(dim)  # so that equal elements keep their order
    among = _order(xp, xp.take_along_axis(x, chosen, dim), dim, largest)
    return xp.take_along_axis(chosen, among, dim)


def _picked(x: Any, indices: Any, dim: int, keepdim: bool = True) -> ValuesAndIndices:
    """The elements at these places; `indices` has the dim at its full or at size one."""
    values = _gather(x, indices, dim)
    if not keepdim:
        shape = x.shape[:dim] + x.shape[dim + 1 :]
        values, indices = _reshape(values, shape), _reshape(indices, shape)
    return ValuesAndIndices(values, indices)


def _extreme(name: str, x: Any, dim: Any, keepdim: bool, search: Any) -> Any:
    d = one_dim(name, dim, x.ndim)
    if not x.ndim:
        return ValuesAndIndices(
            *(_reshape(part, ()) for part in _extreme(name, _reshape(x, (1,)), 0, True, search))
        )
    return _picked(x, search(_not_empty(name, x, (d,)), d, True), d, keepdim)


@public()
@numpy_names
def max(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest element; with a dim, (values, indices) along it; with a tensor, maximum(x, y).

    Of equals along a dim the first is taken, and has the gradient; over all, ties share it.
    """
    if dim is None:
        return amax(_some("max", x))
    return (
        maximum(x, dim) if isinstance(dim, Operable) else _extreme("max", x, dim, keepdim, _argmax)
    )


@public()
@numpy_names
def min(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest element; with a dim, (values, indices) along it; with a tensor, minimum(x, y).

    Of equals along a dim the first is taken, and has the gradient; over all, ties share it.
    """
    if dim is None:
        return amin(_some("min", x))
    return (
        minimum(x, dim) if isinstance(dim, Operable) else _extreme("min", x, dim, keepdim, _argmin)
    )


def _some(name: str, x: Any) -> Any:
    if not x.numel():
        raise RuntimeError(
            f"{name}: a tensor of shape {x.shape} has nothing to choose from; pass a dim"
        )
    return x


@public()
def argsort(x: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """The indices that sort x along a dim; equal elements keep their order."""
    d = one_dim("argsort", dim, x.ndim)
    return (
        _argsort(x, d, descending)
        if x.ndim
        else _reshape(_argsort(_reshape(x, (1,)), 0, False), ())
    )


@public()
def sort(x: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> ValuesAndIndices:
    """(values, indices) of x in order along a dim; equal elements keep theirs."""
    indices = argsort(x, dim, descending)
    return (
        _picked(x, indices, one_dim("sort", dim, x.ndim))
        if x.ndim
        else ValuesAndIndices(x, indices)
    )


@public()
def topk(
    x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> ValuesAndIndices:
    """(values, indices) of the k largest or smallest elements along a dim, in order."""
    d = one_dim("topk", dim, x.ndim)
    have = x.shape[d] if x.ndim else 1
    if not 0 <= k <= have:
        raise RuntimeError(f"topk: k is {k}, but dim {dim} of shape {x.shape} has {have} elements")
    if x.ndim:
        return _picked(x, _argtop(x, k, d, largest), d)
    found = topk(_reshape(x, (1,)), k, 0)
    return ValuesAndIndices(_reshape(found.values, ()), _reshape(found.indices, ())) if k else found


# ---- the elements that fulfil something


@public("argwhere")
def nonzero(x: Any, *, as_tuple: bool = False) -> Any:
    """Where x is not zero: indices (n, ndim), or a tuple with one vector per dim."""
    places = _nonzero(x) if x.ndim or not as_tuple else _nonzero(_reshape(x, (1,)))
    return (
        tuple(_slice(places, (slice(None), d)) for d in range(places.shape[1]))
        if as_tuple
        else places
    )


_nonzero = discrete("nonzero", lambda xp, x, /: xp.argwhere(x))


@public()
def bincount(x: Any, weights: Any = None, minlength: int = 0) -> Any:
    """out[n] = how often n occurs in a vector of whole numbers, or the sum of its weights."""
    if x.ndim != 1 or category(x.dtype) != 1:
        raise RuntimeError(
            f"bincount: expected a vector of integers, not {x.dtype} of shape {x.shape}"
        )
    if weights is not None and weights.shape != x.shape:
        raise RuntimeError(
            f"bincount: weights of shape {weights.shape} for values of shape {x.shape}"
        )
    if minlength < 0 or (x.numel() and int(x.array.min()) < 0):
        raise RuntimeError("bincount: neither the values nor minlength may be negative")
    heavy = None if weights is None else weights.array
    out = xp_of(x.array).bincount(x.array, heavy, minlength)
    return Tensor(out if heavy is None or heavy.dtype != float32 else out.astype(float32))


@public()
def unique(
    x: Any, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
    dim: int | None = None,
) -> Any:  # fmt: skip
    """The distinct elements in order, or the distinct layers along a dim.

    On request also where each element went, and how often each value occurs.
    """
    d = None if dim is None else one_dim("unique", dim, x.ndim)
    values, inverse, counts = xp_of(x.array).unique(x.array, False, True, True, d)
    found = [values]
    if return_inverse:
        found.append(inverse.reshape(x.shape if d is None else (-1,)))
    if return_counts:
        found.append(counts)
    return tuple(Tensor(a) for a in found) if len(found) > 1 else Tensor(values)


__all__ = publish(globals())
