"""PyTorch's Box-Muller on the CPU: r cos t and r sin t with r = sqrt(-2 log(1 - u)), t = 2 pi v.

In float32 log, sin and cos are cephes' polynomials (Moshier 1984) with fused multiply-adds, bit for
bit what PyTorch computes on x86 with AVX2; in float64 they are the C library's.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tensorgrad.rng.exact import Array, fma, libm

F = np.float32


def _f(*numbers: float) -> tuple[F, ...]:
    return tuple(map(F, numbers))


SQRT_HALF, TWO_PI, FOUR_OVER_PI = _f(0.707106781186547524, 6.283185307179586, 1.27323954473516)
LOG = _f(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
         -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)  # fmt: skip
SIN = _f(-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
COS = _f(2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
LOG_TWO = _f(0.693359375, -2.12194440e-4)  # its head and its tail
QUARTER_PI = _f(-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8)  # -pi/4 likewise


def box_muller(u: Array, v: Array) -> tuple[Array, Array]:
    """(r cos t, r sin t) of uniforms u, v in [0, 1), both float32 or float64, of one shape."""
    if u.dtype == F:
        radius = np.sqrt(F(-2) * _log(F(1) - u))
        sine, cosine = _sincos(TWO_PI * v)
    else:
        radius = np.sqrt(-2.0 * libm("log")(1.0 - u))
        theta = 2.0 * np.pi * v
        sine, cosine = libm("sin")(theta), libm("cos")(theta)
    return radius * cosine, radius * sine


def scale(z: Array, start: float, width: float) -> Array:
    """z width + start with one rounding.  A width of 1 or a start of 0 needs no fused step."""
    start, width = z.dtype.type(start), z.dtype.type(width)
    return z * width + start if width == 1 or start == 0 else fma(z, width, start)


def _fma(x: Array, y: Array | F, z: Array | F) -> Array:
    """x y + z through float64: exact but for a double rounding.

    None is met from any of the 2^24 uniforms that this file is given; all were tried.
    """
    total = x.astype(np.float64)
    total *= y
    total += z
    return total.astype(F)


def _polynomial(x: Array, coefficients: Iterable[F]) -> Array:
    first, second, *rest = coefficients
    y = _fma(x, first, second)
    for coefficient in rest:
        y = _fma(x, y, coefficient)
    return y


def _log(x: Array) -> Array:
    """log x for float32 x in [2^-24, 1]: x = 2^e m, m in [sqrt(1/2), sqrt 2), a polynomial in m."""
    bits = x.view(np.int32)
    m = (bits & 0x7FFFFF | 0x3F000000).view(F)  # in [1/2, 1)
    low = m < SQRT_HALF
    power = ((bits >> 23) - 126 - low).astype(F)
    x = m - F(1)
    x += m * low
    square = x * x
    y = _fma(x * _polynomial(x, LOG), square, power * LOG_TWO[1])
    y -= F(0.5) * square
    x += y
    x += power * LOG_TWO[0]
    return x


def _sincos(theta: Array) -> tuple[Array, Array]:
    """(sin, cos) of float32 theta in [0, 2 pi): polynomials around the multiples of pi/2."""
    octant = (theta * FOUR_OVER_PI).astype(np.int32) + 1 & ~1
    y = octant.astype(F)
    x = theta
    for part in QUARTER_PI:
        x = _fma(y, part, x)
    square = x * x
    cosine = _fma(square, square * _polynomial(square, COS), F(-0.5) * square) + F(1)
    sine = _fma(square * _polynomial(square, SIN), x, x)
    swap = octant & 2 != 0
    sine, cosine = np.where(swap, cosine, sine), np.where(swap, sine, cosine)
    sine.view(np.int32)[...] ^= (octant & 4) << 29
    cosine.view(np.int32)[...] ^= (~(octant - 2) & 4) << 29
    return sine, cosine
