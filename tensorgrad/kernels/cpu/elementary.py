"""exp and the normal distribution function as LLVM can vectorise them (libm's are called one number at a time).

Float32 by range reduction and minimax polynomials, to 1-2 ulp; float64 by libm."""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from tensorgrad.kernels.cpu.jit import exact

f = np.float32
ZERO, HALF, ONE, INFINITY = f(0), f(0.5), f(1), f(np.inf)
LOG2_E = f(1 / math.log(2))
LN2_HIGH = f(0.693359375)  # n * LN2_HIGH is exact for |n| < 2**13
LN2_LOW = f(math.log(2) - 0.693359375)
# Adding 1.5 * 2**23 rounds to an integer and leaves it in the low bits; 127 more makes it an exponent field.
ROUND = f(1.5 * 2**23 + 127)
UNDERFLOW, OVERFLOW = f(-87.33), f(88.37)

# (e**r - 1 - r) / r**2 for |r| <= ln(2) / 2; relative error of the whole 3e-9
E0, E1, E2, E3, E4 = map(
    f, (0.499999934321, 0.16666520399, 0.0416683907835, 0.00836874510894, 0.00138145401768)
)
# Phi(-a) * exp(a * a / 2) / t, t = 1 / (1 + 0.35 a), a >= 0; relative error 3e-8
MILLS = f(0.35)
P0, P1, P2, P3, P4, P5, P6, P7, P8 = map(
    f,
    (
        0.1396214044, 0.1398618687, 0.1198328744, 0.1055079777, -0.02310977441,
        0.1591740748, -0.255714182, 0.143971664, -0.02914592358,
    ),
)  # fmt: skip


@intrinsic  # type: ignore[untyped-decorator]
def _power_of_two(typing: Any, t: Any) -> Any:
    """2**n for the integer n that was rounded by adding ROUND: its bits, moved to the exponent's place."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = ir.IntType(32)
        shifted = builder.shl(builder.bitcast(args[0], bits), ir.Constant(bits, 23))
        return builder.bitcast(shifted, ir.FloatType())

    return types.float32(types.float32), generate


@intrinsic  # type: ignore[untyped-decorator]
def larger(typing: Any, a: Any, b: Any) -> Any:
    """max(a, b), NaN if either is; unlike `a if a > b else b`, LLVM vectorises a loop over it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = args[0].type
        shape = ir.FunctionType(number, [number, number])
        return builder.call(
            builder.module.declare_intrinsic("llvm.maximum", [number], shape), args
        )

    return a(a, a), generate


@exact
def _exp32(x):
    t = x * LOG2_E + ROUND
    n = t - ROUND
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = (((E4 * r + E3) * r + E2) * r + E1) * r + E0
    y = (p * r * r + r + ONE) * _power_of_two(t)
    y = ZERO if x < UNDERFLOW else y
    return INFINITY if x > OVERFLOW else y


@exact
def _normal_cdf32(x, bell):
    t = ONE / (ONE + MILLS * abs(x))
    p = ((((((P8 * t + P7) * t + P6) * t + P5) * t + P4) * t + P3) * t + P2) * t + P1
    tail = bell * t * (p * t + P0)
    return ONE - tail if x > ZERO else tail


@exact
def _exp64(x):
    return math.exp(x)


@exact
def _normal_cdf64(x, bell):
    return 0.5 * math.erfc(x * -0.7071067811865476)


def exp(x: Any) -> Any:
    """e**x of one number; float32 results under 2**-126 are 0."""
    return np.exp(x)


def normal_cdf(x: Any, bell: Any) -> Any:
    """Phi(x), given bell = exp(-x*x / 2)."""
    return 0.5 * math.erfc(-x / math.sqrt(2)) + 0 * bell


@overload(exp, inline="always")
def _exp(x):
    return (lambda x: _exp32(x)) if x == types.float32 else (lambda x: _exp64(x))


@overload(normal_cdf, inline="always")
def _normal_cdf(x, bell):
    if x == types.float32:
        return lambda x, bell: _normal_cdf32(x, bell)
    return lambda x, bell: _normal_cdf64(x, bell)
