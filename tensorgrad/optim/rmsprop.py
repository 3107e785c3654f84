"""RMSprop and Adagrad: steps divided by the root of the squares of past gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tensorgrad.backend import xp_of
from tensorgrad.optim.blocks import blocks
from tensorgrad.optim.optimizer import Array, Group, Optimizer
from tensorgrad.tensor import Tensor


class RMSprop(Optimizer):
    """v <- alpha v + (1 - alpha) g^2,    p <- p - lr g / (sqrt(v) + eps)

    centered: v less the square of the running mean of g.  weight_decay: g + weight_decay p for g.
    momentum: p <- p - lr b where b <- momentum b + g / (sqrt(v) + eps).
    Tieleman and Hinton 2012; centered Graves 2013.  ValueError for options out of range.
    """

    moments = ("square_avg", "momentum_buffer", "grad_avg")

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0, momentum: float = 0, centered: bool = False, *,
        maximize: bool = False,
    ) -> None:  # fmt: skip
        defaults = {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
            "weight_decay": weight_decay, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    def update(self, param: Tensor, g: Array, group: Group) -> None:
        self.counted(param)
        names = {"v": "square_avg"}
        names |= {"b": "momentum_buffer"} if group["momentum"] else {}
        names |= {"m": "grad_avg"} if group["centered"] else {}
        options = {name: float(group[name]) for name in _OPTIONS}
        for p, d, *state in blocks(param.array, g, *self.remembered(param, *names.values())):
            rmsprop(p, d, **dict(zip(names, state)), **options)


_OPTIONS = ("lr", "alpha", "eps", "weight_decay", "momentum")


def rmsprop(
    p: Array, g: Array, v: Array, b: Array = None, m: Array = None, *, lr: float, alpha: float,
    eps: float, weight_decay: float, momentum: float,
) -> None:  # fmt: skip
    """The formula, in place; b is None without momentum, m unless centered."""
    xp = xp_of(p)
    if weight_decay:
        g = g + p * weight_decay
    w = g * g
    w *= 1 - alpha
    v *= alpha
    v += w
    if m is None:
        xp.sqrt(v, out=w)
    else:
        xp.subtract(g, m, out=w)
        w *= 1 - alpha
        m += w
        xp.multiply(m, m, out=w)
        xp.subtract(v, w, out=w)
        xp.sqrt(w, out=w)
    w += eps
    xp.divide(g, w, out=w)
    if b is not None:
        b *= momentum
        b += w
        w[...] = b
    w *= lr
    p -= w


class Adagrad(Optimizer):
    """s <- s + g^2,    p <- p - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)    in step t

    s begins as initial_accumulator_value; g + weight_decay p stands for g.
    Duchi, Hazan and Singer 2011.  ValueError for options out of range.
    """

    moments = ("sum",)

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, lr_decay: float = 0,
        weight_decay: float = 0, initial_accumulator_value: float = 0, eps: float = 1e-10, *,
        maximize: bool = False,
    ) -> None:  # fmt: skip
        defaults = {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    def add_param_group(self, param_group: Group) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        start = group["initial_accumulator_value"]
        for p in group["params"]:
            sums = xp_of(p.array).full_like(p.array, start)
            self.state[p] = {"step": Tensor(np.zeros((), np.float32)), "sum": Tensor(sums)}

    def update(self, param: Tensor, g: Array, group: Group) -> None:
        step = self.counted(param)
        lr = float(group["lr"]) / (1 + (step - 1) * float(group["lr_decay"]))
        eps, decay = float(group["eps"]), float(group["weight_decay"])
        for part in blocks(param.array, g, *self.remembered(param, "sum")):
            adagrad(*part, lr=lr, eps=eps, weight_decay=decay)


def adagrad(p: Array, g: Array, s: Array, *, lr: float, eps: float, weight_decay: float) -> None:
    """The formula, in place; lr is that of this step."""
    xp = xp_of(p)
    if weight_decay:
        g = g + p * weight_decay
    w = g * g
    s += w
    xp.sqrt(s, out=w)
    w += eps
    xp.divide(g, w, out=w)
    w *= lr
    p -= w
