"""Elementwise functions of float32 and their slopes, a line each, as loops that LLVM vectorises.

NumPy takes one pass for each operation of a formula, and is slow where a number stands beside."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorgrad.kernels.cpu import threads
from tensorgrad.kernels.cpu.elementary import exp_whole, larger, log_whole, smaller, tanh_whole
from tensorgrad.kernels.cpu.jit import Array, Bools, Kernel, OutVector, Vector, helper, kernel

f = np.float32
FLOAT32 = np.dtype(f)
ZERO, HALF, ONE = f(0), f(0.5), f(1)


def _loop(function: Callable[..., Any], vectors: int, numbers: int, mask: bool) -> Kernel:
    """out[i] = function(x[i], ..., numbers), compiled when first needed."""
    at = helper(function)

    def one(lo: int, hi: int, x: Vector, out: OutVector) -> None:
        x, out = x[lo:hi], out[lo:hi]
        for i in range(x.size):
            out[i] = at(x[i])

    def two(lo: int, hi: int, x: Vector, y: Vector, out: OutVector) -> None:
        x, y, out = x[lo:hi], y[lo:hi], out[lo:hi]
        for i in range(x.size):
            out[i] = at(x[i], y[i])

    def three(lo: int, hi: int, x: Vector, y: Vector, z: Vector, out: OutVector) -> None:
        x, y, z, out = x[lo:hi], y[lo:hi], z[lo:hi], out[lo:hi]
        for i in range(x.size):
            out[i] = at(x[i], y[i], z[i])

    def one_between(lo: int, hi: int, x: Vector, out: OutVector, low: float, high: float) -> None:
        x, out = x[lo:hi], out[lo:hi]
        for i in range(x.size):
            out[i] = at(x[i], low, high)

    def two_between(
        lo: int, hi: int, x: Vector, y: Vector, out: OutVector, low: float, high: float
    ) -> None:
        x, y, out = x[lo:hi], y[lo:hi], out[lo:hi]
        for i in range(x.size):
            out[i] = at(x[i], y[i], low, high)

    def masked(lo: int, hi: int, c: Bools, x: Vector, out: OutVector) -> None:
        c, x, out = c[lo:hi], x[lo:hi], out[lo:hi]
        for i in range(x.size):
            out[i] = at(c[i], x[i])

    def chosen(lo: int, hi: int, c: Bools, x: Vector, y: Vector, out: OutVector) -> None:
        c, x, y, out = c[lo:hi], x[lo:hi], y[lo:hi], out[lo:hi]
        for i in range(x.size):
            out[i] = at(c[i], x[i], y[i])

    python: Callable[..., Any] = {  # type: ignore[assignment]
        (1, 0, False): one, (2, 0, False): two, (3, 0, False): three,
        (1, 2, False): one_between, (2, 2, False): two_between,
        (1, 0, True): masked, (2, 0, True): chosen,
    }[vectors, numbers, mask]  # fmt: skip
    python.__qualname__ = function.__name__
    return kernel(python)


def _map(
    function: Callable[..., Any], cost: float, numbers: int = 0, mask: bool = False
) -> Callable[..., Array | None]:
    """function as it is called: arrays of one shape in, an array out, or None where it declines.

    cost: nanoseconds an element, by which the work is divided among threads."""
    vectors = function.__code__.co_argcount - numbers - mask
    loop = _loop(function, vectors, numbers, mask)
    alone = int(2 * threads.WORTH / cost)  # elements up to which one thread does them all

    def unary(x: Array, *rest: float) -> Array | None:
        if x.dtype is not FLOAT32 or not x.flags.c_contiguous:
            return None
        out = np.empty(x.shape, f)
        n = x.size
        if n < alone:
            loop[FLOAT32](0, n, x.reshape(-1), out.reshape(-1), *rest)
        else:
            threads.share(loop[FLOAT32], n, n * cost, x.reshape(-1), out.reshape(-1), *rest)
        return out

    def several(x: Array, *rest: Any) -> Array | None:
        others, params = rest[: vectors + mask - 1], rest[vectors + mask - 1 :]
        shape, flat = x.shape, [x.reshape(-1)]
        if not x.flags.c_contiguous or not (mask or x.dtype is FLOAT32):
            return None
        for y in others:
            if type(y) is not np.ndarray or y.dtype is not FLOAT32 or y.shape != shape:
                return None
            if not y.flags.c_contiguous:
                return None
            flat.append(y.reshape(-1))
        out = np.empty(shape, f)
        n = x.size
        if n < alone:
            loop[FLOAT32](0, n, *flat, out.reshape(-1), *params)
        else:
            threads.share(loop[FLOAT32], n, n * cost, *flat, out.reshape(-1), *params)
        return out

    return unary if vectors == 1 and not mask else several


# ---- exponentials

map_exp = _map(lambda x: exp_whole(x), 0.8)
map_log = _map(lambda x: log_whole(x), 0.8)
map_tanh = _map(lambda x: tanh_whole(x), 0.8)
map_tanh_slope = _map(lambda g, out: g * (ONE - out * out), 0.2)
map_sigmoid = _map(lambda x: ONE / (ONE + exp_whole(-x)), 0.9)
map_sigmoid_slope = _map(lambda g, out: g * out * (ONE - out), 0.2)
map_silu = _map(lambda x: x / (ONE + exp_whole(-x)), 0.9)


def _silu_slope(g: Any, x: Any) -> Any:
    s = ONE / (ONE + exp_whole(-x))
    return g * (s + x * s * (ONE - s))


map_silu_slope = _map(_silu_slope, 1.0)

# ---- straight pieces

map_relu = _map(lambda x: larger(x, ZERO), 0.15)
map_relu_slope = _map(lambda g, out: g if out > ZERO else ZERO, 0.2)
map_abs_slope = _map(lambda g, x: g if x > ZERO else -g if x < ZERO else ZERO * g, 0.2)
_clamp = _map(lambda x, low, high: smaller(larger(x, low), high), 0.15, numbers=2)
_clamp_slope = _map(lambda g, x, low, high: g if low <= x <= high else ZERO, 0.2, numbers=2)
map_maximum_slope = _map(
    lambda g, x, y: ZERO if x < y else HALF * g if x == y else g, 0.3
)  # where x or y is NaN: g
map_minimum_slope = _map(lambda g, x, y: ZERO if x > y else HALF * g if x == y else g, 0.3)
map_where = _map(lambda c, x, y: x if c else y, 0.25, mask=True)
_where_else_zero = _map(lambda c, g: g if c else ZERO, 0.2, mask=True)
_zero_where = _map(lambda c, g: ZERO if c else g, 0.2, mask=True)


def map_where_slope(g: Array, c: Array) -> Array | None:
    """g where c, else 0."""
    return _where_else_zero(c, g)


def map_where_not_slope(g: Array, c: Array) -> Array | None:
    """0 where c, else g."""
    return _zero_where(c, g)


def map_clamp(x: Array, low: float | None, high: float | None) -> Array | None:
    """min(max(x, low), high)."""
    return _clamp(x, *_bounds(low, high))


def map_clamp_slope(g: Array, x: Array, low: float | None, high: float | None) -> Array | None:
    """g where low <= x <= high, else 0."""
    return _clamp_slope(g, x, *_bounds(low, high))


def _bounds(low: float | None, high: float | None) -> tuple[float, float]:
    return -np.inf if low is None else low, np.inf if high is None else high
