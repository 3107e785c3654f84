"""Elementwise kernels on bfloat16: read, computed in float32 and rounded in one pass."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorgrad.kernels.cpu.bits import narrow, widen
from tensorgrad.kernels.cpu.elementary import exp_whole, normal_cdf
from tensorgrad.kernels.cpu.gelu import BELL, CUBIC, SLOPE
from tensorgrad.kernels.cpu.jit import Array, Bits, Bools, Kernel, OutBits, helper, kernel

f = np.float32
FLOAT32 = np.dtype(f)
ZERO, HALF, ONE, THREE = f(0), f(0.5), f(1), f(3)
SLOPE32, CUBIC32, BELL32 = f(SLOPE), f(CUBIC), f(BELL)


def _loop(function: Callable[..., Any]) -> Kernel:
    """out[i] = function(x[i]), or of g[i] and x[i]."""
    at = helper(function)

    def one(lo: int, hi: int, x: Bits, out: OutBits) -> None:
        x, out = x[lo:hi], out[lo:hi]
        for i in range(x.size):
            out[i] = narrow(at(widen(x[i])))

    def two(lo: int, hi: int, g: Bits, x: Bits, out: OutBits) -> None:
        g, x, out = g[lo:hi], x[lo:hi], out[lo:hi]
        for i in range(x.size):
            out[i] = narrow(at(widen(g[i]), widen(x[i])))

    python: Callable[..., Any] = one if function.__code__.co_argcount == 1 else two
    python.__qualname__ = f"bf16{function.__name__}"
    return kernel(python)


def _tanh_gelu(x: Any) -> Any:
    return x / (ONE + exp_whole(-SLOPE32 * (x + CUBIC32 * x * x * x)))


def _tanh_slope(g: Any, x: Any) -> Any:
    s = ONE / (ONE + exp_whole(-SLOPE32 * (x + CUBIC32 * x * x * x)))
    return g * (s + x * s * (ONE - s) * SLOPE32 * (ONE + THREE * CUBIC32 * x * x))


def _erf_gelu(x: Any) -> Any:
    return x * normal_cdf(x, exp_whole(-HALF * x * x))


def _erf_slope(g: Any, x: Any) -> Any:
    bell = exp_whole(-HALF * x * x)
    return g * (normal_cdf(x, bell) + x * BELL32 * bell)


VALUES = {"tanh": _loop(_tanh_gelu), "none": _loop(_erf_gelu)}
SLOPES = {"tanh": _loop(_tanh_slope), "none": _loop(_erf_slope)}


def gelu(x: Array, approximate: str) -> Array:
    """x Phi(x) of bfloat16."""
    y = np.empty(x.shape, x.dtype)
    VALUES[approximate].over(FLOAT32, x.size, 0.8 * x.size, _bits(x), _bits(y))
    return y


def gelu_slope(g: Array, x: Array, approximate: str) -> Array:
    """g d gelu / dx of bfloat16."""
    dx = np.empty(x.shape, x.dtype)
    SLOPES[approximate].over(FLOAT32, x.size, 1.1 * x.size, _bits(g), _bits(x), _bits(dx))
    return dx


@kernel
def keep_some(lo: int, hi: int, x: Bits, keep: Bools, scale: float, y: OutBits) -> None:
    x, keep, y = x[lo:hi], keep[lo:hi], y[lo:hi]
    for i in range(x.size):
        y[i] = narrow(widen(x[i]) * (scale if keep[i] else ZERO))


def dropout(x: Array, keep: Array, scale: float) -> Array:
    """x scale where keep, else x 0, of bfloat16."""
    y = np.empty(x.shape, x.dtype)
    keep_some.over(FLOAT32, x.size, 0.2 * x.size, _bits(x), keep.ravel(), scale, _bits(y))
    return y


def _bits(x: Array) -> Array:
    return x.ravel().view(np.uint16)
