"""One of several values, element by element: maximum, clamp, where.  Ties share a gradient."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np

from tensorgrad.dtypes import bool_, category, result_type
from tensorgrad.kinds import elementwise, linear
from tensorgrad.ops.compare import isfinite
from tensorgrad.publish import public, publish
from tensorgrad.tensor import Operable

maximum = elementwise(
    "maximum", floats=False,
    dx=lambda g, x, y: where(x == y, g / 2, where(x < y, 0, g)),
    dy=lambda g, x, y: where(x == y, g / 2, where(y < x, 0, g)),
)  # fmt: skip
minimum = elementwise(
    "minimum", floats=False,
    dx=lambda g, x, y: where(x == y, g / 2, where(x > y, 0, g)),
    dy=lambda g, x, y: where(x == y, g / 2, where(y > x, 0, g)),
)  # fmt: skip
fmax = elementwise(
    "fmax", floats=False,
    dx=lambda g, x, y: where((x >= y) | (y != y), g, 0),
    dy=lambda g, x, y: where((x >= y) | (y != y), 0, g),
)  # fmt: skip
fmin = elementwise(
    "fmin", floats=False,
    dx=lambda g, x, y: where((x <= y) | (y != y), g, 0),
    dy=lambda g, x, y: where((x <= y) | (y != y), 0, g),
)  # fmt: skip
"""As maximum and minimum, but a number wins over NaN; at ties the gradient is x's."""
_clip = elementwise(
    "clamp", lambda xp, x, /, low, high: _clipped(xp, x, low, high), floats=False,
    dx=lambda g, x, low, high: where(_inside(x, low, high), g, 0),
)  # fmt: skip
_clip_between = elementwise(
    "clamp_between", lambda xp, x, low, high, /: xp.minimum(xp.maximum(x, low), high), floats=False,
    dx=lambda g, x, low, high: where(_inside(x, low, high), g, 0),
    dlow=lambda g, x, low, high: where((x < low) & (low < high), g, 0),
    dhigh=lambda g, x, low, high: where((x > high) | (high < low), g, 0),
)  # fmt: skip
_clip_below = elementwise(
    "clamp_min", lambda xp, x, low, /: xp.maximum(x, low), floats=False,
    dx=lambda g, x, low: where(x >= low, g, 0),
    dlow=lambda g, x, low: where(x < low, g, 0),
)  # fmt: skip
_clip_above = elementwise(
    "clamp_max", lambda xp, x, high, /: xp.minimum(x, high), floats=False,
    dx=lambda g, x, high: where(x <= high, g, 0),
    dhigh=lambda g, x, high: where(x > high, g, 0),
)  # fmt: skip
_where = linear(
    "where", lambda xp, condition, x, y, /: _chosen(xp, condition, *_alike(xp, x, y)),
    dx=lambda g, condition: where(condition, g, 0),
    dy=lambda g, condition: where(condition, 0, g),
)  # fmt: skip
_masked_fill = elementwise(
    "masked_fill", lambda xp, x, mask, /, value: _chosen(xp, mask, xp.asarray(value, x.dtype), x),
    floats=False, dx=lambda g, mask: where(mask, 0, g),
)  # fmt: skip
_nan_to_num = elementwise(
    "nan_to_num", lambda xp, x, /, nan, posinf, neginf: _numbers(xp, x, nan, posinf, neginf),
    floats=False, dx=lambda g, x: where(isfinite(x), g, 0),
)  # fmt: skip


def _alike(xp: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """A Python number takes the dtype of the array beside it, two of them PyTorch's dtype."""
    if not hasattr(x, "dtype"):
        x = xp.asarray(x, getattr(y, "dtype", None) or result_type(x, y))
    return x, y if hasattr(y, "dtype") else xp.asarray(y, x.dtype)


def _chosen(xp: Any, condition: Any, x: Any, y: Any) -> Any:
    """xp.where; on the CPU by bits, x & mask | y & ~mask, which any condition costs alike."""
    dtype = x.dtype
    if xp is not np or condition.size < 1024 or category(dtype) != 2 or y.dtype != dtype:
        return xp.where(condition, x, y)
    bits = f"i{dtype.itemsize}"
    mask = -condition.view(np.int8).astype(bits)  # 0, or -1: all bits set
    out = np.empty(np.broadcast(condition, x, y).shape, dtype)
    into = out.view(bits)
    if _is_zero(y):
        np.bitwise_and(x.view(bits), mask, out=into)
        return out
    np.bitwise_and(y.view(bits), ~mask, out=into)
    if not _is_zero(x):
        into |= x.view(bits) & mask
    return out


def _is_zero(x: Any) -> bool:
    return x.ndim == 0 and not x.any() and not np.signbit(x)


def _clipped(xp: Any, x: Any, low: Any, high: Any) -> Any:
    out = x if low is None else xp.maximum(x, x.dtype.type(low))
    return out if high is None else xp.minimum(out, x.dtype.type(high))


def _inside(x: Any, low: Any, high: Any) -> Any:
    if low is None or high is None:
        return x <= high if low is None else x >= low
    return (x >= low) & (x <= high)


def _numbers(xp: Any, x: Any, nan: Any, posinf: Any, neginf: Any) -> Any:
    of = x.dtype.type
    out = xp.where(x == xp.inf, of(posinf), xp.where(x == -xp.inf, of(neginf), x))
    return xp.where(xp.isnan(x), of(nan), out)


# ---- the public functions that take more than tensors


@public("clip")
def clamp(x: Any, min: Any = None, max: Any = None) -> Any:
    """out = min(max(x, low), high); either bound may be None, a number or a tensor."""
    bounds = [b for b in (min, max) if b is not None]
    if not bounds:
        raise RuntimeError("clamp: at least one of min and max must be given")
    if not any(isinstance(b, Operable) for b in bounds):
        dtype = x.dtype if x.dtype.kind == "f" else result_type(x, *bounds)
        return _clip(x if x.dtype == dtype else x.to(dtype), min, max)
    if max is None:
        return _clip_below(x, min)
    return _clip_above(x, max) if min is None else _clip_between(x, min, max)


@public()
def clamp_min(x: Any, min: Any) -> Any:
    return clamp(x, min)


@public()
def clamp_max(x: Any, max: Any) -> Any:
    return clamp(x, None, max)


def _mask(name: str, mask: Any) -> Any:
    if mask.dtype != bool_:
        raise RuntimeError(f"{name}: expected a condition of dtype bool, not {mask.dtype}")
    return mask


@public(method=False)
def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    """out[i] = x[i] where the condition holds, else y[i]; without x and y, where it holds."""
    if x is None and y is None:
        return condition.nonzero(as_tuple=True)
    return _where(_mask("where", condition), x, y)


Operable.where = lambda x, condition, y: where(condition, x, y)  # type: ignore[attr-defined]


@public()
def masked_fill(x: Any, mask: Any, value: Any) -> Any:
    """out[i] = value where the mask is True, else x[i]; value is a number or a 0-d tensor."""
    if isinstance(value, Operable):
        if value.ndim:
            raise RuntimeError(f"masked_fill: expected a number or a 0-d tensor, not {value.shape}")
        return where(mask, value.to(x.dtype), x)
    if not (type(value) is float and -6e4 < value < 6e4 and category(x.dtype) == 2):
        value = _kept(value, x.dtype)
    return _masked_fill(x, _mask("masked_fill", mask), value)


def _kept(value: Any, dtype: Any) -> Any:
    """A Python number as the dtype keeps it: cut to a whole one; an error where it is too large."""
    kind = category(dtype)
    if kind == 0:
        return builtins.bool(value)
    if kind < 3 and isinstance(value, complex):
        fits = False
    elif kind == 1:
        info = np.iinfo(dtype)
        fits = math.isfinite(value) and (info.min or -info.max) <= int(value) <= info.max
        value = int(value) % (info.max + 1) if fits and not info.min else value
        value = int(value) if fits else value
    else:
        fits = kind == 3 or not math.isfinite(value) or builtins.abs(value) <= _info(dtype).max
    if not fits:
        raise RuntimeError(f"masked_fill: {value!r} cannot be kept in a tensor of {dtype}")
    return value


@public()
def nan_to_num(x: Any, nan: Any = None, posinf: Any = None, neginf: Any = None) -> Any:
    """NaN replaced by `nan` (0), infinities by posinf and neginf (the largest numbers)."""
    if category(x.dtype) < 2:
        return x.clone()
    info = _info(x.dtype)
    high = float(info.max) if posinf is None else posinf
    low = float(info.min) if neginf is None else neginf
    return _nan_to_num(x, 0.0 if nan is None else nan, high, low)


def _info(dtype: Any) -> Any:
    if dtype.kind != "V":
        return np.finfo(dtype)
    import ml_dtypes

    return ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]


__all__ = publish(globals())
