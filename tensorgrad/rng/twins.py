"""Numba twins of the two loops that NumPy is slow at: the float32 Box-Muller, and shuffling.

Importing this module imports Numba: do it inside the function that needs it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from tensorgrad.rng.boxmuller import (
    COS,
    FOUR_OVER_PI,
    LOG,
    LOG_TWO,
    QUARTER_PI,
    SIN,
    SQRT_HALF,
    TWO_PI,
    F,
)

Int = np.int32
L0, L1, L2, L3, L4, L5, L6, L7, L8 = LOG
C0, C1, C2 = COS
S0, S1, S2 = SIN
P0, P1, P2 = QUARTER_PI
LOG_HEAD, LOG_TAIL = LOG_TWO


def _fma(context: Any, x: Any, y: Any, z: Any) -> Any:
    """x y + z with one rounding."""
    return x(x, x, x), lambda context, builder, signature, args: builder.fma(*args)


def _bitcast(source: Any, target: Any) -> Any:
    """The intrinsic that reads the bits of a `source` as a `target`."""

    def cast(context: Any, x: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], context.get_value_type(target))

        return target(source), emit

    return intrinsic(cast)


fma: Any = intrinsic(_fma)
bits = _bitcast(types.float32, types.int32)
real = _bitcast(types.int32, types.float32)


@njit("void(float32[::1], float32[::1], float32, float32)", cache=True, error_model="numpy")
def box_muller(u: Any, v: Any, mean: Any, std: Any) -> None:
    """`boxmuller.box_muller` and `scale` in place: u becomes the cosines, v the sines.

    A straight line without branches, so that the compiler makes vectors of it.
    """
    for i in range(u.size):
        word = bits(F(1) - u[i])
        m = real((word & Int(0x7FFFFF)) | Int(0x3F000000))
        power = F((word >> Int(23)) - Int(126))
        low = m < SQRT_HALF
        power = power - (F(1) if low else F(0))
        x = (m - F(1)) + (m if low else F(0))
        square = x * x
        y = fma(x, L0, L1)
        y = fma(x, y, L2)
        y = fma(x, y, L3)
        y = fma(x, y, L4)
        y = fma(x, y, L5)
        y = fma(x, y, L6)
        y = fma(x, y, L7)
        y = fma(x, y, L8)
        y = fma(x * y, square, power * LOG_TAIL) - F(0.5) * square
        radius = math.sqrt(F(-2) * ((x + y) + power * LOG_HEAD))

        theta = TWO_PI * v[i]
        octant = (Int(theta * FOUR_OVER_PI) + Int(1)) & Int(-2)
        y = F(octant)
        x = fma(y, P2, fma(y, P1, fma(y, P0, theta)))
        square = x * x
        cosine = fma(square, fma(square, C0, C1), C2)
        cosine = fma(square, square * cosine, F(-0.5) * square) + F(1)
        sine = fma(square, fma(square, S0, S1), S2)
        sine = fma(square * sine, x, x)
        swap = (octant & Int(2)) != Int(0)
        a = cosine if swap else sine
        b = sine if swap else cosine
        a = real(bits(a) ^ ((octant & Int(4)) << Int(29)))
        b = real(bits(b) ^ ((~(octant - Int(2)) & Int(4)) << Int(29)))
        u[i] = fma(radius * b, std, mean)
        v[i] = fma(radius * a, std, mean)


@njit("void(int64[::1], int64[::1])", cache=True)
def swap_forward(order: Any, offsets: Any) -> None:
    """Exchange element i with element i + offsets[i], for i = 0, 1, ..."""
    for i in range(offsets.size):
        j = i + offsets[i]
        order[i], order[j] = order[j], order[i]


@njit("void(int64[::1], int64[::1], int64)", cache=True)
def insert_forward(order: Any, places: Any, start: Any) -> None:
    """Put i = start + k at places[k] <= i and what was there at i, for k = 0, 1, ..."""
    for k in range(places.size):
        i = start + k
        order[i] = order[places[k]]
        order[places[k]] = i
