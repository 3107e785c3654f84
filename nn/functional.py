"""The functional forms, with torch.nn.functional's names, signatures and edge cases."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensorgrad import mode
from tensorgrad.backend import xp_of
from tensorgrad.convert import cast
from tensorgrad.dtypes import category, int64
from tensorgrad.kinds import linear as _linear_op
from tensorgrad.ops import attention as _attention
from tensorgrad.ops import softmax as _softmax
from tensorgrad.ops.activations import (
    celu,
    celu_,
    elu,
    elu_,
    glu,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    hardtanh_,
    leaky_relu,
    leaky_relu_,
    logsigmoid,
    mish,
    prelu,
    relu6,
    selu,
    selu_,
    silu,
    softmin,
    softplus,
    softshrink,
    softsign,
    tanhshrink,
    threshold,
    threshold_,
)
from tensorgrad.ops.conv import conv1d, conv2d, conv_transpose1d, conv_transpose2d
from tensorgrad.ops.elementwise import relu as _relu
from tensorgrad.ops.elementwise import sigmoid, tanh
from tensorgrad.ops.embedding import embedding
from tensorgrad.ops.gelu import gelu
from tensorgrad.ops.indexing import all_below, gather
from tensorgrad.ops.layer_norm import layer_norm
from tensorgrad.ops.losses import (
    _difference,
    _weighted,
    bilinear,
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cosine_embedding_loss,
    gaussian_nll_loss,
    hinge_embedding_loss,
    huber_loss,
    kl_div,
    l1_loss,
    margin_ranking_loss,
    poisson_nll_loss,
    reduced,
    smooth_l1_loss,
    soft_margin_loss,
    triplet_margin_loss,
)
from tensorgrad.ops.norms import (
    batch_norm,
    cosine_similarity,
    group_norm,
    instance_norm,
    normalize,
    pairwise_distance,
    rms_norm,
)
from tensorgrad.ops.pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    avg_pool1d,
    avg_pool2d,
    fold,
    max_pool1d,
    max_pool2d,
    unfold,
)
from tensorgrad.ops.products import linear
from tensorgrad.ops.resize import interpolate, pad, pixel_shuffle, pixel_unshuffle
from tensorgrad.ops.softmax import log_softmax, softmax
from tensorgrad.random import generator_for
from tensorgrad.tensor import Tensor
from tensorgrad.tracer import Tracer
from tensorgrad.twins import ask

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "avg_pool1d", "avg_pool2d", "batch_norm", "bilinear", "binary_cross_entropy",
    "binary_cross_entropy_with_logits", "celu", "celu_", "conv1d", "conv2d",
    "conv_transpose1d", "conv_transpose2d", "cosine_embedding_loss", "cosine_similarity",
    "cross_entropy", "dropout", "elu", "elu_", "embedding", "fold", "gaussian_nll_loss",
    "gelu", "glu", "group_norm", "hardshrink", "hardsigmoid", "hardswish", "hardtanh",
    "hardtanh_", "hinge_embedding_loss", "huber_loss", "instance_norm", "interpolate",
    "kl_div", "l1_loss", "layer_norm", "leaky_relu", "leaky_relu_", "linear", "log_softmax",
    "logsigmoid", "margin_ranking_loss", "max_pool1d", "max_pool2d", "mish", "mse_loss",
    "nll_loss", "normalize", "one_hot", "pad", "pairwise_distance", "pixel_shuffle",
    "pixel_unshuffle", "poisson_nll_loss", "prelu", "relu", "relu6", "rms_norm",
    "scaled_dot_product_attention", "selu", "selu_", "sigmoid", "silu", "smooth_l1_loss",
    "soft_margin_loss", "softmax", "softmin", "softplus", "softshrink", "softsign", "tanh",
    "tanhshrink", "threshold", "threshold_", "triplet_margin_loss", "unfold",
]  # fmt: skip


# ---- relu and dropout


def relu(input: Any, inplace: bool = False) -> Any:
    """out = max(x, 0); inplace writes it over x."""
    return input.relu_() if inplace else _relu(input)


def _dropped(xp: Any, x: Any, keep: Any, /, scale: float) -> Any:
    answer = ask("dropout", x, x, keep, scale)
    return x * (keep * x.dtype.type(scale)) if answer is None else answer


_drop = _linear_op("dropout", _dropped, dx=lambda g, keep, scale: _drop(g, keep, scale))


def dropout(
    input: Any,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Any = None,
) -> Any:
    """out = x / (1 - p) with probability 1 - p, else 0, in each element.  Srivastava et al. 2014.

    On the CPU it consumes the generator exactly as PyTorch does.
    Not training, or p = 0: the input itself.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: the probability must lie between 0 and 1, it is {p}")
    if not training or p == 0 or input.numel() == 0:
        return input
    if p == 1:
        out = input * 0
    else:
        base = input
        while isinstance(base, Tracer):
            base = base.value
        keep = generator_for(base.device, generator).dropout_mask(input.shape, p, base.array)
        out = _drop(input, keep, 1 / (1 - p))
    return input.copy_(out) if inplace else out


# ---- losses


def cross_entropy(
    input: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:  # fmt: skip
    """loss = -log softmax(x)[target], its weighted mean over the targets other than ignore_index.

    input (N, C), (C) or (N, C, d1, ...); target: classes (N), () or (N, d1, ...),
    or probabilities of input's shape.
    """
    if not 0 <= label_smoothing <= 1:
        raise RuntimeError(
            f"cross_entropy: label_smoothing must lie between 0 and 1, it is {label_smoothing}"
        )
    if input.ndim == 0:
        raise RuntimeError("cross_entropy: the input needs at least one dim, for the classes")
    class_dim = 1 if input.ndim > 1 else 0
    if category(target.dtype) >= 2:
        return _soft_cross_entropy(input, target, weight, class_dim, reduction, label_smoothing)
    logits, classes, shape = _rows_and_classes("cross_entropy", input, target, class_dim)
    if weight is None and not label_smoothing:
        count = _count_classes("cross_entropy", classes, logits.shape[1], ignore_index)
        if reduction == "mean":
            wide = mode.careful and _is_widened(logits)
            of = _softmax._cross_entropy_wide if wide else _softmax._cross_entropy
            return of(logits, classes, ignore_index, count)
        if reduction == "sum":
            return _softmax._cross_entropy(logits, classes, ignore_index, 1)
        rows = _softmax._cross_entropy_rows(logits, classes, ignore_index)
        return reduced("cross_entropy", rows.reshape(shape), reduction)
    logp = log_softmax(logits, 1)
    nll = nll_loss(logp, classes, weight, ignore_index, reduction)
    if not label_smoothing:
        return nll if reduction != "none" else nll.reshape(shape)
    keep = cast(classes != ignore_index, logits.dtype)
    smooth = -(logp if weight is None else logp * weight).sum(1) * keep
    if reduction == "mean":
        total = (
            keep.sum() if weight is None else (weight[_safe(classes, ignore_index)] * keep).sum()
        )
        smooth = smooth.sum() / total
    elif reduction == "sum":
        smooth = smooth.sum()
    out = (1 - label_smoothing) * nll + (label_smoothing / logits.shape[1]) * smooth
    return out if reduction != "none" else out.reshape(shape)


def _is_widened(x: Any) -> bool:
    """Whether autocast would write x, which the CPU has in bfloat16, out in float32."""
    policy = mode.thread.autocast
    return policy is not None and type(x) is Tensor and policy.widens(x)


def _soft_cross_entropy(
    x: Any, target: Any, weight: Any, dim: int, reduction: str, smoothing: float
) -> Any:
    if target.shape != x.shape:
        raise RuntimeError(
            f"cross_entropy: probabilities of shape {target.shape} for an input of shape {x.shape}"
        )
    if smoothing:
        target = target * (1 - smoothing) + smoothing / x.shape[dim]
    logp = log_softmax(x, dim)
    if weight is not None:
        logp = logp * weight.reshape((-1,) + (1,) * (x.ndim - dim - 1))
    loss = -(logp * target).sum(dim)
    return (
        loss.sum() / max(loss.numel(), 1)
        if reduction == "mean"
        else reduced("cross_entropy", loss, reduction)
    )


def _rows_and_classes(name: str, x: Any, target: Any, dim: int) -> tuple[Any, Any, tuple[int, ...]]:
    """(N, C) scores, (N,) classes and the shape of the unreduced loss."""
    shape = x.shape[:dim] + x.shape[dim + 1 :]
    if tuple(target.shape) != shape:
        raise ValueError(
            f"{name}: an input of shape {x.shape} needs a target of shape {shape}, "
            f"not {target.shape}"
        )
    if category(target.dtype) != 1:
        raise RuntimeError(f"{name}: expected classes of an integer dtype, not {target.dtype}")
    if x.ndim == 2:
        return x, target, shape
    return x.movedim(dim, -1).reshape(-1, x.shape[dim]), target.reshape(-1), shape


def _classes(target: Any) -> Any:
    return target.array if isinstance(target, Tensor) else target


def _count_classes(name: str, target: Any, count: int, ignore: int) -> int:
    """How many targets count; IndexError for a wrong class (not on the GPU, which would wait)."""
    t = _classes(target)
    xp = xp_of(t)
    if xp is np:
        if not t.size or (not 0 <= ignore < count and all_below(t, count)):
            return int(t.size)
        wrong = t[((t < 0) | (t >= count)) & (t != ignore)]
        if wrong.size:
            raise IndexError(
                f"{name}: target {wrong[0]} is not one of the {count} classes, "
                f"nor ignore_index ({ignore})"
            )
    return int(t.size) - int(xp.count_nonzero(t == ignore))


def _safe(target: Any, ignore: int) -> Any:
    t = _classes(target)
    return Tensor(xp_of(t).where(t == ignore, 0, t))


def nll_loss(
    input: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
) -> Any:
    """loss = -weight[target] x[target] for log-probabilities x; the mean divides by the weights."""
    logp, classes, shape = _rows_and_classes("nll_loss", input, target, 1 if input.ndim > 1 else 0)
    _count_classes("nll_loss", classes, logp.shape[1], ignore_index)
    safe = _safe(classes, ignore_index)
    keep = cast(Tensor(_classes(classes) != ignore_index), logp.dtype)
    factor = keep if weight is None else keep * weight[safe]
    loss = -(gather(logp, 1, safe.reshape(-1, 1)).reshape(-1) * factor)
    if reduction == "mean":
        return loss.sum() / factor.sum()
    return reduced("nll_loss", loss.reshape(shape), reduction)


def mse_loss(input: Any, target: Any, reduction: str = "mean", weight: Any = None) -> Any:
    """loss = weight (x - y)^2; its mean is over the sum of the weights."""
    loss = _weighted("mse_loss", _difference("mse_loss", input, target).square(), weight, input)
    if weight is not None and reduction == "mean":
        return loss.sum() / weight.sum()
    return reduced("mse_loss", loss, reduction)


def one_hot(tensor: Any, num_classes: int = -1) -> Tensor:
    """(...) classes -> (..., num_classes) of 0 and 1, int64."""
    if category(tensor.dtype) != 1:
        raise RuntimeError(f"one_hot: expected classes of int64, not {tensor.dtype}")
    t = tensor.array
    xp = xp_of(t)
    if num_classes == -1:
        if not t.size:
            raise RuntimeError(
                "one_hot: the number of classes cannot be told from an empty tensor; "
                "pass num_classes"
            )
        num_classes = int(t.max()) + 1
    if t.size and (int(t.min()) < 0 or int(t.max()) >= num_classes):
        raise RuntimeError(
            f"one_hot: classes must lie in [0, {num_classes - 1}], "
            f"these go from {t.min()} to {t.max()}"
        )
    return Tensor((t[..., None] == xp.arange(num_classes)).astype(int64))


# ---- attention


def scaled_dot_product_attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """softmax(scale q k^T + mask) v.  Vaswani et al. 2017.

    query (..., H, T, D), key (..., H, S, D), value (..., H, S, E) -> (..., H, T, E).
    attn_mask: bool, True where a key may be seen, or numbers to add.
    is_causal: query i sees keys 0 to i.  A query that may see nothing gets zeros.
    dropout_p acts on the weights, whenever it is not zero.  scale: 1 / sqrt(D) by default.
    """
    name = "scaled_dot_product_attention"
    if query.ndim < 2 or key.ndim < 2 or value.ndim < 2:
        raise RuntimeError(
            f"{name}: query, key and value need at least two dims: (..., length, size of a head)"
        )
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise RuntimeError(
            f"{name}: shapes {query.shape}, {key.shape} and {value.shape} do not fit together"
        )
    if attn_mask is not None and is_causal:
        raise RuntimeError(f"{name}: give attn_mask or is_causal=True, not both")
    if enable_gqa:
        key, value = (_attention.group_heads(x, query.shape[-3]) for x in (key, value))
    factor = 1 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale
    hidden = bias = None
    if attn_mask is not None:
        hidden, bias = (~attn_mask, None) if _attention.is_bool(attn_mask) else (None, attn_mask)
    drop = (lambda p: dropout(p, dropout_p)) if dropout_p else None
    return _attention.attention(query, key, value, hidden, bias, drop, is_causal, factor)
