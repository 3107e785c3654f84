"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tensorgrad.backend import xp_of
from tensorgrad.optim.blocks import blocks
from tensorgrad.optim.optimizer import Array, Group, Optimizer
from tensorgrad.tensor import Tensor


class SGD(Optimizer):
    """p <- p - lr d, where d = g + weight_decay p, or with momentum

        b <- momentum b + (1 - dampening) d    (b = d in the first step),    p <- p - lr b,

    or with nesterov p <- p - lr (d + momentum b).  Sutskever et al. 2013.
    ValueError for options out of range.
    """

    moments = ("momentum_buffer",)

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0, dampening: float = 0,
        weight_decay: float = 0, nesterov: bool = False, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        super().check(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("SGD: nesterov requires a momentum and zero dampening")

    def update(self, param: Tensor, g: Array, group: Group) -> None:
        p, lr, decay = param.array, float(group["lr"]), float(group["weight_decay"])
        momentum = float(group["momentum"])
        if not momentum:
            for part in blocks(p, g):
                sgd(*part, lr=lr, weight_decay=decay)
            return
        state = self.state[param]
        first = state.get("momentum_buffer") is None
        if first:
            state["momentum_buffer"] = Tensor(xp_of(p).empty_like(p))
        for part in blocks(p, g, state["momentum_buffer"].array):
            sgd(
                *part, lr=lr, weight_decay=decay, momentum=momentum, first=first,
                share=1 - float(group["dampening"]), nesterov=group["nesterov"],
            )  # fmt: skip


def sgd(
    p: Array, g: Array, b: Array = None, *, lr: float, weight_decay: float, momentum: float = 0,
    share: float = 1, nesterov: bool = False, first: bool = False,
) -> None:  # fmt: skip
    """The formula, in place; `share` is 1 - dampening.  In the first step b becomes d."""
    d = g
    if weight_decay:
        d = p * weight_decay
        d += g
    if b is not None:
        if first:
            b[...] = d
        else:
            b *= momentum
            b += d * share if share != 1 else d
        d = d + b * momentum if nesterov else b
    p -= d * lr
