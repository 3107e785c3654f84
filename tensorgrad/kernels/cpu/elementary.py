"""exp and the normal distribution function in a form that LLVM vectorises, which libm's is not.

float32 by range reduction and minimax polynomials, to 1-2 ulp; float64 by libm."""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import overload

from tensorgrad.kernels.cpu.jit import OPTIONS, emitted, helper

f = np.float32
ZERO, ONE, INFINITY = f(0), f(1), f(np.inf)
LOG2_E = f(1 / math.log(2))
LN2_HIGH = f(0.693359375)  # n * LN2_HIGH is exact for |n| < 2**13
LN2_LOW = f(math.log(2) - 0.693359375)
# Adding 1.5 * 2**23 rounds to an integer, left in the low bits; 127 more make it an exponent.
ROUND = f(1.5 * 2**23 + 127)
UNDERFLOW, OVERFLOW = f(-87.33), f(88.37)

# (e**r - 1 - r) / r**2 for |r| <= log(2) / 2; what it adds to e**r is wrong by 3e-9 at most.
E0, E1, E2, E3, E4 = map(
    f, (0.499999934321, 0.16666520399, 0.0416683907835, 0.00836874510894, 0.00138145401768)
)
# Phi(-a) exp(a * a / 2) / t where t = 1 / (1 + 0.35 a), for a from 0 to 14; relative error 3e-8.
SLANT = f(0.35)
P0, P1, P2, P3, P4, P5, P6, P7, P8 = map(
    f,
    (
        0.1396214044, 0.1398618687, 0.1198328744, 0.1055079777, -0.02310977441,
        0.1591740748, -0.255714182, 0.143971664, -0.02914592358,
    ),
)  # fmt: skip


LEAST, MOST = f(-104), f(89)  # beyond, e**x is 0 and infinite
# log(1 + m) = m - m**2 / 2 + m**3 * polynomial, the coefficients of Cephes' logf.
L8, L7, L6, L5, L4, L3, L2, L1, L0 = map(
    f,
    (
        7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
        -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    ),
)  # fmt: skip
ROOT_HALF_BITS = np.float32(math.sqrt(0.5)).view(np.int32)
SMALLEST_NORMAL, NAN = f(2.0**-126), f(np.nan)
# tanh(x) = x + x**3 * polynomial of x**2 near 0, the coefficients of Cephes' tanhf.
T4, T3, T2, T1, T0 = map(
    f,
    (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1),
)
NEAR = f(0.625)


@emitted
def _power_of_two(typing: Any, t: Any) -> Any:
    """2**n for the integer n that adding ROUND has left in the low bits of t."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = ir.IntType(32)
        exponent = builder.shl(builder.bitcast(args[0], bits), ir.Constant(bits, 23))
        return builder.bitcast(exponent, ir.FloatType())

    return types.float32(types.float32), generate


def _extreme(name: str) -> Any:
    """An LLVM intrinsic of two numbers that is NaN if either is."""

    @emitted
    def choose(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            number = args[0].type
            kind = ir.FunctionType(number, [number, number])
            function = builder.module.declare_intrinsic(name, [number], kind)
            return builder.call(function, args)

        return a(a, a), generate

    return choose


# max(a, b) and min(a, b); unlike `a if a > b else b`, a loop over them vectorises.
larger, smaller = _extreme("llvm.maximum"), _extreme("llvm.minimum")


@emitted
def plus(typing: Any, a: Any, b: Any) -> Any:
    """a + b that may be reordered: a sum written with it vectorises.

    For sums alone: reordering (x - top) - log(total) would lose what top is subtracted for."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(*args, flags=["reassoc", "contract", "nsz"])

    return a(a, a), generate


@emitted
def _bits(typing: Any, x: Any) -> Any:
    """The bits of a float32 as an int32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), generate


@emitted
def _from_bits(typing: Any, x: Any) -> Any:
    """The float32 of these bits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


@helper
def exp_whole(x: Any) -> Any:
    """e**x of one float32 over the whole range, subnormal results too: 2**n in two halves."""
    inside = smaller(larger(x, LEAST), MOST)
    n = (inside * LOG2_E + ROUND) - ROUND
    r = (inside - n * LN2_HIGH) - n * LN2_LOW
    p = (((E4 * r + E3) * r + E2) * r + E1) * r + E0
    half = (f(0.5) * n + ROUND) - ROUND
    y = (p * r * r + r + ONE) * _power_of_two(half + ROUND)
    return y * _power_of_two((n - half) + ROUND)


@helper
def log_whole(x: Any) -> Any:
    """log(x) of one float32: x = m 2**n with m between sqrt(1/2) and sqrt(2)."""
    small = x < SMALLEST_NORMAL
    scaled = x * f(2**23) if small else x
    bits = _bits(scaled)
    n = (bits - ROOT_HALF_BITS) >> np.int32(23)
    m = _from_bits(bits - (n << np.int32(23))) - ONE
    n = f(n) - (f(23) if small else ZERO)
    z = m * m
    p = (((L8 * m + L7) * m + L6) * m + L5) * m + L4
    p = (((p * m + L3) * m + L2) * m + L1) * m + L0
    y = p * m * z + n * LN2_LOW - f(0.5) * z
    y = (m + y) + n * LN2_HIGH
    y = y if x < INFINITY else x  # infinity, and NaN
    y = y if x > ZERO or x != x else NAN
    return -INFINITY if x == ZERO else y


@helper
def tanh_whole(x: Any) -> Any:
    """tanh(x) of one float32: 1 - 2 / (e**2x + 1), and near 0 an odd polynomial."""
    a, z = abs(x), x * x
    far = ONE - f(2) / (exp_whole(a + a) + ONE)
    p = (((T4 * z + T3) * z + T2) * z + T1) * z + T0
    far = far if x > ZERO else -far
    return (p * z + ONE) * x if a < NEAR else far


def exp(x: Any) -> Any:
    """e**x of one number; float32 results under 2**-126 are 0."""
    return math.exp(x)


def normal_cdf(x: Any, bell: Any) -> Any:
    """Phi(x) of one number, given bell = exp(-x * x / 2)."""
    return 0.5 * math.erfc(x * -0.7071067811865476)


def _exp32(x: Any) -> Any:
    t = x * LOG2_E + ROUND
    n = t - ROUND
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = (((E4 * r + E3) * r + E2) * r + E1) * r + E0
    y = (p * r * r + r + ONE) * _power_of_two(t)
    y = ZERO if x < UNDERFLOW else y
    return INFINITY if x > OVERFLOW else y


def _normal_cdf32(x: Any, bell: Any) -> Any:
    t = ONE / (ONE + SLANT * abs(x))
    p = ((((((P8 * t + P7) * t + P6) * t + P5) * t + P4) * t + P3) * t + P2) * t + P1
    tail = bell * t * (p * t + P0)
    return ONE - tail if x > ZERO else tail


@overload(exp, jit_options=OPTIONS)
def _exp(x: Any) -> Any:
    return _exp32 if x == types.float32 else exp


@overload(normal_cdf, jit_options=OPTIONS)
def _normal_cdf(x: Any, bell: Any) -> Any:
    return _normal_cdf32 if x == types.float32 else normal_cdf
