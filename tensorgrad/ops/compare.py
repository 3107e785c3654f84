"""Comparisons, logic and what is alike: elementwise, without derivatives."""

from __future__ import annotations

import builtins
from typing import Any

from tensorgrad.dtypes import as_dtype
from tensorgrad.kinds import discrete
from tensorgrad.publish import public, publish
from tensorgrad.tensor import Operable

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
    lt: ("__lt__", "less"), le: ("__le__", "less_equal"),
    gt: ("__gt__", "greater"), ge: ("__ge__", "greater_equal"), ne: ("not_equal",),
    bitwise_and: ("__and__", "__rand__"), bitwise_or: ("__or__", "__ror__"),
    bitwise_xor: ("__xor__", "__rxor__"), bitwise_not: ("__invert__",),
}.items():  # fmt: skip
    public(*_names)(_f)


def _comparison(op: Any) -> Any:
    """== and != answer for anything: of what is no number and no tensor Python says it differs."""
    return lambda x, y: (
        op(x, y) if hasattr(y, "dtype") or isinstance(y, (int, float, complex)) else NotImplemented
    )


Operable.__eq__ = _comparison(eq)  # type: ignore[method-assign]
Operable.__ne__ = _comparison(ne)  # type: ignore[method-assign]


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
