"""Losses beyond cross-entropy and squares: compositions, and primitives where the slope needs care.

PyTorch's old size_average and reduce do not exist, so what comes after them in its signatures is given by keyword.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from tensorgrad.dtypes import category
from tensorgrad.kinds import elementwise
from tensorgrad.ops.activations import _logsigmoid, on_floats
from tensorgrad.ops.contractions import einsum
from tensorgrad.ops.elementwise import _clip, abs, clamp_min, exp, log, log1p, minimum, ones_like, sqrt, square, where
from tensorgrad.ops.norms import _at_least, pairwise_distance
from tensorgrad.ops.reduce import _sum
from tensorgrad.ops.shape import unsqueeze

__all__ = ["bilinear"]
"""What PyTorch has at its top level, too; nn.functional has all of them."""


def reduced(name: str, loss: Any, reduction: str) -> Any:
    """The loss as it is, its mean or its sum: reduction "none", "mean" or "sum"."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{name}: reduction must be 'none', 'mean' or 'sum', not {reduction!r}")
    return loss if reduction == "none" else loss.mean() if reduction == "mean" else loss.sum()


def _warn_of_shapes(name: str, input: Any, target: Any) -> None:
    if input.shape != target.shape:
        warnings.warn(
            f"{name}: a target of shape {target.shape} is broadcast against an input of shape {input.shape}, "
            "which is seldom meant; give them the same shape",
            stacklevel=3,
        )


def _same_shape(name: str, input: Any, target: Any) -> None:
    if input.shape != target.shape:
        raise ValueError(f"{name}: a target of shape {target.shape} for an input of shape {input.shape}")


# ---- distances between numbers

_huber = on_floats(
    "huber",
    lambda xp, x, /, delta: xp.where(xp.abs(x) < delta, 0.5 * x * x, delta * (xp.abs(x) - 0.5 * delta)),
    dx=lambda g, x, delta: g * _clip(x, -delta, delta),
)  # fmt: skip


def _weighted(name: str, loss: Any, weight: Any) -> Any:
    if weight is not None and weight.shape != loss.shape:
        raise ValueError(f"{name}: weights of shape {weight.shape} for a loss of shape {loss.shape}")
    return loss if weight is None else loss * weight


def l1_loss(input: Any, target: Any, *, reduction: str = "mean", weight: Any = None) -> Any:
    """loss = weight |x - y|; its mean is over the sum of the weights."""
    _warn_of_shapes("l1_loss", input, target)
    loss = _weighted("l1_loss", abs(input - target), weight)
    if weight is not None and reduction == "mean":
        return loss.sum() / weight.sum()
    return reduced("l1_loss", loss, reduction)


def huber_loss(
    input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None
) -> Any:
    """loss = weight d^2 / 2 where d = |x - y| < delta, else weight delta (d - delta / 2).  Huber 1964."""
    _warn_of_shapes("huber_loss", input, target)
    if delta <= 0:
        raise RuntimeError(f"huber_loss: delta must be positive, it is {delta}")
    return reduced("huber_loss", _weighted("huber_loss", _huber(input - target, delta), weight), reduction)


def smooth_l1_loss(input: Any, target: Any, *, reduction: str = "mean", beta: float = 1.0) -> Any:
    """loss = d^2 / (2 beta) where d = |x - y| < beta, else d - beta / 2.  Girshick 2015."""
    _warn_of_shapes("smooth_l1_loss", input, target)
    if beta < 0:
        raise RuntimeError(f"smooth_l1_loss: beta must not be negative, it is {beta}")
    difference = input - target
    return reduced("smooth_l1_loss", _huber(difference, beta) / beta if beta else abs(difference), reduction)


# ---- probabilities


def _surprise(xp: Any, x: Any, target: Any) -> Any:
    """-(t log x + (1 - t) log(1 - x)); a logarithm is -100 at least, so that no loss is infinite."""
    if xp is np:
        for what, p in (("input", x), ("target", target)):
            if not ((p >= 0) & (p <= 1)).all():
                raise RuntimeError(
                    f"binary_cross_entropy: every {what} must lie between 0 and 1; "
                    "binary_cross_entropy_with_logits takes any number"
                )
    return (target - 1) * xp.maximum(xp.log1p(-x), -100) - target * xp.maximum(xp.log(x), -100)


_binary_cross_entropy = on_floats(
    "binary_cross_entropy", lambda xp, x, target, /: _surprise(xp, x, target),
    dx=lambda g, x, target: g * (x - target) / _at_least(x * (1 - x), 1e-12),
    dtarget=lambda g, x: g * (log1p(-x) - log(x)),
)  # fmt: skip


def binary_cross_entropy(input: Any, target: Any, weight: Any = None, *, reduction: str = "mean") -> Any:
    """loss = -weight (y log x + (1 - y) log(1 - x)) for probabilities x and y.

    weight broadcasts to the input.  No logarithm is taken to be less than -100.
    """
    _same_shape("binary_cross_entropy", input, target)
    if input.dtype != target.dtype:
        raise RuntimeError(f"binary_cross_entropy: a target of {target.dtype} for an input of {input.dtype}")
    loss = _binary_cross_entropy(input, target)
    return reduced("binary_cross_entropy", _times("binary_cross_entropy", loss, weight), reduction)


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None
) -> Any:
    """loss = -weight (pos_weight y log s + (1 - y) log(1 - s)), s = sigmoid(x), for any number x.

    weight and pos_weight broadcast to the input.  log s is taken at once, so nothing overflows.
    """
    name = "binary_cross_entropy_with_logits"
    _same_shape(name, input, target)
    log_s = _logsigmoid(input)
    positive = log_s if pos_weight is None else _times(name, log_s, 1 + (pos_weight - 1) * target)
    loss = (1 - target) * input - positive
    return reduced(name, _times(name, loss, weight), reduction)


def _times(name: str, loss: Any, weight: Any) -> Any:
    """loss weight, whose shape must be the loss's."""
    if weight is None:
        return loss
    if (product := loss * weight).shape != loss.shape:
        raise RuntimeError(f"{name}: a weight of shape {weight.shape} for a loss of shape {loss.shape}")
    return product


_x_log_x = on_floats(
    "x_log_x", lambda xp, x, /: xp.where(x == 0, 0, x * xp.log(x)), dx=lambda g, x: g * (1 + log(x))
)


def kl_div(
    input: Any, target: Any, *, reduction: str = "mean", log_target: bool = False
) -> Any:
    """loss = y (log y - x) for log-probabilities x and probabilities y; log_target: y, too, is a logarithm.

    reduction "batchmean" divides the sum by the number of samples, as Kullback and Leibler 1951 do; "mean" by the
    number of elements.
    """
    if category(input.dtype) < 2 or category(target.dtype) < 2:
        raise RuntimeError(f"kl_div: expected floats, not {input.dtype} and {target.dtype}; use x.float()")
    if reduction == "mean":
        warnings.warn(
            "kl_div: 'mean' divides by the number of elements; 'batchmean', by the number of samples, is the divergence",
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
    """loss = exp(x) - y x for the logarithm x of the rate; log_input=False: x - y log(x + eps) for the rate itself.

    full adds Stirling's y log y - y + log(2 pi y) / 2 where y > 1.
    """
    loss = exp(input) - target * input if log_input else input - target * log(input + eps)
    if full:
        y = where(target > 1, target, 1)
        loss = loss + where(target > 1, y * log(y) - y + 0.5 * log(2 * math.pi * y), 0)
    return reduced("poisson_nll_loss", loss, reduction)


def gaussian_nll_loss(
    input: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Any:
    """loss = (log v + (x - y)^2 / v) / 2, v = max(var, eps).  Nix and Weigend 1994.

    var: a float, the input's shape, or that with its last size missing or one size 1.  full adds log(2 pi) / 2.
    """
    if isinstance(var, float):
        var = ones_like(input) * var
    elif var.shape != input.shape:
        if var.shape == input.shape[:-1]:
            var = unsqueeze(var, -1)
        elif var.ndim != input.ndim or sum(m for n, m in zip(input.shape, var.shape) if n != m) != 1:
            raise ValueError(f"gaussian_nll_loss: a var of shape {var.shape} for an input of shape {input.shape}")
    if bool((var < 0).any()):
        raise ValueError("gaussian_nll_loss: var has negative elements")
    v = _at_least(var, eps)
    loss = 0.5 * (log(v) + square(input - target) / v)
    return reduced("gaussian_nll_loss", loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


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


def margin_ranking_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, *, reduction: str = "mean"
) -> Any:
    """loss = max(0, margin - y (x1 - x2)), y = 1 where x1 should be the greater, else -1."""
    if not input1.ndim == input2.ndim == target.ndim:
        raise RuntimeError(
            "margin_ranking_loss: inputs and target need equally many dims, their shapes are "
            f"{input1.shape}, {input2.shape} and {target.shape}"
        )
    return reduced("margin_ranking_loss", clamp_min(margin - target * (input1 - input2), 0), reduction)


def cosine_embedding_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, *, reduction: str = "mean"
) -> Any:
    """loss = 1 - cos(x1, x2) where y = 1, max(0, cos(x1, x2) - margin) where y = -1.

    (N, D), (N, D), (N) or (D), (D), ().
    """
    if target.ndim > 1 or not input1.ndim == input2.ndim == target.ndim + 1:
        raise RuntimeError(
            "cosine_embedding_loss: expected inputs (N, D) and a target (N), or (D) and (), not "
            f"{input1.shape}, {input2.shape} and {target.shape}"
        )
    d, small = (target.ndim,), 1e-12
    lengths = (_sum(square(input1), d, False) + small) * (_sum(square(input2), d, False) + small)
    cos = _sum(input1 * input2, d, False) / sqrt(lengths)
    loss = where(target == 1, 1 - cos, 0) + where(target == -1, clamp_min(cos - margin, 0), 0)
    return reduced("cosine_embedding_loss", loss, reduction)


def triplet_margin_loss(
    anchor: Any, positive: Any, negative: Any, margin: float = 1.0, p: float = 2, eps: float = 1e-6,
    swap: bool = False, *, reduction: str = "mean",
) -> Any:  # fmt: skip
    """loss = max(0, margin + d(a, p) - d(a, n)), d the distance of norm p; (N, D) three times, or (D).

    swap: the lesser of d(a, n) and d(p, n) in the place of d(a, n).  Balntas et al. 2016.
    """
    if margin <= 0:
        raise ValueError(f"triplet_margin_loss: margin must be greater than 0, it is {margin}")
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise RuntimeError(
            "triplet_margin_loss: anchor, positive and negative need equally many dims, their shapes are "
            f"{anchor.shape}, {positive.shape} and {negative.shape}"
        )
    near, far = pairwise_distance(anchor, positive, p, eps), pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = minimum(far, pairwise_distance(positive, negative, p, eps))
    return reduced("triplet_margin_loss", clamp_min(margin + near - far, 0), reduction)


# ---- a product of two inputs


def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    """y[k] = x1^T weight[k] x2 + bias[k]: (..., I), (..., J), (K, I, J), (K) -> (..., K)."""
    shapes = (input1.shape, input2.shape, weight.shape)
    fits = (
        input1.shape[:-1] == input2.shape[:-1] and input1.ndim == input2.ndim
        and tuple(weight.shape[1:]) == (*input1.shape[-1:], *input2.shape[-1:])
        and (bias is None or tuple(bias.shape) == weight.shape[:1])
    )  # fmt: skip
    if not fits:
        raise RuntimeError(
            f"bilinear: inputs of shapes {shapes[0]} and {shapes[1]}, a weight {shapes[2]} and a bias "
            f"{None if bias is None else bias.shape} do not fit: (..., I), (..., J), (K, I, J), (K)"
        )
    y = einsum("...i,kij,...j->...k", input1, weight, input2)
    return y if bias is None else y + bias
