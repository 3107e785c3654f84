"""GELU, x Phi(x), and its tanh form.  Hendrycks and Gimpel 2016."""

import math

import numpy as np

from tensorgrad.kernels.cpu.elementary import exp, normal_cdf
from tensorgrad.kernels.cpu.jit import Array, OutVector, Vector, is_bfloat16, kernel, known

SLOPE, CUBIC = 2 * math.sqrt(2 / math.pi), 0.044715
BELL = 1 / math.sqrt(2 * math.pi)
BLOCK = 1024  # slopes are computed apart: loops vectorise although dx may be g itself


@kernel
def tanh_forward(lo: int, hi: int, x: Vector, y: OutVector) -> None:
    x, y = x[lo:hi], y[lo:hi]
    number = x.dtype.type
    one, slope, cubic = number(1), number(SLOPE), number(CUBIC)
    for i in range(x.size):
        u = slope * (x[i] + cubic * x[i] * x[i] * x[i])
        y[i] = x[i] / (one + exp(-u))  # (1 + tanh(u / 2)) / 2 = 1 / (1 + exp(-u))


@kernel
def tanh_backward(lo: int, hi: int, g: Vector, x: Vector, dx: OutVector) -> None:
    number = x.dtype.type
    one, slope, cubic, three = number(1), number(SLOPE), number(CUBIC), number(3 * CUBIC)
    slopes = np.empty(BLOCK, x.dtype)
    for start in range(lo, hi, BLOCK):
        stop = min(start + BLOCK, hi)
        xs, gs, out = x[start:stop], g[start:stop], dx[start:stop]
        for i in range(xs.size):
            u = slope * (xs[i] + cubic * xs[i] * xs[i] * xs[i])
            s = one / (one + exp(-u))
            slopes[i] = s + xs[i] * s * (one - s) * slope * (one + three * xs[i] * xs[i])
        for i in range(xs.size):
            slopes[i] *= gs[i]
        for i in range(xs.size):
            out[i] = slopes[i]


@kernel
def erf_forward(lo: int, hi: int, x: Vector, y: OutVector) -> None:
    x, y = x[lo:hi], y[lo:hi]
    half = x.dtype.type(-0.5)
    for i in range(x.size):
        y[i] = x[i] * normal_cdf(x[i], exp(half * x[i] * x[i]))


@kernel
def erf_backward(lo: int, hi: int, g: Vector, x: Vector, dx: OutVector) -> None:
    number = x.dtype.type
    half, height = number(-0.5), number(BELL)
    slopes = np.empty(BLOCK, x.dtype)
    for start in range(lo, hi, BLOCK):
        stop = min(start + BLOCK, hi)
        xs, gs, out = x[start:stop], g[start:stop], dx[start:stop]
        for i in range(xs.size):
            bell = exp(half * xs[i] * xs[i])
            slopes[i] = normal_cdf(xs[i], bell) + xs[i] * height * bell
        for i in range(xs.size):
            slopes[i] *= gs[i]
        for i in range(xs.size):
            out[i] = slopes[i]


def gelu_forward(x: Array, approximate: str = "none") -> Array | None:
    """x Phi(x); approximate="tanh": 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x**3)))."""
    if is_bfloat16(x.dtype):
        from tensorgrad.kernels.cpu import bf16_maps

        return bf16_maps.gelu(x, approximate)
    if not known(x):
        return None
    y = np.empty(x.shape, x.dtype)
    run = tanh_forward if approximate == "tanh" else erf_forward
    run.over(x.dtype, x.size, 0.7 * x.size, x.ravel(), y.ravel())
    return y


def gelu_backward(
    g: Array, x: Array, approximate: str = "none", out: Array | None = None
) -> Array | None:
    """The gradient of the input, from that of the output and the input itself.

    It is written into `out`, which may be g, if that lies as it should."""
    if is_bfloat16(x.dtype) and g.dtype == x.dtype and g.shape == x.shape:
        from tensorgrad.kernels.cpu import bf16_maps

        return bf16_maps.gelu_slope(g, x, approximate)
    if not known(x, g) or g.shape != x.shape:
        return None
    if out is None or not known(x, out) or out.shape != x.shape or not out.flags.carray:
        out = np.empty(x.shape, x.dtype)
    run = tanh_backward if approximate == "tanh" else erf_backward
    run.over(x.dtype, x.size, 0.9 * x.size, g.ravel(), x.ravel(), out.ravel())
    return out
