"""Box-Muller as PyTorch's CPU generator does it: r cos t and r sin t, with r = sqrt(-2 log(1 - u)), t = 2 pi v.

In float32 the logarithm, sine and cosine are cephes' polynomials (Moshier 1984) with fused multiply-adds, bit for
bit PyTorch's AVX2 code; in float64 they are the C library's.
"""

from __future__ import annotations

import numpy as np

from tensorgrad.rng.exact import Array, fma, libm

F = np.float32
SQRT_HALF = F(0.707106781186547524)
LOG_TAIL, LOG_HEAD = F(-2.12194440e-4), F(0.693359375)  # log 2 in two parts
LOG = tuple(map(F, (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
                    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)))
FOUR_OVER_PI, TWO_PI = F(1.27323954473516), F(6.283185307179586)
QUARTER_PI = tuple(map(F, (-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8)))  # -pi/4 in three parts
SIN = tuple(map(F, (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)))
COS = tuple(map(F, (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)))


def box_muller(u: Array, v: Array) -> tuple[Array, Array]:
    """(r cos t, r sin t) of uniforms u, v in [0, 1), float32 or float64, of one shape."""
    if u.dtype == np.float32:
        radius = np.sqrt(F(-2) * _log(F(1) - u))
        sine, cosine = _sincos(TWO_PI * v)
    else:
        radius = np.sqrt(-2.0 * libm("log")(1.0 - u))
        theta = 2.0 * np.pi * v
        sine, cosine = libm("sin")(theta), libm("cos")(theta)
    return radius * cosine, radius * sine


def scale(z: Array, mean: float, std: float) -> Array:
    """z std + mean with one rounding, in the dtype of `z`.  A factor of one or a zero mean needs no fused step."""
    mean, std = z.dtype.type(mean), z.dtype.type(std)
    return z * std + mean if std == 1 or mean == 0 else fma(z, std, mean)


def _fma(x: Array, y: Array | F, z: Array | F) -> Array:
    """x y + z through float64.  On the 2^24 uniforms of this file it never meets a double rounding (all were tried)."""
    total = x.astype(np.float64)
    total *= y
    total += z
    return total.astype(F)


def _log(x: Array) -> Array:
    """log x for float32 x in [2^-24, 1]: x = 2^e m with m in [sqrt(1/2), sqrt 2), then a polynomial in m - 1."""
    bits = x.view(np.int32)
    m = (bits & 0x7FFFFF | 0x3F000000).view(F)
    e = (bits >> 23) - 126
    low = m < SQRT_HALF
    e -= low
    power = e.astype(F)
    x = m - F(1)
    x += m * low
    square = x * x
    y = _fma(x, LOG[0], LOG[1])
    for coefficient in LOG[2:]:
        y = _fma(x, y, coefficient)
    y = _fma(x * y, square, power * LOG_TAIL)
    y -= F(0.5) * square
    x += y
    x += power * LOG_HEAD
    return x


def _sincos(theta: Array) -> tuple[Array, Array]:
    """(sin, cos) of float32 theta in [0, 2 pi): the distance to the nearest multiple of pi/2, then two polynomials."""
    octant = (theta * FOUR_OVER_PI).astype(np.int32) + 1 & ~1
    y = octant.astype(F)
    x = theta
    for part in QUARTER_PI:
        x = _fma(y, part, x)
    square = x * x
    cosine = _fma(square, COS[0], COS[1])
    cosine = _fma(square, cosine, COS[2])
    cosine = _fma(square, square * cosine, F(-0.5) * square) + F(1)
    sine = _fma(square, SIN[0], SIN[1])
    sine = _fma(square, sine, SIN[2])
    sine = _fma(square * sine, x, x)
    swap = octant & 2 != 0
    sine, cosine = np.where(swap, cosine, sine), np.where(swap, sine, cosine)
    sine.view(np.int32)[...] ^= (octant & 4) << 29
    cosine.view(np.int32)[...] ^= (~(octant - 2) & 4) << 29
    return sine, cosine
