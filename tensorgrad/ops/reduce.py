"""Sums and their kin along dims.  Half types accumulate in float32; gradients at ties are shared evenly."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from tensorgrad.convert import cast
from tensorgrad.dtypes import as_dtype, category, int64
from tensorgrad.kinds import discrete, elementwise, general, linear
from tensorgrad.ops.elementwise import square, where, zeros_like
from tensorgrad.ops.shape import _flip, _reshape, all_dims, one_dim
from tensorgrad.publish import public, publish
from tensorgrad.tensor import Tensor


def _add(xp: Any, x: Any, /, dims: Any, keepdim: bool) -> Any:
    if x.dtype.itemsize == 2 and category(x.dtype) == 2:
        return xp.asarray(xp.add.reduce(x, dims, np.float32, None, keepdim)).astype(x.dtype)
    return xp.add.reduce(x, dims, None, None, keepdim)


def _restore(g: Any, x_shape: tuple[int, ...], dims: Any, keepdim: bool) -> Any:
    """A reduced gradient with its dims back at size one; the engine stretches it."""
    if keepdim or not g.shape:
        return g
    return _reshape(g, tuple(1 if i in dims else n for i, n in enumerate(x_shape)))


def _count(shape: tuple[int, ...], dims: tuple[int, ...]) -> int:
    count = 1
    for d in dims:
        count *= shape[d]
    return count


_sum = linear(
    "sum", _add,
    dx=lambda g, x_shape, dims, keepdim: _restore(g, x_shape, dims, keepdim),
)  # fmt: skip
_total = linear("total", lambda xp, x, /: _whole(xp, x), dx=lambda g: g)


def _whole(xp: Any, x: Any) -> Any:
    """The sum of all elements, 0-d."""
    dtype = x.dtype
    if xp is np and (dtype is _F32 or dtype is _F64):
        return np.add.reduce(x, None, None, np.empty((), dtype))
    return _add(xp, x if category(dtype) >= 2 else x.astype(int64), None, False)


_F32, _F64 = np.dtype(np.float32), np.dtype(np.float64)
_total.op.register(np.ndarray, lambda x: _whole(np, x))
_mean = linear(
    "mean", lambda xp, x, /, dims, keepdim: _add(xp, x, dims, keepdim) / x.dtype.type(_count(x.shape, dims)),
    dx=lambda g, x_shape, dims, keepdim: _restore(g, x_shape, dims, keepdim) / _count(x_shape, dims),
)  # fmt: skip
_amax = general(
    "amax", lambda xp, x, /, dims, keepdim: xp.maximum.reduce(x, dims, None, None, keepdim),
    dx=lambda g, x, out, dims, keepdim: _to_ties(g, x, out, dims, keepdim),
)  # fmt: skip
_amin = general(
    "amin", lambda xp, x, /, dims, keepdim: xp.minimum.reduce(x, dims, None, None, keepdim),
    dx=lambda g, x, out, dims, keepdim: _to_ties(g, x, out, dims, keepdim),
)  # fmt: skip
_cumsum = linear(
    "cumsum", lambda xp, x, /, dim: xp.cumsum(x, dim),
    dx=lambda g, dim: _flip(_cumsum(_flip(g, (dim,)), dim), (dim,)),
)  # fmt: skip
_argmax = discrete("argmax", lambda xp, x, /, dim, keepdim: xp.argmax(x, dim, keepdims=keepdim))
_argmin = discrete("argmin", lambda xp, x, /, dim, keepdim: xp.argmin(x, dim, keepdims=keepdim))
_any = discrete("any", lambda xp, x, /, dims, keepdim: xp.any(x, dims, keepdims=keepdim))
_all = discrete("all", lambda xp, x, /, dims, keepdim: xp.all(x, dims, keepdims=keepdim))


def _to_ties(g: Any, x: Any, out: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
    """The gradient of an extreme: shared evenly by the elements that attain it."""
    shape = x.shape
    top = x == _restore(out, shape, dims, keepdim)
    shares = cast(top, g.dtype)
    return _restore(g, shape, dims, keepdim) * (shares / _sum(shares, dims, True))


# ---- the public functions


def _prepared(name: str, x: Any, dim: Any, dtype: Any = None, floats: bool = False) -> tuple[Any, tuple[int, ...]]:
    if dtype is not None:
        x = x if x.dtype == as_dtype(dtype) else cast(x, as_dtype(dtype))
    elif category(x.dtype) < 2:
        if floats:
            raise RuntimeError(f"{name}: expected a floating-point tensor, not {x.dtype}; use x.float() or dtype=")
        x = x if x.dtype == int64 else cast(x, int64)
    return x, all_dims(name, dim, x.ndim)


def _named(dim: Any, keepdim: Any, axis: Any, keepdims: Any) -> tuple[Any, bool]:
    """PyTorch's dim and keepdim, or NumPy's axis and keepdims."""
    return (dim if axis is None else axis), bool(keepdim if keepdims is None else keepdims)


@public()
def sum(x: Any, dim: Any = None, keepdim: Any = False, *, dtype: Any = None, axis: Any = None, keepdims: Any = None) -> Any:
    """out = sum of x over dims (all by default); integers and bools add up as int64."""
    if dim is None and dtype is None and axis is None and not keepdim and not keepdims:
        return _total(x)
    dim, keepdim = _named(dim, keepdim, axis, keepdims)
    x, dims = _prepared("sum", x, dim, dtype)
    return _sum(x, dims, keepdim)


@public()
def mean(x: Any, dim: Any = None, keepdim: Any = False, *, dtype: Any = None, axis: Any = None, keepdims: Any = None) -> Any:
    """out = (1/n) sum of x over dims (all by default), n the number of elements added."""
    dim, keepdim = _named(dim, keepdim, axis, keepdims)
    x, dims = _prepared("mean", x, dim, dtype, floats=True)
    return _mean(x, dims, keepdim)


@public()
def var(x: Any, dim: Any = None, unbiased: bool | None = None, keepdim: Any = False, *, correction: float | None = None,
        axis: Any = None, keepdims: Any = None) -> Any:
    """out = sum (x - mean)^2 / (n - correction) over dims; correction 1 (unbiased) by default, NaN where n is too small."""
    if isinstance(dim, bool):  # var(x, False): unbiased comes second in PyTorch's older form
        dim, unbiased = None, dim
    dim, keepdim = _named(dim, keepdim, axis, keepdims)
    x, dims = _prepared("var", x, dim, None, floats=True)
    minus = correction if correction is not None else 0 if unbiased is False else 1
    centred = x - _mean(x, dims, True)
    return _sum(square(centred), dims, keepdim) / builtins.max(_count(x.shape, dims) - minus, 0)


@public()
def std(x: Any, dim: Any = None, unbiased: bool | None = None, keepdim: Any = False, *, correction: float | None = None,
        axis: Any = None, keepdims: Any = None) -> Any:
    """out = sqrt(var); its gradient at zero is zero, as in PyTorch."""
    return _root(var(x, dim, unbiased, keepdim, correction=correction, axis=axis, keepdims=keepdims))


_root = elementwise(
    "std", "sqrt", dx=lambda g, out: where(out == 0, zeros_like(g), g / (2 * out))
)


@public()
def amax(x: Any, dim: Any = (), keepdim: bool = False) -> Any:
    """out = the largest element over dims; its gradient is shared evenly among ties."""
    return _amax(_not_empty("amax", x, dims := all_dims("amax", dim, x.ndim)), dims, keepdim)


@public()
def amin(x: Any, dim: Any = (), keepdim: bool = False) -> Any:
    """out = the smallest element over dims; its gradient is shared evenly among ties."""
    return _amin(_not_empty("amin", x, dims := all_dims("amin", dim, x.ndim)), dims, keepdim)


def _not_empty(name: str, x: Any, dims: tuple[int, ...]) -> Any:
    if builtins.any(x.shape[d] == 0 for d in dims):
        raise IndexError(f"{name}: shape {x.shape} has nothing to choose from along dims {dims}")
    return x


@public()
def argmax(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The index of the largest element along a dim, or in the flattened tensor."""
    return _arg("argmax", _argmax, x, dim, keepdim)


@public()
def argmin(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The index of the smallest element along a dim, or in the flattened tensor."""
    return _arg("argmin", _argmin, x, dim, keepdim)


def _arg(name: str, op: Any, x: Any, dim: int | None, keepdim: bool) -> Any:
    d = None if dim is None else one_dim(name, dim, x.ndim)
    _not_empty(name, x, all_dims(name, dim, x.ndim))
    return op(_reshape(x, (1,)), 0, False) if not x.ndim and not keepdim else op(x, d if x.ndim else None, keepdim)


@public()
def any(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return _any(x, all_dims("any", dim, x.ndim), keepdim)


@public()
def all(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return _all(x, all_dims("all", dim, x.ndim), keepdim)


@public()
def cumsum(x: Any, dim: int, *, dtype: Any = None) -> Any:
    """out[i] = x[0] + ... + x[i] along a dim."""
    x, _ = _prepared("cumsum", x, dim, dtype)
    return _cumsum(x, one_dim("cumsum", dim, x.ndim)) if x.ndim else x


__all__ = publish(globals())
