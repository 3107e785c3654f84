"""Normalisation by batch, by groups of channels, by root mean square, by norm; distances."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from tensorgrad import mode
from tensorgrad.convert import cast
from tensorgrad.dtypes import category, float32, result_type
from tensorgrad.kinds import elementwise, fused
from tensorgrad.memory import stamp
from tensorgrad.ops.elementwise import clamp_min, rsqrt, square
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


# ---- its faster twin, for rows of channels: the scale and the shift are a part of it


def _rows_formula(x: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any, Any]:
    y, mean, var = _formula(x, (0,), eps)
    return _scaled(y, weight, bias), _reshape(mean, mean.shape[1:]), _reshape(var, var.shape[1:])


def _rows_forward(xp: Any, x: Any, weight: Any, bias: Any, /, eps: float) -> Any:
    """y (N, C), mean (C), var (C), 1 / deviation (C)"""
    answer = ask("batch_norm_forward", x, x, weight, bias, eps)
    if answer is not None:
        return answer
    y, mean, var, scale = _standard(x, (0,), eps)
    return _scaled(y, weight, bias), mean[0], var[0], scale[0]


def _rows_slope(gs: Any, x: Any, weight: Any, mean: Any, scale: Any, needs: Any) -> Any:
    """dx = (g - mean(g) - xhat mean(g xhat)) scale weight; dweight = sum g xhat; dbias = sum g."""
    g, g_mean, g_var = gs
    if g is None:
        dx, dweight, dbias = 0 * x, None, None
    else:
        answer = ask("batch_norm_backward", x, g, x, weight, mean, scale, needs[0])
        if answer is None:
            wide, xhat = _wide(g), (_wide(x) - mean) * scale
            dweight, dbias, dx = _sum(wide * xhat, (0,), False), _sum(wide, (0,), False), None
            if needs[0]:
                dx = (wide - (dbias + xhat * dweight) / x.shape[0]) * scale
                dx = _narrow(dx if weight is None else dx * weight, x)
        else:
            dx, dweight, dbias = answer
    if g_mean is not None:
        dx = dx + g_mean / x.shape[0]
    if g_var is not None:
        dx = dx + (x - mean) * (g_var * (2 / x.shape[0]))
    return dx, dweight, dbias


_by_columns = fused(
    "batch_norm_rows", _rows_forward, _rows_formula, outputs=("out", "mean", "var", "scale"),
    visible=3, joint=_rows_slope,
)  # fmt: skip


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
    if type(running) is type(new) is Tensor and not mode.careful and running.node is None:
        array = running.array  # what the ops below do, without the price of two ops
        array *= 1 - momentum
        array += new.array.reshape(array.shape) * (momentum * times)
        stamp(array)
        return
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
    if len(shape) == 2 and count and not _is_half(input):
        y, mean, var = _by_columns(input, weight, bias, eps)
    else:
        y, mean, var = _standardize(input, (0, *range(2, len(shape))), eps)
        y = _scaled(y, weight, bias)
    if tracked and count:
        _track(running_mean, mean, momentum)
        _track(running_var, var, momentum, count / (count - 1))
    return y


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
