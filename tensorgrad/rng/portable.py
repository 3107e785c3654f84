"""log, exp, tan and the circle from + - * /, sqrt and bits: the same numbers from NumPy and CuPy.

Each operation rounds as IEEE 754 prescribes and none is fused with the next, so nothing can differ.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = Any  # a numpy.ndarray or a cupy.ndarray

# of a float type: its integer twin, bits of the stored significand, exponent of 1/2, terms of log
FLOATS = {
    np.dtype(np.float32): (np.int32, 23, 126, 5),
    np.dtype(np.float64): (np.int64, 52, 1022, 11),
}
# of an unsigned type: its signed twin, its bits, the float that turns are computed in, terms
TURNS = {
    np.dtype(np.uint32): (np.int32, 32, np.float32, 6),
    np.dtype(np.uint64): (np.int64, 64, np.float64, 9),
}


def log(x: Array) -> Array:
    """log x = e log 2 + 2 artanh((m - 1) / (m + 1)), x = 2^e m, m in [sqrt(1/2), sqrt 2); x > 0.

    Zero, which has no logarithm, gets a number below that of every normal one.
    """
    integer, digits, half, terms = FLOATS[x.dtype]
    real = x.dtype.type
    bits = x.view(integer)
    m = (bits & integer((1 << digits) - 1) | integer(half << digits)).view(x.dtype)
    e = (bits >> integer(digits)) - integer(half)
    low = m < real(math.sqrt(0.5))
    m = np.where(low, m + m, m)
    e = (e - low).astype(x.dtype)
    s = (m - real(1)) / (m + real(1))
    artanh = s * _series(s * s, [1 / (2 * k + 1) for k in range(terms)])
    return artanh + artanh + e * real(math.log(2))


def exp(x: Array) -> Array:
    """e^x = 2^k e^r, x = k log 2 + r, |r| <= log(2) / 2; float64."""
    x = np.clip(x, -1000.0, 1000.0)
    k = np.rint(x * (1 / math.log(2)))
    r = x - k * 0.693147180369123816490 - k * 1.90821492927058770002e-10  # exact but for the tail
    return np.ldexp(_series(r, [1 / math.factorial(j) for j in range(15)]), k.astype(np.int32))


def tan(x: Array) -> Array:
    """tan x = 2 s c / (c^2 - s^2), s and c of x / 2, for |x| <= pi / 2; float64."""
    cosine, sine = _cos_sin(x * 0.5, 9)
    return 2.0 * sine * cosine / ((cosine - sine) * (cosine + sine))


def circle(turn: Array) -> tuple[Array, Array]:
    """(cos, sin) of 2 pi turn / 2^32 for uint32, in float32; of 2 pi turn / 2^64 for uint64.

    The nearest quarter turn is taken off the integer, without rounding; pi / 4 at most is left.
    """
    word = turn.dtype.type
    signed, size, real, terms = TURNS[turn.dtype]
    quarter = (turn + word(1 << (size - 3))) >> word(size - 2)  # the sum may wrap, as turns do
    rest = (turn - (quarter << word(size - 2))).view(signed).astype(real)
    cosine, sine = _cos_sin(rest * real(2 * math.pi / 2.0**size), terms)
    odd, negative = quarter & word(1) != 0, quarter & word(2) != 0
    real_part: Array = np.where(odd, -sine, cosine)
    imaginary: Array = np.where(odd, cosine, sine)
    return np.where(negative, -real_part, real_part), np.where(negative, -imaginary, imaginary)


def _cos_sin(x: Array, terms: int) -> tuple[Array, Array]:
    """Taylor's series, for |x| <= pi / 4."""
    square = x * x
    cosine = _series(square, [(-1) ** j / math.factorial(2 * j) for j in range(terms)])
    sine = x * _series(square, [(-1) ** j / math.factorial(2 * j + 1) for j in range(terms)])
    return cosine, sine


def _series(z: Array, coefficients: list[float]) -> Array:
    """c0 + c1 z + c2 z^2 + ... by Horner's rule."""
    real = z.dtype.type
    total = z * real(coefficients[-1]) + real(coefficients[-2])
    for coefficient in coefficients[-3::-1]:
        total = total * z + real(coefficient)
    return total
