"""Elementwise ops: value and derivative of each on one line; broadcasting is undone by the engine.

`x` and `y` are the inputs, `out` the result, `g` the gradient arriving.
"""

from __future__ import annotations

from typing import Any

from tensorgrad.kinds import discrete, elementwise, linear
from tensorgrad.publish import public, publish

# ---- arithmetic: integers stay integers

add = elementwise("add", floats=False, dx=lambda g: g, dy=lambda g: g)
sub = elementwise("sub", "subtract", floats=False, dx=lambda g: g, dy=lambda g: -g)
mul = elementwise("mul", "multiply", floats=False, dx=lambda g, y: g * y, dy=lambda g, x: g * x)
div = elementwise("div", "divide", dx=lambda g, y: g / y, dy=lambda g, y, out: -g * out / y)
neg = elementwise("neg", "negative", floats=False, dx=lambda g: -g)
square = elementwise("square", floats=False, dx=lambda g, x: g * (2 * x))
reciprocal = elementwise("reciprocal", dx=lambda g, out: -g * out * out)
abs = elementwise("abs", "absolute", floats=False, dx=lambda g, x: g * sign(x))
sign = elementwise("sign", floats=False, dx=lambda g: zeros_like(g))
floor = elementwise("floor", floats=False, dx=lambda g: zeros_like(g))
ceil = elementwise("ceil", floats=False, dx=lambda g: zeros_like(g))
round = elementwise("round", "rint", floats=False, dx=lambda g: zeros_like(g))
trunc = elementwise("trunc", floats=False, dx=lambda g: zeros_like(g))
floor_divide = discrete("floor_divide")
remainder = elementwise(
    "remainder", floats=False, dx=lambda g: g, dy=lambda g, x, y: -g * floor(x / y)
)

# ---- powers

pow = elementwise(
    "pow", "power", floats=False,
    dx=lambda g, x, y: g * _power_slope(x, y),
    dy=lambda g, x, y, out: g * where((x == 0) & (y >= 0), zeros_like(out), out * log(x)),
)  # fmt: skip


def _power_slope(x: Any, y: Any) -> Any:
    """y x^(y-1), and 0 where y is 0, even at x = 0."""
    if isinstance(y, (int, float)):
        return zeros_like(x) if y == 0 else y * x ** (y - 1)
    return where(y == 0, zeros_like(x * y), y * x ** (y - 1))


sqrt = elementwise("sqrt", dx=lambda g, out: g / (2 * out))
rsqrt = elementwise("rsqrt", lambda xp, x, /: 1 / xp.sqrt(x), dx=lambda g, out: -0.5 * g * out * out * out)

# ---- exponentials and logarithms

exp = elementwise("exp", dx=lambda g, out: g * out)
exp2 = elementwise("exp2", dx=lambda g, out: g * out * _LN2)
expm1 = elementwise("expm1", dx=lambda g, out: g * (out + 1))
log = elementwise("log", dx=lambda g, x: g / x)
log2 = elementwise("log2", dx=lambda g, x: g / (x * _LN2))
log10 = elementwise("log10", dx=lambda g, x: g / (x * _LN10))
log1p = elementwise("log1p", dx=lambda g, x: g / (x + 1))
_LN2, _LN10 = 0.6931471805599453, 2.302585092994046

# ---- waves and sigmoids

sin = elementwise("sin", dx=lambda g, x: g * cos(x))
cos = elementwise("cos", dx=lambda g, x: -g * sin(x))
tan = elementwise("tan", dx=lambda g, out: g * (1 + out * out))
tanh = elementwise("tanh", dx=lambda g, out: g * (1 - out * out))
sigmoid = elementwise(
    "sigmoid", lambda xp, x, /: 1 / (1 + xp.exp(-x)), dx=lambda g, out: g * out * (1 - out)
)
erf = elementwise("erf", lambda xp, x, /: _special(xp).erf(x), dx=lambda g, x: g * (_2_PI * exp(-x * x)))
_2_PI = 1.1283791670955126  # 2 / sqrt(pi)


def _special(xp: Any) -> Any:
    """scipy.special, or CuPy's twin of it."""
    if xp.__name__ == "numpy":
        import scipy.special

        return scipy.special
    import cupyx.scipy.special

    return cupyx.scipy.special


relu = elementwise(
    "relu", lambda xp, x, /: xp.maximum(x, x.dtype.type(0)), floats=False, dx=lambda g, out: g * (out > 0)
)

# ---- choices; at ties a gradient is shared evenly

maximum = elementwise(
    "maximum", floats=False,
    dx=lambda g, x, y: where(x == y, g / 2, where(x > y, g, zeros_like(g))),
    dy=lambda g, x, y: where(x == y, g / 2, where(y > x, g, zeros_like(g))),
)  # fmt: skip
minimum = elementwise(
    "minimum", floats=False,
    dx=lambda g, x, y: where(x == y, g / 2, where(x < y, g, zeros_like(g))),
    dy=lambda g, x, y: where(x == y, g / 2, where(y < x, g, zeros_like(g))),
)  # fmt: skip
_clip = elementwise(
    "clamp", lambda xp, x, /, low, high: xp.clip(x, low, high), floats=False,
    dx=lambda g, x, low, high: where(_inside(x, low, high), g, zeros_like(g)),
)  # fmt: skip
where = linear(
    "where", lambda xp, condition, x, y, /: xp.where(condition, *_alike(xp, x, y)),
    dx=lambda g, condition: where(condition, g, zeros_like(g)),
    dy=lambda g, condition: where(condition, zeros_like(g), g),
)  # fmt: skip
masked_fill = elementwise(
    "masked_fill", lambda xp, x, mask, /, value: xp.where(mask, x.dtype.type(value), x), floats=False,
    dx=lambda g, mask: where(mask, zeros_like(g), g),
)  # fmt: skip


def _alike(xp: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """A Python number takes the dtype of the array beside it."""
    if not hasattr(x, "dtype"):
        x = xp.asarray(x, getattr(y, "dtype", None))
    return x, y if hasattr(y, "dtype") else xp.asarray(y, x.dtype)


def _inside(x: Any, low: Any, high: Any) -> Any:
    if low is None or high is None:
        return x <= high if low is None else x >= low
    return (x >= low) & (x <= high)


@public("clip")
def clamp(x: Any, min: Any = None, max: Any = None) -> Any:
    """out = max(low, min(x, high)); either bound may be None, a number or a tensor."""
    if min is None and max is None:
        raise ValueError("clamp: at least one of min and max must be given")
    if any(hasattr(bound, "shape") for bound in (min, max)):
        x = x if min is None else maximum(x, min)
        return x if max is None else minimum(x, max)
    return _clip(x, min, max)


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

# ---- what rules and users need besides

zeros_like = linear("zeros_like", lambda xp, x, /: xp.zeros_like(x), dx=lambda g: zeros_like(g))
ones_like = discrete("ones_like", lambda xp, x, /: xp.ones_like(x))

for _f, _names in {
    add: ("__add__", "__radd__"), sub: ("__sub__", "subtract"), mul: ("__mul__", "__rmul__", "multiply"),
    div: ("__truediv__", "divide", "true_divide"), neg: ("__neg__", "negative"), abs: ("__abs__", "absolute"),
    pow: ("__pow__",), floor_divide: ("__floordiv__",), remainder: ("__mod__",),
    eq: ("__eq__",), ne: ("__ne__",), lt: ("__lt__",), le: ("__le__",), gt: ("__gt__",), ge: ("__ge__",),
    bitwise_and: ("__and__", "__rand__"), bitwise_or: ("__or__", "__ror__"),
    bitwise_xor: ("__xor__", "__rxor__"), bitwise_not: ("__invert__",),
}.items():  # fmt: skip
    public(*_names)(_f)
for _f in (where, zeros_like, ones_like):
    public(method=False)(_f)


@public("__rsub__", method=False)
def rsub(x: Any, y: Any) -> Any:
    """out = y - x"""
    return sub(y, x)


@public("__rtruediv__", method=False)
def _rdiv(x: Any, y: Any) -> Any:
    return div(y, x)


@public("__rpow__", method=False)
def _rpow(x: Any, y: Any) -> Any:
    return pow(y, x)


__all__ = publish(globals())
