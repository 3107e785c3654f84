"""Arithmetic that rounds alike everywhere: fused multiply-adds, and the C library's functions.

PyTorch's samplers were compiled with fused multiply-adds and call libm; equal bits need both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def fma(x: Any, y: Any, z: Any) -> Array:
    """x y + z with one rounding, to the dtype of `x`: float32 or float64.

    A float32 product is exact in float64, so only a sum that falls half-way between two float32
    numbers needs care.  In float64 product and sums leave their errors, which are added to odd:
    Boldo and Melquiond 2008.
    """
    x = np.asarray(x)
    y, z = np.asarray(y, x.dtype), np.asarray(z, x.dtype)
    shape = np.broadcast_shapes(x.shape, y.shape, z.shape)
    if x.dtype == np.float32:
        product = np.atleast_1d(np.multiply(x, y, dtype=np.float64))
        total = product + z
        tied = (total.view(np.int64) & 0x1FFFFFFF) == 0x10000000
        if tied.any():
            addend = np.broadcast_to(z, total.shape)[tied].astype(np.float64)
            total[tied] = _add_to_odd(np.broadcast_to(product, total.shape)[tied], addend)
        rounded: Array = total.astype(np.float32).reshape(shape)
        return rounded
    high, low = _two_product(x, y)
    carry, rest = _two_sum(z, low)
    total, error = _two_sum(high, carry)
    return np.asarray(total + _add_to_odd(error, rest))


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """a + b = s + e exactly.  Knuth 1969."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """a b = p + e exactly, each factor split into two of 26 bits.  Dekker 1971."""
    p = a * b
    ca, cb = a * 134217729.0, b * 134217729.0
    ah, bh = ca - (ca - a), cb - (cb - b)
    al, bl = a - ah, b - bh
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


def _add_to_odd(a: Array, b: Array) -> Array:
    """a + b, but an inexact sum goes to the neighbour whose last bit is 1: safe to round again."""
    s, e = (np.atleast_1d(part) for part in _two_sum(a, b))
    even = (e != 0) & (s.view(np.int64) & 1 == 0)
    s[even] = np.nextafter(s[even], np.copysign(np.inf, e[even]))
    return s.reshape(np.broadcast_shapes(np.shape(a), np.shape(b)))


_SCALAR: dict[str, Callable[[float], float]] = {
    "log": lambda x: math.log(x) if x > 0 else -math.inf,
    "log1p": math.log1p,
    "exp": lambda x: math.exp(x) if x < 709.78 else float(np.exp(x)),
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
}


@cache
def libm(name: str) -> Callable[[Array], Array]:
    """The C library's float64 function: NumPy's if it gives the same bits, else one at a time.

    NumPy has vector versions for AVX-512 that differ in the last place; a probe tells.
    """
    ends = (-0.999, 0.0) if name == "log1p" else (1e-3, 6.3)
    probe = np.linspace(*ends, 4099)
    loop: Callable[[Array], Array] = getattr(np, name)
    return loop if np.array_equal(loop(probe), one_by_one(name)(probe)) else one_by_one(name)


def one_by_one(name: str) -> Callable[[Array], Array]:
    """The function `name` of `math` over an array."""
    scalar = _SCALAR[name]

    def over(x: Array) -> Array:
        return np.fromiter(map(scalar, x.ravel().tolist()), np.float64, x.size).reshape(x.shape)

    return over
