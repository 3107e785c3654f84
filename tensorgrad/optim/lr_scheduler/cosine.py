"""Schedules along half a cosine, and cycles made of such halves."""

from __future__ import annotations

import math

from tensorgrad.optim.lr_scheduler.base import LRScheduler
from tensorgrad.optim.optimizer import Optimizer


def height(step: float, steps: float = 1) -> float:
    """(1 + cos(pi step / steps)) / 2: from 1 to 0 while step goes from 0 to steps."""
    return (1 + math.cos(math.pi * step / steps)) / 2


class CosineAnnealingLR(LRScheduler):
    """lr = eta_min + (base_lr - eta_min) (1 + cos(pi step / T_max)) / 2, up again after T_max.

    Several schedules can act on one optimizer.  Loshchilov and Hutter 2017.
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self._is_initial or self.last_epoch == 0:
            return self._rates()
        least = self.eta_min
        if (self.last_epoch - 1 - self.T_max) % (2 * self.T_max) == 0:  # up from the bottom
            pairs = zip(self._rates(), self.base_lrs, strict=True)
            return [lr + (base - least) * height(self.T_max - 1, self.T_max) for lr, base in pairs]
        ratio = height(self.last_epoch, self.T_max) / height(self.last_epoch - 1, self.T_max)
        return [ratio * (lr - least) + least for lr in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        now = height(self.last_epoch, self.T_max)
        return [self.eta_min + (base - self.eta_min) * now for base in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """lr = eta_min + (base_lr - eta_min) (1 + cos(pi t / T)) / 2, t steps after the last restart.

    T is T_0 first and T_mult times as long after each restart.  step(epoch) takes fractions, too:
    step(i + batch / batches).  Loshchilov and Hutter 2017.  ValueError for what is no length.
    """

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        for name, length in (("T_0", T_0), ("T_mult", T_mult)):
            if not isinstance(length, int) or length < 1:
                raise ValueError(
                    f"CosineAnnealingWarmRestarts: {name} must be a positive integer, not {length}"
                )
        if not isinstance(eta_min, float | int):
            raise ValueError(
                f"CosineAnnealingWarmRestarts: eta_min must be a number, it is {eta_min!r}"
            )
        self.T_0, self.T_i, self.T_mult, self.eta_min = T_0, T_0, T_mult, eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        now = height(self.T_cur, self.T_i)
        return [self.eta_min + (base - self.eta_min) * now for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Set the next learning rates, or those of a certain step; ValueError before step 0."""
        self._step_count += 1
        if epoch is not None and epoch < 0:
            raise ValueError(f"CosineAnnealingWarmRestarts: no step {epoch}; the first one is 0")
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        else:
            self.T_cur, self.T_i = self._place(epoch)
        self.last_epoch = math.floor(epoch)
        self._set(self.get_lr())

    def _place(self, epoch: float) -> tuple[float, int]:
        """The steps since the last restart before `epoch`, and the length of that period."""
        begin, length = 0, self.T_0
        if self.T_mult == 1:
            return epoch % length, length
        while epoch >= begin + length:
            begin, length = begin + length, length * self.T_mult
        return epoch - begin, length


class WarmupCosineLR(LRScheduler):
    """lr = base_lr (step + 1) / (warmup + 1)                   while step < warmup, then
    lr = min_lr + (base_lr - min_lr) (1 + cos(pi t)) / 2,    t = (step - warmup) / (total - warmup),

    and min_lr for good from step `total` on.  Radford et al. 2018; the same as nanoGPT's get_lr.
    ValueError unless 0 <= warmup < total.
    """

    def __init__(
        self, optimizer: Optimizer, warmup: int, total: int, min_lr: float = 0.0,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if not 0 <= warmup < total:
            raise ValueError(
                f"WarmupCosineLR: 0 <= warmup < total must hold, they are {warmup} and {total}"
            )
        self.warmup, self.total, self.min_lr = warmup, total, min_lr
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        step = self.last_epoch
        if step < self.warmup:
            return [base * (step + 1) / (self.warmup + 1) for base in self.base_lrs]
        now = height(min(step, self.total) - self.warmup, self.total - self.warmup)
        return [self.min_lr + now * (base - self.min_lr) for base in self.base_lrs]
