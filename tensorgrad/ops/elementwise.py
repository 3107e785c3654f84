"""Elementwise ops: value and derivative of each on one line; broadcasting is undone by the engine.

`x` and `y` are the inputs, `out` the result, `g` the gradient arriving.
"""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np

from tensorgrad.convert import cast
from tensorgrad.dtypes import bool_, category, result_type
from tensorgrad.kinds import elementwise
from tensorgrad.ops.choices import where
from tensorgrad.ops.compare import zeros_like
from tensorgrad.publish import public, publish
from tensorgrad.tensor import Operable

# ---- arithmetic: integers stay integers

_add = elementwise("add", floats=False, dx=lambda g: g, dy=lambda g: g)
_sub = elementwise("sub", "subtract", floats=False, dx=lambda g: g, dy=lambda g: -g)
mul = elementwise("mul", "multiply", floats=False, dx=lambda g, y: g * y, dy=lambda g, x: g * x)
_div = elementwise("div", "divide", dx=lambda g, y: g / y, dy=lambda g, y, out: -g * out / y)
neg = elementwise("neg", "negative", floats=False, dx=lambda g: -g)
square = elementwise("square", floats=False, dx=lambda g, x: g * (2 * x))
reciprocal = elementwise("reciprocal", dx=lambda g, out: -g * out * out)
abs = elementwise("abs", "absolute", floats=False, dx=lambda g, x: g * sign(x))
sign = elementwise(
    "sign",
    lambda xp, x, /: (
        x.copy() if x.dtype == bool_ else xp.where(x != x, x.dtype.type(0), xp.sign(x))
    ),
    floats=False, dx=lambda g: zeros_like(g),
)  # fmt: skip
for _f in (_sub, neg):
    _f.op.bools = False
fmod = elementwise(
    "fmod", lambda xp, x, y, /: xp.fmod(x, _not_zero(x, y)), floats=False,
    dx=lambda g: g, dy=lambda g, x, y: -g * trunc(x / y),
)  # fmt: skip
remainder = elementwise(
    "remainder", lambda xp, x, y, /: xp.remainder(x, _not_zero(x, y)), floats=False,
    dx=lambda g: g, dy=lambda g, x, y: -g * floor(x / y),
)  # fmt: skip
floor_divide = elementwise(
    "floor_divide", lambda xp, x, y, /: xp.floor_divide(x, _not_zero(x, y)), floats=False,
    dx=lambda g: zeros_like(g), dy=lambda g: zeros_like(g),
)  # fmt: skip


def _whole(name: str) -> Any:
    """A rounding: integers are whole already, and its slope is zero."""
    return elementwise(
        name, lambda xp, x, /: getattr(xp, name)(x) if x.dtype.kind in "fV" else x.copy(),
        floats=False, dx=lambda g: zeros_like(g),
    )  # fmt: skip


floor, ceil, trunc, _rint = _whole("floor"), _whole("ceil"), _whole("trunc"), _whole("rint")


def _not_zero(x: Any, y: Any) -> Any:
    """The divisor; integers have no infinity to answer with."""
    like = x if hasattr(x, "dtype") else y
    if category(like.dtype) < 2 and not np.all(y):
        raise RuntimeError("floor_divide, remainder: division of integers by zero")
    return y


# ---- powers

pow = elementwise(
    "pow", "power", floats=False,
    dx=lambda g, x, y: g * _power_slope(x, y),
    dy=lambda g, x, y, out: g * _exponent_slope(x, y, out),
)  # fmt: skip


def _exponent_slope(x: Any, y: Any, out: Any) -> Any:
    """x^y log(x), and 0 where x is 0 and the limit exists."""
    if isinstance(x, (int, float)):
        if x > 0:
            return out * math.log(x)
        return where(y >= 0, 0, out * -math.inf) if x == 0 else out * math.nan
    return where((x == 0) & (y >= 0), 0, out * log(x))


def _power_slope(x: Any, y: Any) -> Any:
    """y x^(y-1), and 0 where y is 0, even at x = 0."""
    if isinstance(y, (int, float)):
        return zeros_like(x) if y == 0 else 2 * x if y == 2 else y * x ** (y - 1)
    return where(y == 0, zeros_like(x * y), y * x ** (y - 1))


sqrt = elementwise("sqrt", dx=lambda g, out: g / (2 * out))
rsqrt = elementwise(
    "rsqrt", lambda xp, x, /: 1 / xp.sqrt(x), dx=lambda g, out: -0.5 * g * out * out * out
)

# ---- exponentials and logarithms

exp = elementwise("exp", dx=lambda g, out: g * out)
exp2 = elementwise("exp2", dx=lambda g, out: g * out * _LN2)
expm1 = elementwise("expm1", dx=lambda g, out: g * (out + 1))
log = elementwise("log", dx=lambda g, x: g / x)
log2 = elementwise("log2", dx=lambda g, x: g / (x * _LN2))
log10 = elementwise("log10", dx=lambda g, x: g / (x * _LN10))
log1p = elementwise("log1p", dx=lambda g, x: g / (x + 1))
logaddexp = elementwise(
    "logaddexp", dx=lambda g, x, y: g / (1 + exp(y - x)), dy=lambda g, x, y: g / (1 + exp(x - y))
)
_LN2, _LN10 = math.log(2), math.log(10)

# ---- waves and sigmoids

sin = elementwise("sin", dx=lambda g, x: g * cos(x))
cos = elementwise("cos", dx=lambda g, x: -g * sin(x))
tan = elementwise("tan", dx=lambda g, out: g * (1 + out * out))
tanh = elementwise("tanh", dx=lambda g, out: g * (1 - out * out))
sigmoid = elementwise(
    "sigmoid", lambda xp, x, /: 1 / (1 + xp.exp(-x)), dx=lambda g, out: g * out * (1 - out)
)
erf = elementwise(
    "erf", lambda xp, x, /: _special(xp, "erf", x), dx=lambda g, x: g * (_2_PI * exp(-x * x))
)
_2_PI = 2 / math.sqrt(math.pi)


def _special(xp: Any, name: str, x: Any) -> Any:
    """A function of scipy.special, or of CuPy's twin of it; half types pass by way of float32."""
    if xp is np:
        from scipy import special
    else:
        from cupyx.scipy import special
    wide = x if x.dtype.itemsize > 2 else x.astype(np.float32)
    return getattr(special, name)(wide).astype(x.dtype, copy=False)


relu = elementwise(
    "relu", lambda xp, x, /: xp.maximum(x, x.dtype.type(0)), floats=False,
    dx=lambda g, out: g * (out > 0),
)  # fmt: skip
relu.op.bools = False

for _f, _names in {
    _add: ("__add__", "__radd__"), _sub: ("__sub__",), mul: ("__mul__", "__rmul__", "multiply"),
    _div: ("__truediv__",), neg: ("__neg__", "negative"), abs: ("__abs__", "absolute"),
    pow: ("__pow__",), floor_divide: ("__floordiv__",), remainder: ("__mod__",),
}.items():  # fmt: skip
    public(*_names, method=not _f.__name__.startswith("_"))(_f)


# ---- the public functions that take more than tensors


@public()
def add(x: Any, y: Any, *, alpha: Any = 1) -> Any:
    """out = x + alpha y"""
    return _add(x, y) if alpha == 1 else _add(x, _times("add", x, y, alpha))


@public("subtract")
def sub(x: Any, y: Any, *, alpha: Any = 1) -> Any:
    """out = x - alpha y"""
    return _sub(x, y) if alpha == 1 else _sub(x, _times("sub", x, y, alpha))


def _times(name: str, x: Any, y: Any, alpha: Any) -> Any:
    """alpha y in the dtype that x and y make; a whole one asks for a whole alpha."""
    if category(getattr(y, "dtype", bool_)) > 1 and getattr(x, "dtype", None) == y.dtype:
        return mul(y, alpha)
    dtype = result_type(x, y)
    if category(result_type(alpha)) > builtins.max(category(dtype), 1):
        raise RuntimeError(f"{name}: alpha={alpha!r} is no factor for a result of {dtype}")
    if not hasattr(y, "dtype"):
        return type(y)(y * alpha) if dtype == bool_ else y * alpha
    y = y if y.dtype == dtype else cast(y, dtype)
    return mul(y, alpha) if dtype != bool_ else y & builtins.bool(alpha)


@public("divide")
def div(x: Any, y: Any, *, rounding_mode: str | None = None) -> Any:
    """out = x / y; rounding_mode "trunc" or "floor" rounds, and keeps integers integers."""
    if rounding_mode is None:
        return _div(x, y)
    if rounding_mode not in ("trunc", "floor"):
        raise RuntimeError(
            f"div: rounding_mode must be None, 'trunc' or 'floor', not {rounding_mode!r}"
        )
    down = floor_divide(x, y)
    if rounding_mode == "floor":
        return down
    if category(down.dtype) == 2:
        return trunc(_div(x, y))
    return down + ((down < 0) & (mul(down, y) != x))


true_divide = div
for _f, _raw in ((add, _add), (sub, _sub), (div, _div)):
    setattr(_f, "op", _raw.op)  # noqa: B010


@public("__rsub__", method=False)
def rsub(x: Any, y: Any) -> Any:
    """out = y - x"""
    return _sub(y, x)


_SWAPPED = {
    "__rtruediv__": _div, "__rpow__": pow, "__rmod__": remainder, "__rfloordiv__": floor_divide
}  # fmt: skip
for _name, _f in _SWAPPED.items():
    setattr(Operable, _name, lambda x, y, f=_f: f(y, x))


@public()
def round(x: Any, *, decimals: int = 0) -> Any:
    """The nearest whole number, or multiple of 10^-decimals; halves go to the even one."""
    if decimals == 0 or category(x.dtype) < 2:
        return _rint(x)
    scale = 10.0 ** builtins.abs(decimals)
    return _rint(x * scale) / scale if decimals > 0 else _rint(x / scale) * scale


@public()
def frac(x: Any) -> Any:
    """out = x - trunc(x)"""
    return x - trunc(x)


@public()
def lerp(x: Any, end: Any, weight: Any) -> Any:
    """out = x + weight (end - x), of floats of one dtype; weight is a number or a tensor."""
    if category(x.dtype) < 2:
        raise RuntimeError(f"lerp: expected floats, not {x.dtype}")
    if not hasattr(end, "dtype"):
        raise TypeError(f"lerp: end must be a tensor, not {type(end).__name__}")
    others = (end, weight) if getattr(weight, "ndim", 0) else (end,)
    for other in others:
        if other.dtype != x.dtype:
            raise RuntimeError(f"lerp: dtypes {x.dtype} and {other.dtype} differ; use x.to(dtype)")
    return x + weight * (end - x)


@public()
def addcmul(x: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Any:
    """out = x + value tensor1 tensor2"""
    return add(x, tensor1 * tensor2, alpha=value)


@public()
def addcdiv(x: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Any:
    """out = x + value tensor1 / tensor2"""
    return add(x, tensor1 / tensor2, alpha=value)


__all__ = publish(globals())
