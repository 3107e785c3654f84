"""Layer normalisation over the last dims.  Ba, Kiros and Hinton 2016."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.dtypes import category
from tensorgrad.kinds import fused
from tensorgrad.ops.elementwise import square
from tensorgrad.ops.reduce import _mean
from tensorgrad.ops.shape import _reshape
from tensorgrad.twins import ask


def _formula(x: Any, weight: Any, bias: Any, eps: float) -> Any:
    """(x - mean) / sqrt(var + eps) * weight + bias, over the last dim of (N, C)."""
    centred = x - _mean(x, (1,), True)
    y = centred / (_mean(square(centred), (1,), True) + eps) ** 0.5
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _forward(xp: Any, x: Any, weight: Any, bias: Any, /, eps: float) -> Any:
    """y (N, C), mean (N,), 1 / deviation (N,); statistics in float32 at least."""
    answer = ask("layer_norm_forward", x, x, weight, bias, eps)
    if answer is not None:
        return answer
    wide = x.astype(np.float32) if x.dtype.itemsize == 2 else x
    mean = wide.mean(1)
    y = wide - mean[:, None]
    rstd = 1 / xp.sqrt(xp.square(y).mean(1) + wide.dtype.type(eps))
    y *= rstd[:, None]
    if weight is not None:
        y *= weight
    if bias is not None:
        y += bias
    return y.astype(x.dtype, copy=False), mean, rstd


def _backward(g: Any, x: Any, weight: Any, bias: Any, mean: Any, rstd: Any, needs: Any) -> Any:
    """dx = (gw - mean(gw) - xhat mean(gw xhat)) rstd;  dweight = sum g xhat;  dbias = sum g."""
    answer = ask("layer_norm_backward", x, g, x, weight, mean, rstd, needs)
    if answer is not None:
        return answer
    xhat = (x - mean[:, None]) * rstd[:, None]
    dx = None
    if needs[0]:
        gw = g if weight is None else g * weight
        dx = (gw - gw.mean(1, keepdims=True) - xhat * (gw * xhat).mean(1, keepdims=True)) * rstd[
            :, None
        ]
    return dx, (g * xhat).sum(0) if needs[1] else None, g.sum(0) if needs[2] else None


_rows = fused(
    "layer_norm", _forward, _formula, outputs=("out", "mean", "rstd"),
    joint=_backward,
)  # fmt: skip


def layer_norm(
    x: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """y = (x - mean) / sqrt(var + eps) * weight + bias over the last dims, normalized_shape.

    x (..., *normalized_shape); weight and bias (*normalized_shape).  The variance is biased.
    """
    dims = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not dims or tuple(x.shape[-len(dims) :]) != dims:
        raise RuntimeError(
            f"layer_norm: an input of shape {x.shape} does not end with normalized_shape {dims}"
        )
    for name, p in (("weight", weight), ("bias", bias)):
        if p is not None and tuple(p.shape) != dims:
            raise RuntimeError(
                f"layer_norm: {name} has shape {p.shape}, normalized_shape is {dims}"
            )
    if category(x.dtype) != 2:
        raise RuntimeError(f"layer_norm: expected a floating-point tensor, not {x.dtype}")
    size = 1
    for n in dims:
        size *= n
    if len(dims) == 1 and x.ndim == 2:
        return _rows(x, weight, bias, eps)
    rows = _reshape(x, (x.numel() // size if size else 0, size))
    flat = [p if p is None or len(dims) == 1 else _reshape(p, (size,)) for p in (weight, bias)]
    return _reshape(_rows(rows, *flat, eps), x.shape)
