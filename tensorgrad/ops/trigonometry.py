"""Inverse and hyperbolic functions, angles and lengths: value and derivative of each in a line."""

from __future__ import annotations

from typing import Any

from tensorgrad.kinds import elementwise
from tensorgrad.ops.choices import where
from tensorgrad.ops.elementwise import rsqrt
from tensorgrad.publish import publish

asin = elementwise("asin", "arcsin", dx=lambda g, x: g * rsqrt(1 - x * x))
acos = elementwise("acos", "arccos", dx=lambda g, x: -g * rsqrt(1 - x * x))
atan = elementwise("atan", "arctan", dx=lambda g, x: g / (1 + x * x))
sinh = elementwise("sinh", dx=lambda g, x: g * cosh(x))
cosh = elementwise("cosh", dx=lambda g, x: g * sinh(x))
asinh = elementwise("asinh", "arcsinh", dx=lambda g, x: g * rsqrt(x * x + 1))
acosh = elementwise("acosh", "arccosh", dx=lambda g, x: g * rsqrt(x * x - 1))
atanh = elementwise("atanh", "arctanh", dx=lambda g, x: g / (1 - x * x))
atan2 = elementwise(
    "atan2", "arctan2",
    dx=lambda g, x, y: g * _over_square(y, x, y), dy=lambda g, x, y: -g * _over_square(x, x, y),
)  # fmt: skip
hypot = elementwise("hypot", dx=lambda g, x, out: g * (x / out), dy=lambda g, y, out: g * (y / out))


def _over_square(part: Any, x: Any, y: Any) -> Any:
    """part / (x^2 + y^2), and 0 at the origin, where there is no angle."""
    square = x * x + y * y
    origin = square == 0
    return where(origin, 0, part / where(origin, 1, square))


__all__ = publish(globals())
