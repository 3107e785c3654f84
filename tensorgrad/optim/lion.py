"""Lion: steps of one size, by the sign of a running mean of the gradient."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tensorgrad.backend import xp_of
from tensorgrad.optim.blocks import blocks
from tensorgrad.optim.optimizer import Array, Group, Optimizer
from tensorgrad.tensor import Tensor


class Lion(Optimizer):
    """p <- p (1 - lr weight_decay) - lr sign(b1 m + (1 - b1) g),  then  m <- b2 m + (1 - b2) g

    Chen et al. 2023.  It wants an lr 3 to 10 times less than AdamW's, and so much more
    weight_decay.  ValueError for options out of range.
    """

    moments = ("exp_avg",)

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    def update(self, param: Tensor, g: Array, group: Group) -> None:
        b1, b2 = group["betas"]
        lr, decay = float(group["lr"]), float(group["weight_decay"])
        for part in blocks(param.array, g, *self.remembered(param, "exp_avg")):
            lion(*part, lr=lr, b1=b1, b2=b2, weight_decay=decay)


def lion(
    p: Array, g: Array, m: Array, *, lr: float, b1: float, b2: float, weight_decay: float
) -> None:
    """The formula, in place."""
    xp = xp_of(p)
    if weight_decay:
        p *= 1 - lr * weight_decay
    w = g - m
    w *= 1 - b1
    w += m
    xp.sign(w, out=w)
    w *= lr
    p -= w
    xp.subtract(g, m, out=w)
    w *= 1 - b2
    m += w
