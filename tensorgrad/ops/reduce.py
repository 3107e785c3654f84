"""Sums and their kin along dims.  Half types add up in float32; ties share a gradient evenly."""

from __future__ import annotations

import builtins
import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from tensorgrad.convert import cast
from tensorgrad.dtypes import as_dtype, category, float32, float64, int64, uint8
from tensorgrad.kinds import discrete, elementwise, general, linear
from tensorgrad.ops.choices import where
from tensorgrad.ops.compare import ones_like, zeros_like
from tensorgrad.ops.elementwise import abs, sign, square
from tensorgrad.ops.shape import _reshape, all_dims, cat, one_dim, split
from tensorgrad.publish import public, publish
from tensorgrad.twins import ask

F = TypeVar("F", bound=Callable[..., Any])


def _is_half(x: Any) -> bool:
    return x.dtype.itemsize == 2 and category(x.dtype) == 2


def _add(xp: Any, x: Any, dims: Any, keepdim: bool) -> Any:
    if _is_half(x):
        return xp.asarray(xp.add.reduce(x, dims, np.float32, None, keepdim)).astype(x.dtype)
    answer = ask("rows_sum", x, x, dims, keepdim) if x.size >= MANY else None
    return xp.add.reduce(x, dims, None, None, keepdim) if answer is None else answer


MANY = 16_384
"""Elements from which a kernel adds up faster than NumPy."""


def _extremes(xp: Any, x: Any, dims: Any, keepdim: bool, name: str) -> Any:
    answer = ask("rows_" + name, x, x, dims, keepdim) if x.size >= MANY else None
    if answer is not None:
        return answer
    return (xp.maximum if name == "amax" else xp.minimum).reduce(x, dims, None, None, keepdim)


def _average(xp: Any, x: Any, dims: Any, keepdim: bool) -> Any:
    n = _count(x.shape, dims)
    if _is_half(x):
        total = xp.add.reduce(x, dims, np.float32, None, keepdim)
        return xp.asarray(total / np.float32(n)).astype(x.dtype)
    return _add(xp, x, dims, keepdim) / x.dtype.type(n)


def _accumulate(xp: Any, x: Any, dim: int, reverse: bool) -> Any:
    answer = ask("rows_cumsum", x, x, dim, reverse)
    if answer is not None:
        return answer
    wide = x.astype(np.float32) if _is_half(x) else x
    if reverse:
        return xp.flip(xp.cumsum(xp.flip(wide, dim), dim), dim).astype(x.dtype, copy=False)
    return xp.cumsum(wide, dim).astype(x.dtype, copy=False)


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


def _whole(xp: Any, x: Any, /) -> Any:
    """The sum of all elements, 0-d."""
    return _add(xp, x if category(x.dtype) >= 2 else x.astype(int64), None, False)


def _whole_numpy(x: Any) -> Any:
    dtype = x.dtype
    if (dtype is float32 or dtype is float64) and x.size < MANY:
        return np.add.reduce(x, None, None, np.empty((), dtype))  # type: ignore[call-overload]
    return _whole(np, x)


_total = linear("total", _whole, dx=lambda g: g)
_total.op.register(np.ndarray, _whole_numpy)
_sum = linear(
    "sum", lambda xp, x, /, dims, keepdim: _add(xp, x, dims, keepdim),
    dx=lambda g, x_shape, dims, keepdim: _restore(g, x_shape, dims, keepdim),
)  # fmt: skip
_mean = linear(
    "mean", lambda xp, x, /, dims, keepdim: _average(xp, x, dims, keepdim),
    dx=lambda g, x_shape, dims, keepdim: (
        _restore(g, x_shape, dims, keepdim) / _count(x_shape, dims)
    ),
)  # fmt: skip
_amax = general(
    "amax", lambda xp, x, /, dims, keepdim: _extremes(xp, x, dims, keepdim, "amax"),
    dx=lambda g, x, out, dims, keepdim: _to_ties(g, x, out, dims, keepdim),
)  # fmt: skip
_amin = general(
    "amin", lambda xp, x, /, dims, keepdim: _extremes(xp, x, dims, keepdim, "amin"),
    dx=lambda g, x, out, dims, keepdim: _to_ties(g, x, out, dims, keepdim),
)  # fmt: skip
_cumsum = linear(
    "cumsum", lambda xp, x, /, dim, reverse: _accumulate(xp, x, dim, reverse),
    dx=lambda g, dim, reverse: _cumsum(g, dim, not reverse),
)  # fmt: skip
_root = elementwise("root", "sqrt", dx=lambda g, out: where(out == 0, 0, g / (2 * out)))
_norm = general(
    "norm", lambda xp, x, /, p, dims, keepdim: _powers(xp, x, p, dims, keepdim),
    dx=lambda g, x, out, p, dims, keepdim: _norm_slope(
        _restore(g, x.shape, dims, keepdim), x, _restore(out, x.shape, dims, keepdim), p
    ),
)  # fmt: skip
_argmax = discrete("argmax", lambda xp, x, /, dim, keepdim: x.argmax(dim, keepdims=keepdim))
_argmin = discrete("argmin", lambda xp, x, /, dim, keepdim: x.argmin(dim, keepdims=keepdim))
_any = discrete("any", lambda xp, x, /, dims, keepdim: xp.any(x, dims, keepdims=keepdim))
_all = discrete("all", lambda xp, x, /, dims, keepdim: xp.all(x, dims, keepdims=keepdim))
_count_nonzero = discrete("count_nonzero", lambda xp, x, /, dims: xp.sum(x != 0, dims, int64))


def _to_ties(g: Any, x: Any, out: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
    """The gradient of an extreme: shared evenly by the elements that attain it."""
    shape = x.shape
    top = x == _restore(out, shape, dims, keepdim)
    shares = cast(top, g.dtype)
    return _restore(g, shape, dims, keepdim) * (shares / _sum(shares, dims, True))


def _powers(xp: Any, x: Any, p: float, dims: tuple[int, ...], keepdim: bool) -> Any:
    """(sum |x|^p)^(1/p); p = 0 counts what is not zero."""
    wide = x.astype(np.float32) if _is_half(x) else x
    if p == 2:
        out = xp.sqrt(_add(xp, xp.square(wide), dims, keepdim))
    elif p == 1:
        out = _add(xp, xp.absolute(wide), dims, keepdim)
    elif p == 0:
        out = xp.sum(wide != 0, dims, wide.dtype, keepdims=keepdim)
    else:
        out = _add(xp, xp.absolute(wide) ** p, dims, keepdim) ** (1 / p)
    return xp.asarray(out).astype(x.dtype, copy=False)


def _norm_slope(g: Any, x: Any, out: Any, p: float) -> Any:
    """g sign(x) (|x| / out)^(p-1), and 0 where that has no limit: at a norm of zero, and for p < 2
    at each zero of x.  The ratio neither overflows nor vanishes together with its numbers.
    """
    if p == 0:
        return zeros_like(x) * g
    if p == 1:
        return g * sign(x)
    size = where(out == 0, ones_like(out), out)
    if p == 2:
        return where(out == 0, 0, g) * (x / size)
    zero = (x == 0) | (out == 0)
    ratio = where(zero, ones_like(x), abs(x)) / size
    return where(zero, 0, g * sign(x)) * ratio ** (p - 1)


# ---- the public functions


def numpy_names(function: F) -> F:
    """The function with NumPy's axis and keepdims for dim and keepdim, as PyTorch has it."""

    @functools.wraps(function)
    def call(*args: Any, axis: Any = None, keepdims: Any = None, **kwargs: Any) -> Any:
        if axis is not None:
            kwargs["dim"] = axis
        if keepdims is not None:
            kwargs["keepdim"] = keepdims
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def _prepared(
    name: str, x: Any, dim: Any, dtype: Any = None, floats: bool = False
) -> tuple[Any, tuple[int, ...]]:
    if dtype is not None:
        x = x if x.dtype == as_dtype(dtype) else cast(x, as_dtype(dtype))
    elif category(x.dtype) < 2:
        if floats:
            raise RuntimeError(
                f"{name}: expected a floating-point tensor, not {x.dtype}; use x.float() or dtype="
            )
        x = x if x.dtype == int64 else cast(x, int64)
    return x, all_dims(name, dim, x.ndim)


def _named(dim: Any, keepdim: Any, axis: Any, keepdims: Any) -> tuple[Any, bool]:
    """PyTorch's dim and keepdim, or NumPy's axis and keepdims."""
    return (dim if axis is None else axis), bool(keepdim if keepdims is None else keepdims)


@public()
def sum(
    x: Any, dim: Any = None, keepdim: Any = False, *, dtype: Any = None,
    axis: Any = None, keepdims: Any = None,
) -> Any:  # fmt: skip
    """out = sum of x over dims (all by default); integers and bools add up as int64."""
    if dim is None and dtype is None and axis is None and not keepdim and not keepdims:
        return _total(x)
    dim, keepdim = _named(dim, keepdim, axis, keepdims)
    x, dims = _prepared("sum", x, dim, dtype)
    return _sum(x, dims, keepdim)


@public()
def mean(
    x: Any, dim: Any = None, keepdim: Any = False, *, dtype: Any = None,
    axis: Any = None, keepdims: Any = None,
) -> Any:  # fmt: skip
    """out = (1/n) sum of x over dims (all by default), n the number of elements added."""
    dim, keepdim = _named(dim, keepdim, axis, keepdims)
    x, dims = _prepared("mean", x, dim, dtype, floats=True)
    return _mean(x, dims, keepdim)


@public()
@numpy_names
def var_mean(
    x: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None,
) -> tuple[Any, Any]:  # fmt: skip
    """(variance, mean) over dims: sum (x - mean)^2 / (n - correction), NaN where n is too small.

    correction is 1 by default, or 0 with unbiased=False.
    """
    if isinstance(dim, bool):  # var(x, False): unbiased comes second in PyTorch's older form
        dim, unbiased = None, dim
    x, dims = _prepared("var", x, dim, None, floats=True)
    if category(x.dtype) == 3:
        raise RuntimeError("var, std: not for complex numbers; take x.real and x.imag of them")
    minus = correction if correction is not None else 0 if unbiased is False else 1
    wide = cast(x, float32) if _is_half(x) else x
    mean = _mean(wide, dims, True)
    freedom = builtins.max(_count(x.shape, dims) - minus, 0)
    squares = _sum(square(wide - mean), dims, bool(keepdim)) / freedom
    kept = _reshape(mean, squares.shape)
    return (cast(squares, x.dtype), cast(kept, x.dtype)) if wide is not x else (squares, kept)


@public()
def var(x: Any, *args: Any, **kwargs: Any) -> Any:
    """out = sum (x - mean)^2 / (n - correction) over dims: see var_mean for the arguments."""
    return var_mean(x, *args, **kwargs)[0]


@public()
def std_mean(x: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """(standard deviation, mean) over dims: see var_mean for the arguments."""
    squares, mean = var_mean(x, *args, **kwargs)
    return _root(squares), mean


@public()
def std(x: Any, *args: Any, **kwargs: Any) -> Any:
    """out = sqrt(var); its gradient at zero is zero.  See var_mean for the arguments."""
    return _root(var_mean(x, *args, **kwargs)[0])


@public()
@numpy_names
def amax(x: Any, dim: Any = (), keepdim: bool = False) -> Any:
    """out = the largest element over dims; its gradient is shared evenly among ties."""
    return _extreme("amax", _amax, x, dim, keepdim)


@public()
@numpy_names
def amin(x: Any, dim: Any = (), keepdim: bool = False) -> Any:
    """out = the smallest element over dims; its gradient is shared evenly among ties."""
    return _extreme("amin", _amin, x, dim, keepdim)


def _extreme(name: str, op: Any, x: Any, dim: Any, keepdim: bool) -> Any:
    dims = all_dims(name, dim, x.ndim)
    if dim == () and not x.numel():
        raise RuntimeError(f"{name}: a tensor of shape {x.shape} has nothing to choose from")
    return op(_not_empty(name, x, dims), dims, keepdim)


def _not_empty(name: str, x: Any, dims: tuple[int, ...]) -> Any:
    if builtins.any(x.shape[d] == 0 for d in dims):
        raise IndexError(f"{name}: shape {x.shape} has nothing to choose from along dims {dims}")
    return x


@public()
@numpy_names
def argmax(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The index of the largest element along a dim, or in the flattened tensor."""
    return _arg("argmax", _argmax, x, dim, keepdim)


@public()
@numpy_names
def argmin(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The index of the smallest element along a dim, or in the flattened tensor."""
    return _arg("argmin", _argmin, x, dim, keepdim)


def _arg(name: str, op: Any, x: Any, dim: int | None, keepdim: bool) -> Any:
    d = None if dim is None else one_dim(name, dim, x.ndim)
    _not_empty(name, x, all_dims(name, dim, x.ndim))
    if x.ndim:
        return op(x, d, keepdim)
    return _reshape(op(_reshape(x, (1,)), 0, False), ())


@public()
@numpy_names
def any(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Whether some element over dims is not zero."""
    out = _any(x, () if dim == () else all_dims("any", dim, x.ndim), keepdim)
    return cast(out, uint8) if x.dtype == uint8 else out


@public("__contains__", method=False)
def _contains(x: Any, value: Any) -> bool:
    if not hasattr(value, "dtype") and not isinstance(value, (int, float, complex)):
        raise RuntimeError(
            f"in: a tensor holds numbers; {type(value).__name__} is neither one nor a tensor"
        )
    return bool(_any(x == value, tuple(range(x.ndim)), False))


@public()
@numpy_names
def all(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Whether no element over dims is zero."""
    out = _all(x, () if dim == () else all_dims("all", dim, x.ndim), keepdim)
    return cast(out, uint8) if x.dtype == uint8 else out


@public()
@numpy_names
def count_nonzero(x: Any, dim: Any = None) -> Any:
    """How many elements over dims are not zero, int64."""
    return _count_nonzero(x, all_dims("count_nonzero", dim, x.ndim))


@public()
@numpy_names
def cumsum(x: Any, dim: int, *, dtype: Any = None) -> Any:
    """out[i] = x[0] + ... + x[i] along a dim."""
    x, _ = _prepared("cumsum", x, dim, dtype)
    return _cumsum(x, one_dim("cumsum", dim, x.ndim), False) if x.ndim else x


# Products are composed of products of halves: every derivative is right, at zeros too.


@public()
@numpy_names
def prod(x: Any, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """out = product of x along a dim (over all by default); integers multiply as int64."""
    x, _ = _prepared("prod", x, dim, dtype)
    d = 0 if dim is None else one_dim("prod", dim, x.ndim)
    whole = dim is None or not x.ndim
    if whole:
        x = _reshape(x, (x.numel(),))
    while x.shape[d] > 1:
        half = x.shape[d] // 2
        a, b, rest = split(x, (half, half, x.shape[d] - 2 * half), d)
        x = cat((a * b, rest), d) if rest.shape[d] else a * b
    if not x.shape[d]:
        x = _sum(x, (d,), True) + 1
    if whole:
        return _reshape(x, ())
    return x if keepdim else _reshape(x, x.shape[:d] + x.shape[d + 1 :])


@public()
@numpy_names
def cumprod(x: Any, dim: int, *, dtype: Any = None) -> Any:
    """out[i] = x[0] ... x[i] along a dim, in rounds that double it.  Hillis, Steele 1986."""
    x, _ = _prepared("cumprod", x, dim, dtype)
    d = one_dim("cumprod", dim, x.ndim)
    step = 1
    while x.ndim and step < x.shape[d]:
        rest = x.shape[d] - step
        head, tail = split(x, (step, rest), d)
        x = cat((head, tail * split(x, (rest, step), d)[0]), d)
        step *= 2
    return x


@public()
@numpy_names
def norm(x: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """out = (sum |x|^p)^(1/p) over dims: 2 by default, inf the largest |x|, 0 counts non-zeros.

    p = "nuc" is the sum of a matrix's singular values.
    """
    if category(x.dtype) < 2 and dtype is None:
        raise RuntimeError(f"norm: expected a floating-point tensor, not {x.dtype}; use x.float()")
    x, dims = _prepared("norm", x, dim, dtype)
    if p == "nuc":
        from tensorgrad.ops.linalg import matrix_norm

        return matrix_norm(x, "nuc", dims, keepdim)
    if isinstance(p, str) and p != "fro":
        raise RuntimeError(f"norm: p must be a number, 'fro' or 'nuc', not {p!r}")
    p = 2.0 if p == "fro" or p is None else float(p)
    if math.isinf(p):
        if _count(x.shape, dims) == 0:
            raise RuntimeError(f"norm: shape {x.shape} has no largest or smallest element")
        return (amax if p > 0 else amin)(abs(x), dims, keepdim)
    return _norm(x, p, dims, bool(keepdim))


__all__ = publish(globals())
