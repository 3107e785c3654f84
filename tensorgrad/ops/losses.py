"""Losses beyond cross-entropy and squares: compositions, and primitives where slopes need care.

PyTorch's old size_average and reduce do not exist; what follows them there is given by keyword.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from tensorgrad.dtypes import category
from tensorgrad.ops import choices, compare
from tensorgrad.ops.activations import _logsigmoid, on_floats
from tensorgrad.ops.choices import clamp_min, where
from tensorgrad.ops.contractions import einsum
from tensorgrad.ops.elementwise import exp, log, log1p, sqrt, square
from tensorgrad.ops.norms import _at_least, pairwise_distance
from tensorgrad.ops.reduce import _sum
from tensorgrad.ops.shape import unsqueeze


def reduced(name: str, loss: Any, reduction: str) -> Any:
    """The loss as it is, its mean or its sum: reduction "none", "mean" or "sum"."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{name}: reduction must be 'none', 'mean' or 'sum', not {reduction!r}")
    return loss if reduction == "none" else loss.mean() if reduction == "mean" else loss.sum()


def _difference(name: str, input: Any, target: Any) -> Any:
    """x - y; a warning where shapes differ, which broadcasting would hide."""
    if input.shape != target.shape:
        warnings.warn(
            f"{name}: a target of shape {target.shape} is broadcast against an input of shape "
            f"{input.shape}, which is seldom meant; give both the same shape",
            stacklevel=3,
        )
    return input - target


def _same_shape(name: str, input: Any, target: Any) -> None:
    if input.shape != target.shape:
        raise ValueError(
            f"{name}: a target of shape {target.shape} for an input of shape {input.shape}"
        )


def _weighted(name: str, loss: Any, weight: Any, like: Any = None) -> Any:
    """loss weight, which broadcasts to the loss's shape; of exactly the shape of `like`, if any."""
    if weight is None:
        return loss
    if like is not None:
        if weight.shape != like.shape:
            raise ValueError(
                f"{name}: weights of shape {weight.shape} for an input of shape {like.shape}"
            )
        return loss * weight
    told = f"{name}: weights of shape {weight.shape} for a loss of shape {loss.shape}"
    product = loss * weight
    if product.shape != loss.shape:
        raise RuntimeError(told)
    return product


# ---- distances between numbers

_huber = on_floats(
    "huber",
    lambda xp, x, /, delta: xp.where(
        xp.abs(x) < delta, 0.5 * x * x, delta * (xp.abs(x) - 0.5 * delta)
    ),
    dx=lambda g, x, delta: g * choices._clip(x, -delta, delta),
)  # fmt: skip


def l1_loss(input: Any, target: Any, *, reduction: str = "mean", weight: Any = None) -> Any:
    """loss = weight |x - y|; its mean is over the sum of the weights."""
    loss = _weighted("l1_loss", abs(_difference("l1_loss", input, target)), weight, input)
    if weight is not None and reduction == "mean":
        return loss.sum() / weight.sum()
    return reduced("l1_loss", loss, reduction)


def huber_loss(
    input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None
) -> Any:
    """loss = weight d^2 / 2 where d = |x - y| < delta, else weight delta (d - delta / 2).

    Huber 1964.
    """
    name = "huber_loss"
    if delta <= 0:
        raise RuntimeError(f"{name}: delta must be positive, it is {delta}")
    loss = _huber(_difference(name, input, target), delta)
    return reduced(name, _weighted(name, loss, weight, input), reduction)


def smooth_l1_loss(input: Any, target: Any, *, reduction: str = "mean", beta: float = 1.0) -> Any:
    """loss = d^2 / (2 beta) where d = |x - y| < beta, else d - beta / 2.  Girshick 2015."""
    name = "smooth_l1_loss"
    if beta < 0:
        raise RuntimeError(f"{name}: beta must not be negative, it is {beta}")
    difference = _difference(name, input, target)
    return reduced(name, _huber(difference, beta) / beta if beta else abs(difference), reduction)


# ---- probabilities


def _surprise(xp: Any, x: Any, target: Any) -> Any:
    """-(y log x + (1 - y) log(1 - x)), each logarithm at least -100, so that none is infinite."""
    if xp is np:  # a GPU would have to be waited for
        for what, p in (("input", x), ("target", target)):
            if not ((p >= 0) & (p <= 1)).all():
                raise RuntimeError(
                    f"binary_cross_entropy: every {what} must lie between 0 and 1; "
                    "binary_cross_entropy_with_logits takes inputs of any size"
                )
    return (target - 1) * xp.maximum(xp.log1p(-x), -100) - target * xp.maximum(xp.log(x), -100)


_binary_cross_entropy = on_floats(
    "binary_cross_entropy", lambda xp, x, target, /: _surprise(xp, x, target),
    dx=lambda g, x, target: g * (x - target) / _at_least(x * (1 - x), 1e-12),
    dtarget=lambda g, x: g * (log1p(-x) - log(x)),
)  # fmt: skip


def binary_cross_entropy(
    input: Any, target: Any, weight: Any = None, *, reduction: str = "mean"
) -> Any:
    """loss = -weight (y log x + (1 - y) log(1 - x)) for probabilities x and y.

    weight broadcasts to the input.  No logarithm is taken to be less than -100.
    """
    name = "binary_cross_entropy"
    _same_shape(name, input, target)
    if input.dtype != target.dtype:
        raise RuntimeError(f"{name}: a target of {target.dtype} for an input of {input.dtype}")
    return reduced(name, _weighted(name, _binary_cross_entropy(input, target), weight), reduction)


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None
) -> Any:
    """loss = -weight (pos_weight y log s + (1 - y) log(1 - s)), s = sigmoid(x), for any x.

    weight and pos_weight broadcast to the input.  log s is taken in one step: nothing overflows.
    """
    name = "binary_cross_entropy_with_logits"
    _same_shape(name, input, target)
    log_s = _logsigmoid(input)
    if pos_weight is not None:
        log_s = _weighted(name, log_s, 1 + (pos_weight - 1) * target)
    return reduced(name, _weighted(name, (1 - target) * input - log_s, weight), reduction)


_x_log_x = on_floats(
    "x_log_x", lambda xp, x, /: xp.where(x == 0, 0, x * xp.log(x)),
    dx=lambda g, x: g * (1 + log(x)),
)  # fmt: skip


def kl_div(input: Any, target: Any, *, reduction: str = "mean", log_target: bool = False) -> Any:
    """loss = y (log y - x) for log-probabilities x and probabilities y; log_target: y is log y.

    reduction "batchmean" divides the sum by the number of samples, which is the divergence of
    Kullback and Leibler 1951; "mean" divides it by the number of elements.
    """
    if category(input.dtype) != 2 or category(target.dtype) != 2:
        raise RuntimeError(f"kl_div: expected floats, not {input.dtype} and {target.dtype}")
    if reduction == "mean":
        warnings.warn(
            "kl_div: 'mean' is the average over elements; the divergence is 'batchmean'",
            stacklevel=2,
        )
    loss = exp(target) * (target - input) if log_target else _x_log_x(target) - target * input
    if reduction == "batchmean":
        return loss.sum() / input.shape[0] if input.ndim else loss.sum()
    return reduced("kl_div", loss, reduction)


def poisson_nll_loss(
    input: Any, target: Any, log_input: bool = True, full: bool = False, *, eps: float = 1e-8,
    reduction: str = "mean",
) -> Any:  # fmt: skip
    """loss = exp(x) - y x, x the logarithm of the rate; log_input=False: x - y log(x + eps).

    full adds Stirling's y log y - y + log(2 pi y) / 2 where y > 1.
    """
    loss = exp(input) - target * input if log_input else input - target * log(input + eps)
    if full:
        y = where(target > 1, target, 1)
        loss = loss + where(target > 1, y * log(y) - y + 0.5 * log(2 * math.pi * y), 0)
    return reduced("poisson_nll_loss", loss, reduction)


def gaussian_nll_loss(
    input: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6,
    reduction: str = "mean",
) -> Any:  # fmt: skip
    """loss = (log v + (x - y)^2 / v) / 2, v = max(var, eps).  Nix and Weigend 1994.

    var: a float, or of the input's shape, its last size missing or one size 1.  full adds
    log(2 pi) / 2.
    """
    name = "gaussian_nll_loss"
    if isinstance(var, float):
        var = compare.ones_like(input) * var
    elif var.shape == input.shape[:-1]:
        var = unsqueeze(var, -1)
    elif var.shape != input.shape and (
        var.ndim != input.ndim or sum(m for n, m in zip(input.shape, var.shape) if n != m) != 1
    ):
        raise ValueError(f"{name}: var has shape {var.shape}, the input {input.shape}")
    if bool((var < 0).any()):
        raise ValueError(f"{name}: var has negative elements")
    v = _at_least(var, eps)
    loss = 0.5 * (log(v) + square(input - target) / v)
    return reduced(name, loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


# ---- margins


def soft_margin_loss(input: Any, target: Any, *, reduction: str = "mean") -> Any:
    """loss = log(1 + exp(-y x)), y = 1 or -1."""
    return reduced("soft_margin_loss", -_logsigmoid(input * target), reduction)


def hinge_embedding_loss(
    input: Any, target: Any, margin: float = 1.0, *, reduction: str = "mean"
) -> Any:
    """loss = x where y = 1, max(0, margin - x) where y = -1, for distances x."""
    apart = where(target != 1, clamp_min(margin - input, 0), 0)
    return reduced("hinge_embedding_loss", apart + where(target != -1, input, 0), reduction)


def _same_rank(name: str, **inputs: Any) -> None:
    if len({x.ndim for x in inputs.values()}) > 1:
        shapes = ", ".join(f"{key} {x.shape}" for key, x in inputs.items())
        raise RuntimeError(f"{name}: the tensors need equally many dims: {shapes}")


def margin_ranking_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, *, reduction: str = "mean"
) -> Any:
    """loss = max(0, margin - y (x1 - x2)), y = 1 where x1 should be the greater, else -1."""
    name = "margin_ranking_loss"
    _same_rank(name, input1=input1, input2=input2, target=target)
    return reduced(name, clamp_min(margin - target * (input1 - input2), 0), reduction)


def cosine_embedding_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, *, reduction: str = "mean"
) -> Any:
    """loss = 1 - cos(x1, x2) where y = 1, max(0, cos(x1, x2) - margin) where y = -1.

    x1 and x2 (N, D), y (N); or (D), (D) and ().
    """
    name = "cosine_embedding_loss"
    if target.ndim > 1 or not input1.ndim == input2.ndim == target.ndim + 1:
        raise RuntimeError(
            f"{name}: expected inputs (N, D) and a target (N), or (D) and (), not "
            f"{input1.shape}, {input2.shape} and {target.shape}"
        )
    d, small = (target.ndim,), 1e-12
    lengths = (_sum(square(input1), d, False) + small) * (_sum(square(input2), d, False) + small)
    cos = _sum(input1 * input2, d, False) / sqrt(lengths)
    apart = where(target == -1, clamp_min(cos - margin, 0), 0)
    return reduced(name, where(target == 1, 1 - cos, 0) + apart, reduction)


def triplet_margin_loss(
    anchor: Any, positive: Any, negative: Any, margin: float = 1.0, p: float = 2,
    eps: float = 1e-6, swap: bool = False, *, reduction: str = "mean",
) -> Any:  # fmt: skip
    """loss = max(0, margin + d(a, p) - d(a, n)), d the distance of norm p; (N, D) each, or (D).

    swap: the lesser of d(a, n) and d(p, n) in the place of d(a, n).  Balntas et al. 2016.
    """
    name = "triplet_margin_loss"
    if margin <= 0:
        raise ValueError(f"{name}: margin must be greater than 0, it is {margin}")
    _same_rank(name, anchor=anchor, positive=positive, negative=negative)
    near = pairwise_distance(anchor, positive, p, eps)
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = choices.minimum(far, pairwise_distance(positive, negative, p, eps))
    return reduced(name, clamp_min(margin + near - far, 0), reduction)


# ---- a product of two inputs


def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    """y[k] = x1^T weight[k] x2 + bias[k]: (..., I), (..., J), (K, I, J), (K) -> (..., K)."""
    a, b, w = (tuple(x.shape) for x in (input1, input2, weight))
    c = w[:1] if bias is None else tuple(bias.shape)
    if a[:-1] != b[:-1] or w[1:] != a[-1:] + b[-1:] or len(w) != 3 or c != w[:1]:
        raise RuntimeError(
            f"bilinear: inputs of shapes {a} and {b}, a weight {w} and a bias {c} do not fit: "
            "they should be (..., I), (..., J), (K, I, J) and (K)"
        )
    y = einsum("...i,kij,...j->...k", input1, weight, input2)
    return y if bias is None else y + bias
