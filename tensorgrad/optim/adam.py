"""Adam and AdamW: steps scaled by running means of the gradient and of its square."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from tensorgrad import twins
from tensorgrad.backend import xp_of
from tensorgrad.optim.blocks import blocks
from tensorgrad.optim.optimizer import Array, Group, Optimizer
from tensorgrad.tensor import Tensor


class Adam(Optimizer):
    """m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2,  p <- p - lr m' / (sqrt(v') + eps)

    with m' = m / (1 - b1^t), v' = v / (1 - b2^t) after t steps.  Kingma and Ba 2015.

    weight_decay: added to the gradient, g + weight_decay p; if decoupled_weight_decay, as in AdamW.
    amsgrad: v' from the largest v so far (Reddi, Kale and Kumar 2018).  fused: False: no kernels.
    ValueError for options out of range.
    """

    moments = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0, amsgrad: bool = False, *,
        maximize: bool = False, fused: bool | None = None, decoupled_weight_decay: bool = False,
    ) -> None:  # fmt: skip
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
            "maximize": maximize, "fused": fused, "decoupled_weight_decay": decoupled_weight_decay,
        }  # fmt: skip
        super().__init__(params, defaults)

    def update(self, param: Tensor, g: Array, group: Group) -> None:
        p, amsgrad, decoupled = param.array, group["amsgrad"], group["decoupled_weight_decay"]
        m, v, *top = self.remembered(param, *self.moments[: 2 + bool(amsgrad)])
        b1, b2 = group["betas"]
        options = {
            "step_number": self.counted(param), "lr": float(group["lr"]), "b1": b1, "b2": b2,
            "eps": group["eps"], "weight_decay": group["weight_decay"],
        }  # fmt: skip
        plain = not amsgrad and (decoupled or not group["weight_decay"])
        if plain and p.size >= twins.WORTH and group["fused"] is not False:
            kernel = _kernel(p)
            if kernel is not None and kernel(p, g, m, v, **options):
                return
        for part in blocks(p, g, m, v, *top):
            adam(*part, decoupled=decoupled, **options)


class AdamW(Adam):
    """p <- p (1 - lr weight_decay) - lr m' / (sqrt(v') + eps), m' and v' as in Adam.

    Loshchilov and Hutter 2019.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False, *,
        maximize: bool = False, fused: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, fused=fused,
            decoupled_weight_decay=True,
        )  # fmt: skip


def adam(
    p: Array, g: Array, m: Array, v: Array, top: Array = None, *, step_number: int, lr: float,
    b1: float, b2: float, eps: float, weight_decay: float, decoupled: bool,
) -> None:  # fmt: skip
    """The formula, in place, with one temporary; kernels are held to it.  step_number: 1, 2, ..."""
    xp = xp_of(p)
    if weight_decay and decoupled:
        p *= 1 - lr * weight_decay
    elif weight_decay:
        g = g + p * weight_decay
    w = g - m
    w *= 1 - b1
    m += w
    xp.multiply(g, g, out=w)
    w *= 1 - b2
    v *= b2
    v += w
    if top is not None:
        v = xp.maximum(top, v, out=top)
    xp.sqrt(v, out=w)
    w /= math.sqrt(1 - b2**step_number)
    w += eps
    xp.divide(m, w, out=w)
    w *= lr / (1 - b1**step_number)
    p -= w


_kernels: dict[type, Callable[..., bool] | None] = {}


def _kernel(p: Array) -> Callable[..., bool] | None:
    """The compiled twin of `adam` for arrays of this type, if there is one."""
    if not twins.enabled:
        return None
    kind = type(p)
    if kind not in _kernels:
        _kernels[kind] = twins.find("adamw_step", kind)
    return _kernels[kind]
