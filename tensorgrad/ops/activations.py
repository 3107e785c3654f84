"""Activations beyond relu, sigmoid, tanh and gelu: the value and the slope of each, side by side.

At a kink the slope is PyTorch's; what overflows in a branch not taken does not reach the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorgrad.backend import is_array
from tensorgrad.dtypes import bool_, category
from tensorgrad.inplace import in_place
from tensorgrad.kinds import elementwise
from tensorgrad.ops.choices import _clip, _clipped, where
from tensorgrad.ops.elementwise import exp, relu, sigmoid, square, tanh
from tensorgrad.ops.shape import _reshape, _split, one_dim
from tensorgrad.ops.softmax import softmax
from tensorgrad.tensor import method

__all__ = ["celu", "celu_", "hardshrink", "prelu", "selu", "selu_", "threshold", "threshold_"]
"""Those that PyTorch has at its top level, too; nn.functional has all of them."""


def on_floats(name: str, source: Callable[..., Any], **rules: Any) -> Any:
    """An elementwise op that refuses integers.

    Half types pass by way of float32, as they do in PyTorch's kernels.
    """
    function = elementwise(name, source, floats=False, **rules)

    def guarded(xp: Any, x: Any, *others: Any) -> Any:
        if category(x.dtype) != 2:
            raise RuntimeError(f"{name}: expected floats, not {x.dtype}; use x.float()")
        if x.dtype.itemsize > 2:
            return source(xp, x, *others)
        wide = [y.astype(np.float32) if is_array(y) else y for y in (x, *others)]
        return xp.asarray(source(xp, *wide)).astype(x.dtype)

    function.op.source = guarded
    return function


# ---- straight above zero, exponential below


def _exponential(name: str) -> Any:
    """scale x where x > 0, else scale alpha (exp(rate x) - 1)."""
    return on_floats(
        name,
        lambda xp, x, /, alpha, scale, rate: xp.where(
            x > 0, scale * x, (scale * alpha) * xp.expm1(rate * xp.minimum(x, 0))
        ),
        dx=lambda g, x, alpha, scale, rate: where(
            x <= 0, g * (scale * alpha * rate) * exp(-rate * relu(-x)), g * scale
        ),
    )


_celu, _elu, _selu = _exponential("celu"), _exponential("elu"), _exponential("selu")
_SELU = (1.6732632423543772, 1.0507009873554805, 1.0)
"""alpha and scale for which mean 0 and variance 1 are a fixed point."""

# ---- straight pieces

_leaky_relu = on_floats(
    "leaky_relu", lambda xp, x, /, slope: xp.where(x > 0, x, slope * x),
    dx=lambda g, x, slope: where(x > 0, g, slope * g),
)  # fmt: skip
_prelu = on_floats(
    "prelu", lambda xp, x, weight, /: xp.where(x > 0, x, weight * x),
    dx=lambda g, x, weight: where(x > 0, g, weight * g),
    dweight=lambda g, x: where(x > 0, 0.0, g * x),
)  # fmt: skip
_threshold = elementwise(
    "threshold",
    lambda xp, x, /, threshold, value: xp.where(
        x <= x.dtype.type(threshold), x.dtype.type(value), x
    ),
    floats=False, dx=lambda g, x, threshold: where(x <= threshold, 0.0, g),
)  # fmt: skip


def _clamp(name: str) -> Any:
    """min(max(x, low), high), whose slope is 0 at the ends already, unlike clamp's."""
    return elementwise(
        name, lambda xp, x, /, low, high: _clipped(xp, x, low, high), floats=False,
        dx=lambda g, x, low, high: where((x <= low) | (x >= high), 0.0, g),
    )  # fmt: skip


_hardtanh, _relu6 = _clamp("hardtanh"), _clamp("relu6")
_hardsigmoid = on_floats(
    "hardsigmoid", lambda xp, x, /: xp.clip(x + 3, 0, 6) / 6,
    dx=lambda g, x: where((x > -3) & (x < 3), g / 6, 0.0),
)  # fmt: skip
_hardswish = on_floats(
    "hardswish", lambda xp, x, /: x * xp.clip(x + 3, 0, 6) / 6,
    dx=lambda g, x: where(x <= -3, 0.0, where(x < 3, g * (x / 3 + 0.5), g)),
)  # fmt: skip
_hardshrink = on_floats(
    "hardshrink", lambda xp, x, /, lambd: xp.where(xp.abs(x) <= lambd, 0, x),
    dx=lambda g, x, lambd: where((x >= -lambd) & (x <= lambd), 0.0, g),
)  # fmt: skip
_softshrink = on_floats(
    "softshrink", lambda xp, x, /, lambd: x - xp.clip(x, -lambd, lambd),
    dx=lambda g, x, lambd: where((x >= -lambd) & (x <= lambd), 0.0, g),
)  # fmt: skip

# ---- smooth

_silu = on_floats(
    "silu", lambda xp, x, /: x / (1 + xp.exp(-x)), dx=lambda g, x: g * _silu_slope(x)
)
_mish = on_floats(
    "mish", lambda xp, x, /: x * _tanh_softplus(x), dx=lambda g, x: g * _mish_slope(x)
)
_logsigmoid = on_floats(
    "logsigmoid", lambda xp, x, /: xp.minimum(x, 0) - xp.log1p(xp.exp(-xp.abs(x))),
    dx=lambda g, x: g * sigmoid(-x),
)  # fmt: skip
_softplus = on_floats(
    "softplus", lambda xp, x, /, beta, threshold: _soft_ramp(xp, x, beta, threshold),
    dx=lambda g, x, beta, threshold: where(x * beta > threshold, g, g * sigmoid(x * beta)),
)  # fmt: skip
_softsign = elementwise(
    "softsign", lambda xp, x, /: x / (1 + xp.abs(x)), dx=lambda g, x: g / square(1 + abs(x))
)
_tanhshrink = elementwise(
    "tanhshrink", lambda xp, x, /: x - xp.tanh(x), dx=lambda g, x: g * square(tanh(x))
)
_softsign.op.bools = _tanhshrink.op.bools = False


def _silu_slope(x: Any) -> Any:
    s = sigmoid(x)
    return s * (1 + x * (1 - s))


def _tanh_softplus(x: Any) -> Any:
    """tanh log(1 + e^x) = n / (n + 2), n = e^x (e^x + 2); beyond 20 it is 1 to the last bit."""
    e = exp(_clip(x, None, 20.0))
    n = e * (e + 2)
    return n / (n + 2)


def _mish_slope(x: Any) -> Any:
    t = _tanh_softplus(x)
    return t + x * sigmoid(x) * (1 - t * t)


def _soft_ramp(xp: Any, x: Any, beta: float, threshold: float) -> Any:
    z = x * beta
    soft = (xp.maximum(z, 0) + xp.log1p(xp.exp(-xp.abs(z)))) / beta
    return xp.where(z > threshold, x, soft)


# ---- the public functions, with PyTorch's signatures


def _run(op: Any, input: Any, inplace: bool, *params: Any) -> Any:
    if input.dtype == bool_:
        raise RuntimeError(f"{op.__name__}: not for bools; use x.float()")
    return (in_place(op, op.__name__ + "_") if inplace else op)(input, *params)


def celu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """y = max(x, 0) + min(0, alpha (exp(x / alpha) - 1)).  Barron 2017."""
    if alpha == 0:
        raise RuntimeError("celu: x is divided by alpha, which must not be 0")
    return _run(_celu, input, inplace, alpha, 1.0, 1 / alpha)


def elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """y = x where x > 0, else alpha (exp(x) - 1).  Clevert, Unterthiner and Hochreiter 2015."""
    return _run(_elu, input, inplace, alpha, 1.0, 1.0)


def selu(input: Any, inplace: bool = False) -> Any:
    """y = 1.0507 x where x > 0, else 1.0507 * 1.6733 (exp(x) - 1).  Klambauer et al. 2017."""
    return _run(_selu, input, inplace, *_SELU)


def leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    """y = x where x > 0, else negative_slope x.  Maas, Hannun and Ng 2013."""
    return _run(_leaky_relu, input, inplace, negative_slope)


def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
    """y = min(max(x, min_val), max_val)."""
    if min_val > max_val:
        raise ValueError(f"hardtanh: min_val {min_val} is greater than max_val {max_val}")
    return _run(_hardtanh, input, inplace, min_val, max_val)


def relu6(input: Any, inplace: bool = False) -> Any:
    """y = min(max(x, 0), 6).  Krizhevsky 2010."""
    return _run(_relu6, input, inplace, 0, 6)


def hardsigmoid(input: Any, inplace: bool = False) -> Any:
    """y = min(max(x + 3, 0), 6) / 6.  Howard et al. 2019."""
    return _run(_hardsigmoid, input, inplace)


def hardswish(input: Any, inplace: bool = False) -> Any:
    """y = x min(max(x + 3, 0), 6) / 6.  Howard et al. 2019."""
    return _run(_hardswish, input, inplace)


def silu(input: Any, inplace: bool = False) -> Any:
    """y = x sigmoid(x).  Hendrycks and Gimpel 2016; Ramachandran, Zoph and Le 2017, as swish."""
    return _run(_silu, input, inplace)


def mish(input: Any, inplace: bool = False) -> Any:
    """y = x tanh(log(1 + exp(x))).  Misra 2019."""
    return _run(_mish, input, inplace)


def threshold(input: Any, threshold: float, value: float, inplace: bool = False) -> Any:
    """y = x where x > threshold, else value."""
    return _run(_threshold, input, inplace, threshold, value)


def hardshrink(input: Any, lambd: float = 0.5) -> Any:
    """y = x where |x| > lambd, else 0."""
    return _hardshrink(input, lambd)


def softshrink(input: Any, lambd: float = 0.5) -> Any:
    """y = x - lambd where x > lambd, x + lambd where x < -lambd, else 0."""
    if lambd < 0:
        raise RuntimeError(f"softshrink: lambd must not be negative, it is {lambd}")
    return _softshrink(input, lambd)


def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """y = log(1 + exp(beta x)) / beta, x itself where beta x > threshold.  Dugas et al. 2001."""
    return _softplus(input, beta, threshold)


def logsigmoid(input: Any) -> Any:
    """y = log(1 / (1 + exp(-x)))."""
    return _logsigmoid(input)


def softsign(input: Any) -> Any:
    """y = x / (1 + |x|).  Bergstra et al. 2009."""
    return _softsign(input)


def tanhshrink(input: Any) -> Any:
    """y = x - tanh(x)."""
    return _tanhshrink(input)


def softmin(input: Any, dim: int, dtype: Any = None) -> Any:
    """y = exp(-x) / sum exp(-x) along a dim."""
    return softmax(-input, dim, dtype)


def glu(input: Any, dim: int = -1) -> Any:
    """y = a sigmoid(b), a and b the halves of x along a dim.  Dauphin et al. 2016."""
    if not input.ndim:
        raise RuntimeError("glu: a 0-d tensor cannot be halved")
    d = one_dim("glu", dim, input.ndim)
    half, rest = divmod(input.shape[d], 2)
    if rest or category(input.dtype) != 2:
        raise RuntimeError(
            f"glu: expected floats of an even size along dim {dim}, "
            f"not {input.dtype} of shape {input.shape}"
        )
    a, b = _split(input, (half, half), d)
    return a * sigmoid(b)


def prelu(input: Any, weight: Any) -> Any:
    """y = x where x > 0, else weight x.  He et al. 2015.

    input (N, C, ...) or anything; weight (C), or one number for all.
    """
    if weight.dtype != input.dtype:
        raise RuntimeError(f"prelu: a weight of {weight.dtype} for an input of {input.dtype}")
    if weight.ndim > 1:
        raise RuntimeError(f"prelu: weight must have one dim at most, its shape is {weight.shape}")
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.numel() not in (1, channels):
        raise RuntimeError(
            f"prelu: {weight.numel()} weights for the {channels} channels of shape {input.shape}"
        )
    shape = [1] * input.ndim
    if input.ndim > 1:
        shape[1] = weight.numel()
    return _prelu(input, _reshape(weight, tuple(shape)))


def celu_(input: Any, alpha: float = 1.0) -> Any:
    return celu(input, alpha, True)


def elu_(input: Any, alpha: float = 1.0) -> Any:
    return elu(input, alpha, True)


def selu_(input: Any) -> Any:
    return selu(input, True)


def leaky_relu_(input: Any, negative_slope: float = 0.01) -> Any:
    return leaky_relu(input, negative_slope, True)


def hardtanh_(input: Any, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    return hardtanh(input, min_val, max_val, True)


def threshold_(input: Any, threshold: float, value: float) -> Any:
    return _run(_threshold, input, True, threshold, value)


for _function in (hardshrink, prelu):
    method(_function)
