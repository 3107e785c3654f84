"""GELU, x Phi(x), and its tanh form.  Hendrycks and Gimpel 2016."""

import math

import numpy as np

from tensorgrad.kernels.cpu.elementary import exp, normal_cdf
from tensorgrad.kernels.cpu.jit import Array, OutVector, Vector, kernel, known, ready
from tensorgrad.kernels.cpu.threads import share

SLOPE, CUBIC = 2 * math.sqrt(2 / math.pi), 0.044715
BELL = 1 / math.sqrt(2 * math.pi)


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
    g, x, dx = g[lo:hi], x[lo:hi], dx[lo:hi]
    number = x.dtype.type
    one, slope, cubic, three = number(1), number(SLOPE), number(CUBIC), number(3 * CUBIC)
    for i in range(x.size):
        u = slope * (x[i] + cubic * x[i] * x[i] * x[i])
        s = one / (one + exp(-u))
        dx[i] = g[i] * (s + x[i] * s * (one - s) * slope * (one + three * x[i] * x[i]))


@kernel
def erf_forward(lo: int, hi: int, x: Vector, y: OutVector) -> None:
    x, y = x[lo:hi], y[lo:hi]
    half = x.dtype.type(-0.5)
    for i in range(x.size):
        y[i] = x[i] * normal_cdf(x[i], exp(half * x[i] * x[i]))


@kernel
def erf_backward(lo: int, hi: int, g: Vector, x: Vector, dx: OutVector) -> None:
    g, x, dx = g[lo:hi], x[lo:hi], dx[lo:hi]
    number = x.dtype.type
    half, height = number(-0.5), number(BELL)
    for i in range(x.size):
        bell = exp(half * x[i] * x[i])
        dx[i] = g[i] * (normal_cdf(x[i], bell) + x[i] * height * bell)


def gelu_forward(x: Array, approximate: str = "none") -> Array | None:
    """x Phi(x); approximate="tanh": 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x**3)))."""
    if not known(x):
        return None
    y = np.empty(x.shape, x.dtype)
    run = tanh_forward if approximate == "tanh" else erf_forward
    share(run[x.dtype], x.size, 0.7 * x.size, ready(x).ravel(), y.ravel())
    return y


def gelu_backward(g: Array, x: Array, approximate: str = "none") -> Array | None:
    """The gradient of the input, from that of the output and the input itself."""
    if not known(x, g) or g.shape != x.shape:
        return None
    dx = np.empty(x.shape, x.dtype)
    run = tanh_backward if approximate == "tanh" else erf_backward
    share(run[x.dtype], x.size, 0.9 * x.size, ready(g).ravel(), ready(x).ravel(), dx.ravel())
    return dx
