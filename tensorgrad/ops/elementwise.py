"""Elementwise ops: value and derivative of each on one line; broadcasting is undone by the engine.

`x` and `y` are the inputs, `out` the result, `g` the gradient arriving.
"""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np

from tensorgrad.convert import cast
from tensorgrad.dtypes import as_dtype, bool_, category, result_type
from tensorgrad.kinds import discrete, elementwise, linear
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

# ---- choices; at ties a gradient is shared evenly

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


# ---- comparisons and logic: no derivative

eq = discrete("eq", "equal")
ne = discrete("ne", "not_equal")
lt = discrete("lt", "less")
le = discrete("le", "less_equal")
gt = discrete("gt", "greater")
ge = discrete("ge", "greater_equal")
logical_and = discrete("logical_and")
logical_or = discrete("logical_or")
logical_xor = discrete("logical_xor")
logical_not = discrete("logical_not")
bitwise_and = discrete("bitwise_and")
bitwise_or = discrete("bitwise_or")
bitwise_xor = discrete("bitwise_xor")
bitwise_not = discrete("bitwise_not", "invert")
isnan = discrete("isnan")
isinf = discrete("isinf")
isfinite = discrete("isfinite")
_isclose = discrete(
    "isclose",
    lambda xp, x, y, /, rtol, atol, equal_nan: xp.isclose(x, y, rtol, atol, equal_nan),
)
_zeros_like = discrete("zeros_like", lambda xp, x, /: xp.zeros_like(x))
_ones_like = discrete("ones_like", lambda xp, x, /: xp.ones_like(x))

for _f, _names in {
    _add: ("__add__", "__radd__"), _sub: ("__sub__",), mul: ("__mul__", "__rmul__", "multiply"),
    _div: ("__truediv__",), neg: ("__neg__", "negative"), abs: ("__abs__", "absolute"),
    pow: ("__pow__",), floor_divide: ("__floordiv__",), remainder: ("__mod__",),
    lt: ("__lt__", "less"), le: ("__le__", "less_equal"),
    gt: ("__gt__", "greater"), ge: ("__ge__", "greater_equal"), ne: ("not_equal",),
    bitwise_and: ("__and__", "__rand__"), bitwise_or: ("__or__", "__ror__"),
    bitwise_xor: ("__xor__", "__rxor__"), bitwise_not: ("__invert__",),
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


def _comparison(op: Any) -> Any:
    """== and != answer for anything: of what is no number and no tensor Python says it differs."""
    return lambda x, y: (
        op(x, y) if hasattr(y, "dtype") or isinstance(y, (int, float, complex)) else NotImplemented
    )


Operable.__eq__ = _comparison(eq)  # type: ignore[method-assign]
Operable.__ne__ = _comparison(ne)  # type: ignore[method-assign]


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


@public()
def isclose(
    x: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Any:
    """|x - y| <= atol + rtol |y|, element by element."""
    if x.dtype != other.dtype:
        raise RuntimeError(f"isclose: dtypes {x.dtype} and {other.dtype} differ")
    return _isclose(x, other, rtol, atol, equal_nan)


@public()
def allclose(
    x: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    """Whether |x - y| <= atol + rtol |y| everywhere."""
    return builtins.bool(isclose(x, other, rtol, atol, equal_nan).all())


@public()
def equal(x: Any, other: Any) -> bool:
    """Whether shapes and all elements are equal."""
    return x.shape == other.shape and builtins.bool(eq(x, other).all())


def zeros_like(
    x: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Any:
    """Zeros of the shape, dtype and device of x."""
    return _filled(_zeros_like(x), dtype, device, requires_grad)


def ones_like(x: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Any:
    """Ones of the shape, dtype and device of x."""
    return _filled(_ones_like(x), dtype, device, requires_grad)


def _filled(x: Any, dtype: Any, device: Any, requires_grad: bool) -> Any:
    if dtype is not None or device is not None:
        x = x.to(device, as_dtype(dtype) if dtype is not None else None)
    return x.requires_grad_() if requires_grad else x


for _f in (zeros_like, ones_like):
    public(method=False)(_f)

__all__ = publish(globals())
