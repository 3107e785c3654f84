"""Muon: momentum made orthogonal, for the matrices of hidden layers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from tensorgrad.backend import xp_of
from tensorgrad.optim.optimizer import Array, Group, Optimizer
from tensorgrad.tensor import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)
"""a, b, c: near 1 after five rounds of s <- a s + b s^3 + c s^5 from anywhere in (0.01, 1]."""


class Muon(Optimizer):
    """b <- momentum b + (1 - momentum) g,    p <- p (1 - lr weight_decay) - lr k U V^T

    where U S V^T = b, or with nesterov momentum b + (1 - momentum) g; what stands for U V^T are
    ns_steps rounds of `orthogonal`.  k evens out shapes: of a parameter (A, B) it is
    sqrt(max(1, A / B)), or with adjust_lr_fn="match_rms_adamw" 0.2 sqrt(max(A, B)), which suits the
    lr and weight_decay of AdamW (Liu et al. 2025).  Jordan et al. 2024.

    Only for parameters of two dims, ValueError for others (let AdamW have embeddings, heads and
    biases) and for options out of range.
    """

    elementwise = False
    moments = ("momentum_buffer",)

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, weight_decay: float = 0.1,
        momentum: float = 0.95, nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = QUINTIC, eps: float = 1e-7,
        ns_steps: int = 5, adjust_lr_fn: str | None = None,
    ) -> None:  # fmt: skip
        defaults = {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
            "ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }  # fmt: skip
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        super().check(group)
        for p in group["params"]:
            if p.ndim != 2:
                raise ValueError(
                    "Muon only supports 2D parameters, one has the shape "
                    f"{p.shape}; give such to AdamW"
                )
        if group["adjust_lr_fn"] not in (None, "original", "match_rms_adamw"):
            raise ValueError(
                f"Muon: adjust_lr_fn {group['adjust_lr_fn']!r} is not supported; it is None, "
                "'original' or 'match_rms_adamw'"
            )
        if len(group["ns_coefficients"]) != 3 or group["ns_steps"] >= 100:
            raise ValueError(
                "Muon: ns_coefficients are three numbers and ns_steps under 100, not "
                f"{group['ns_coefficients']} and {group['ns_steps']}"
            )

    def update(self, param: Tensor, g: Array, group: Group) -> None:
        p, (b,) = param.array, self.remembered(param, "momentum_buffer")
        lr, momentum = float(group["lr"]), float(group["momentum"])
        b += (g - b) * (1 - momentum)
        d = g + (b - g) * momentum if group["nesterov"] else b
        d = orthogonal(d, group["ns_coefficients"], group["ns_steps"], group["eps"])
        p *= 1 - lr * float(group["weight_decay"])
        p -= d.astype(p.dtype) * (lr * _evened(group["adjust_lr_fn"], *p.shape))


def _evened(how: str | None, A: int, B: int) -> float:
    """The factor of the lr that makes steps of all shapes alike."""
    if how == "match_rms_adamw":
        return 0.2 * math.sqrt(max(A, B))
    return math.sqrt(max(1, A / max(1, B)))


def orthogonal(
    x: Array, coefficients: tuple[float, float, float] = QUINTIC, steps: int = 5, eps: float = 1e-7
) -> Array:
    """x <- a x + (b x x^T + c (x x^T)^2) x, again and again, from x / |x|.

    x = U S V^T keeps U and V, and each singular value s goes to a s + b s^3 + c s^5.  Numbers are
    rounded to bfloat16 after each line, sums are of float32: PyTorch's results to the last bit
    or, where sums of long rows are taken in another order, nearly.
    """
    a, b, c = coefficients
    if tall := x.shape[0] > x.shape[1]:
        x = x.T  # the square products are then the small ones
    x = _to_bfloat16(x)
    norm = _to_bfloat16((x * x).sum(keepdims=True) ** 0.5)  # (1, 1)
    x = _to_bfloat16(x / norm.clip(_to_bfloat16(norm * 0 + eps)))
    for _ in range(steps):
        square = _to_bfloat16(x @ x.T)
        poly = _to_bfloat16(b * square + c * (square @ square))
        x = _to_bfloat16(a * x + poly @ x)
    return x.T if tall else x


def _to_bfloat16(x: Array) -> Array:
    """float32 numbers whose last 16 bits are zero, the nearest of those, ties to even."""
    xp = xp_of(x)
    x = xp.ascontiguousarray(x, np.float32)
    bits = x.view(np.uint32)
    bits = bits + ((bits >> 16 & 1) + 0x7FFF) & 0xFFFF0000
    return xp.where(xp.isnan(x), x, bits.view(np.float32))
