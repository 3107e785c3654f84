"""Normalisation by batch, by groups of channels, by root mean square, by norm; distances."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from tensorgrad import mode
from tensorgrad.backend import xp_of
from tensorgrad.convert import cast
from tensorgrad.dtypes import category, float32, result_type
from tensorgrad.kinds import elementwise, fused
from tensorgrad.memory import stamp
from tensorgrad.ops.choices import clamp_min
from tensorgrad.ops.elementwise import rsqrt, square
from tensorgrad.ops.layer_norm import _rows
from tensorgrad.ops.reduce import _count, _is_half, _mean, _sum, norm
from tensorgrad.ops.shape import _reshape, all_dims
from tensorgrad.tensor import Tensor
from tensorgrad.twins import ask

__all__ = ["cosine_similarity", "pairwise_distance"]
"""Those that PyTorch has at its top level, too; nn.functional has all of them."""


def _wide(x: Any) -> Any:
    """Half types as float32: their squares overflow, and their sums round."""
    return cast(x, float32) if _is_half(x) else x


def _narrow(y: Any, x: Any) -> Any:
    """y in x's dtype."""
    return y if y.dtype == x.dtype else cast(y, x.dtype)


# ---- the primitive of batch_norm, which wants to see the statistics, too


def _formula(x: Any, dims: tuple[int, ...], eps: float) -> tuple[Any, Any, Any]:
    """(x - mean) / sqrt(var + eps), mean, var: the biased variance; dims stay, at size one."""
    return _standard(x, dims, eps)[:3]


def _standard(x: Any, dims: tuple[int, ...], eps: float) -> tuple[Any, Any, Any, Any]:
    wide = _wide(x)
    mean = _mean(wide, dims, True)
    centred = wide - mean
    var = _mean(square(centred), dims, True)
    scale = rsqrt(var + eps)
    return _narrow(centred * scale, x), mean, var, scale


def _slope(gs: Any, out: Any, scale: Any, dims: tuple[int, ...]) -> Any:
    """dx = (g - mean(g) - out mean(g out)) scale + (g_mean + 2 g_var out / scale) / n."""
    g, g_mean, g_var = gs
    n, y, parts = _count(out.shape, dims), _wide(out), []
    if g is not None:
        g = _wide(g)
        parts.append((g - _mean(g, dims, True) - y * _mean(g * y, dims, True)) * scale)
    if g_mean is not None:
        parts.append(g_mean / n)
    if g_var is not None:
        parts.append(g_var / scale * (2 / n) * y)
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return _narrow(total, out)


_standardize = fused(
    "standardize", lambda xp, x, /, dims, eps: _standard(x, dims, eps), _formula,
    outputs=("out", "mean", "var", "scale"), visible=3, floats=False,
    dx=lambda g, out, scale, dims: _slope(g, out, scale, dims),
)  # fmt: skip


# ---- its faster twin, for channels that come last: scale and shift are a part of it


def _last_formula(x: Any, weight: Any, bias: Any, eps: float, told: Any) -> Any:
    y = _formula(x, tuple(range(x.ndim - 1)), eps)[0]
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _last_forward(xp: Any, x: Any, weight: Any, bias: Any, /, eps: float, told: Any) -> Any:
    """y (..., C), mean (C), 1 / deviation (C); told (2, C) receives mean and biased variance."""
    answer = ask("batch_norm_forward", x, x, weight, bias, eps, told)
    if answer is not None:
        return answer
    dims = tuple(range(x.ndim - 1))
    y, mean, var, scale = _standard(x, dims, eps)
    told[0], told[1] = mean.reshape(-1), var.reshape(-1)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias, told[0], scale.reshape(-1)


def _last_slope(g: Any, x: Any, weight: Any, mean: Any, scale: Any, needs: Any) -> Any:
    """dx = (g - mean(g) - xhat mean(g xhat)) scale weight; dweight = sum g xhat; dbias = sum g."""
    answer = ask("batch_norm_backward", x, g, x, weight, mean, scale, needs[0])
    if answer is not None:
        return answer
    dims, xhat = tuple(range(x.ndim - 1)), (x - mean) * scale
    dweight, dbias, dx = _sum(g * xhat, dims, False), _sum(g, dims, False), None
    if needs[0]:
        dx = (g - (dbias + xhat * dweight) / (x.size // scale.size)) * scale
        dx = dx if weight is None else dx * weight
    return dx, dweight, dbias


_channels_last = fused(
    "batch_norm", _last_forward, _last_formula, outputs=("out", "mean", "scale"),
    joint=_last_slope,
)  # fmt: skip


def _quick(x: Any, *vectors: Any) -> bool:
    """Whether the twin may take the place of the ops: plain Tensors that fit, nobody watching."""
    if mode.careful or type(x) is not Tensor:
        return False
    a = x.array
    dtype, shape = a.dtype, a.shape[-1:]
    if not a.size > shape[0]:  # no variance
        return False
    for v in vectors:
        if v is not None and (
            type(v) is not Tensor or v.array.dtype is not dtype or v.array.shape != shape
        ):
            return False
    return bool(dtype.itemsize > 2)


# ---- what they share


def _check(name: str, x: Any, channels: int, **vectors: Any) -> None:
    """Floats, and vectors with one number per channel; RuntimeError says which is not."""
    if category(x.dtype) != 2:
        raise RuntimeError(f"{name}: expected floats, not {x.dtype}; use x.float()")
    for key, vector in vectors.items():
        if vector is not None and tuple(vector.shape) != (channels,):
            raise RuntimeError(
                f"{name}: {key} should have shape ({channels},), one number per channel, "
                f"not {vector.shape}"
            )


def _both(name: str, running_mean: Any, running_var: Any) -> bool:
    if (running_mean is None) != (running_var is None):
        raise ValueError(f"{name}: give both running_mean and running_var, or neither")
    return running_mean is not None


def _track(running: Any, new: Any, momentum: float, times: float = 1.0) -> None:
    """running <- (1 - momentum) running + momentum times new, in place and without history."""
    running.mul_(1 - momentum).add_(_reshape(new.detach(), running.shape) * (momentum * times))


def _scaled(x: Any, weight: Any, bias: Any) -> Any:
    """x weight + bias, along the second dim, in x's dtype whatever theirs."""
    y = x if weight is None else x * _along_channels(weight, x.ndim)
    y = y if bias is None else y + _along_channels(bias, x.ndim)
    return _narrow(y, x)


def _along_channels(vector: Any, ndim: int) -> Any:
    """(C) -> (C, 1, ...), which stretches over (N, C, ...)."""
    return vector if ndim == 2 else _reshape(vector, (vector.shape[0],) + (1,) * (ndim - 2))


def _by_rows(x: Any, count: int, size: int, eps: float) -> Any:
    """x cut into rows, each less its mean and over its deviation: layer_norm's kernels do it."""
    if not count * size:
        return x
    return _reshape(_rows(_reshape(x, (count, size)), None, None, eps), x.shape)


# ---- the public functions


def batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """y = (x - mean) / sqrt(var + eps) * weight + bias, channel by channel.

    input (N, C, ...); the others (C), or None.  In training the statistics are the batch's, with
    the biased variance, and the running ones move by `momentum` towards them, with the unbiased
    one; otherwise the running ones serve.  Ioffe and Szegedy 2015.
    """
    name, shape = "batch_norm", input.shape
    if len(shape) < 2:
        raise IndexError(f"{name}: expected an input (N, C, ...), not one of shape {shape}")
    channels = shape[1]
    _check(name, input, channels, running_mean=running_mean, running_var=running_var,
           weight=weight, bias=bias)  # fmt: skip
    tracked = _both(name, running_mean, running_var)
    if not training:
        if not tracked:
            raise RuntimeError(f"{name}: without training=True it needs running_mean, running_var")
        scale = rsqrt(_wide(running_var) + eps)
        scale = scale if weight is None else scale * weight
        shift = -_wide(running_mean) * scale
        return _scaled(input, scale, shift if bias is None else shift + bias)
    count = shape[0] * prod(shape[2:])
    if count == 1:
        raise ValueError(f"{name}: an input of shape {shape} has only one value per channel")
    if len(shape) == 2 and _quick(input, running_mean, running_var, weight, bias):
        return _rows_norm(input, running_mean, running_var, weight, bias, momentum, eps)
    y, mean, var = _standardize(input, (0, *range(2, len(shape))), eps)
    y = _scaled(y, weight, bias)
    if tracked and count:
        _track(running_mean, mean, momentum)
        _track(running_var, var, momentum, count / (count - 1))
    return y


def _rows_norm(
    x: Any, running_mean: Any, running_var: Any, weight: Any, bias: Any, momentum: float, eps: float
) -> Any:
    """batch_norm in training of plain Tensors whose channels come last, (..., C)."""
    a = x.array
    told = xp_of(a).empty((2, a.shape[-1]), a.dtype)
    y = _channels_last(x, weight, bias, eps, told)
    if running_mean is not None:
        new, count = told * momentum, a.size // a.shape[-1]
        new[1] *= count / (count - 1)
        for running, part in ((running_mean.array, new[0]), (running_var.array, new[1])):
            running *= 1 - momentum
            running += part
            stamp(running)
    return y


def batch_norm_last(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """batch_norm of an input (N, ..., C), whose channels come last."""
    vectors = (running_mean, running_var, weight, bias)
    if training and (running_mean is None) == (running_var is None) and _quick(input, *vectors):
        return _rows_norm(input, *vectors, momentum, eps)
    rows = _reshape(input, (-1, input.shape[-1]))  # (N, ..., C) -> (M, C)
    return _reshape(batch_norm(rows, *vectors, training, momentum, eps), input.shape)


def group_norm(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """y = (x - mean) / sqrt(var + eps) * weight + bias, over each sample's groups of channels.

    input (N, C, ...); num_groups divides C; weight and bias (C), or None.  The variance is the
    biased one.  Wu and He 2018.
    """
    name, shape = "group_norm", input.shape
    if len(shape) < 2:
        raise RuntimeError(f"{name}: expected an input (N, C, ...), not one of shape {shape}")
    n, channels = shape[:2]
    if num_groups < 1 or channels % num_groups:
        raise RuntimeError(f"{name}: {channels} channels are not divisible by {num_groups} groups")
    _check(name, input, channels, weight=weight, bias=bias)
    size = channels // num_groups * prod(shape[2:])
    if n * size == 1:
        raise ValueError(f"{name}: an input of shape {shape} has only one value per group")
    return _scaled(_by_rows(input, n * num_groups, size, eps), weight, bias)


def instance_norm(
    input: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None,
    bias: Any = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """y = (x - mean) / sqrt(var + eps) * weight + bias, over each sample's channels.

    input (N, C, L, ...); the others (C), or None.  With use_input_stats the running statistics,
    if given, move by `momentum` towards the samples' average; without it they serve, as in
    batch_norm.  Ulyanov, Vedaldi and Lempitsky 2016.
    """
    name, shape = "instance_norm", input.shape
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise RuntimeError(f"{name}: use_input_stats=False needs running_mean and running_var")
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    size = prod(shape[2:])
    if len(shape) < 3 or size == 1:
        raise ValueError(f"{name}: an input of shape {shape} has only one value per channel")
    n, channels = shape[:2]
    _check(name, input, channels, running_mean=running_mean, running_var=running_var,
           weight=weight, bias=bias)  # fmt: skip
    if _both(name, running_mean, running_var) and n and size:
        _, mean, var = _standardize(_reshape(input, (n, channels, size)).detach(), (2,), eps)
        _track(running_mean, _mean(mean, (0,), False), momentum)
        _track(running_var, _mean(var, (0,), False) * (size / (size - 1)), momentum)
    return _scaled(_by_rows(input, n * channels, size, eps), weight, bias)


def rms_norm(
    input: Any, normalized_shape: int | Sequence[int], weight: Any = None, eps: float | None = None
) -> Any:
    """y = x / sqrt(mean(x^2) + eps) * weight over the last dims, of sizes normalized_shape.

    input (..., *normalized_shape), weight (*normalized_shape).  eps is by default the spacing of
    the input's floats at 1, float32's for half types.  Zhang and Sennrich 2019.
    """
    name, shape = "rms_norm", tuple(input.shape)
    sizes = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not sizes or shape[-len(sizes) :] != sizes:
        raise RuntimeError(
            f"{name}: an input of shape {shape} does not end with normalized_shape {sizes}"
        )
    if weight is not None and tuple(weight.shape) != sizes:
        raise RuntimeError(f"{name}: weight has shape {weight.shape}, normalized_shape is {sizes}")
    _check(name, input, 0)
    x = _wide(input)
    squares = _mean(square(x), tuple(range(len(shape) - len(sizes), len(shape))), True)
    y = _narrow(x * rsqrt(squares + (float(np.finfo(x.dtype).eps) if eps is None else eps)), input)
    return y if weight is None else y * weight


def normalize(input: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Any:
    """y = x / max(norm_p(x), eps) along dim, or over a tuple of dims."""
    return input / clamp_min(norm(input, p, all_dims("normalize", dim, input.ndim), True), eps)


_at_least = elementwise(
    "at_least", lambda xp, x, /, low: xp.maximum(x, x.dtype.type(low)), floats=False,
    dx=lambda g: g,
)  # fmt: skip
"""max(x, low) with slope 1 throughout: what PyTorch clamps under no_grad."""


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """cos = sum(x y) / (max(norm(x), eps) max(norm(y), eps)) along dim."""
    name = "cosine_similarity"
    if category(result_type(x1, x2)) != 2:
        raise RuntimeError(f"{name}: expected floats, not {x1.dtype} and {x2.dtype}")
    try:
        shape = np.broadcast_shapes(x1.shape, x2.shape)
    except ValueError:
        raise RuntimeError(
            f"{name}: shapes {x1.shape} and {x2.shape} do not broadcast together"
        ) from None
    dims = all_dims(name, dim, len(shape))
    x, y = (
        v / _at_least(norm(v, 2.0, dims, True), eps)
        for v in (x1.expand(shape), x2.expand(shape))
    )  # fmt: skip
    return _sum(x * y, dims, False)


def pairwise_distance(
    x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Any:
    """d = norm_p(x - y + eps) along the last dim: (..., D), (..., D) -> (...)."""
    difference = x1 - x2 + eps
    return norm(difference, p, all_dims("pairwise_distance", -1, difference.ndim), keepdim)
