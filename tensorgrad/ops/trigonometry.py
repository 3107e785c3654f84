"""Inverse and hyperbolic functions: value and derivative of each on one line."""

from __future__ import annotations

from tensorgrad.kinds import elementwise
from tensorgrad.ops.elementwise import rsqrt
from tensorgrad.publish import publish

asin = elementwise("asin", "arcsin", dx=lambda g, x: g * rsqrt(1 - x * x))
acos = elementwise("acos", "arccos", dx=lambda g, x: -g * rsqrt(1 - x * x))
atan = elementwise("atan", "arctan", dx=lambda g, x: g / (1 + x * x))
sinh = elementwise("sinh", dx=lambda g, x: g * cosh(x))
cosh = elementwise("cosh", dx=lambda g, x: g * sinh(x))
asinh = elementwise("asinh", "arcsinh", dx=lambda g, x: g * rsqrt(x * x + 1))
acosh = elementwise("acosh", "arccosh", dx=lambda g, x: g * rsqrt(x * x - 1))

__all__ = publish(globals())
