"""Learning rates as functions of the number of steps taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tensorgrad.optim.optimizer import Optimizer


class LRScheduler:
    """The base of schedules: sets every group's lr now, and again at each step().

    A subclass writes `get_lr`, from `last_epoch`, the number of steps taken, and `base_lrs`, the lr
    that each group had first.  last_epoch: -1 to begin; otherwise the last step of an earlier run,
    and then the groups must hold "initial_lr".
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        name = type(self).__name__
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{name}: {type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f"{name}: param_groups[{i}] has no 'initial_lr', needed to go on from step "
                    f"{last_epoch}; load the optimizer's state first, or leave last_epoch at -1"
                )
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self.step()

    def get_lr(self) -> list[float]:
        """The lr of each group at `last_epoch`."""
        return list(self.base_lrs)

    def get_last_lr(self) -> list[float]:
        """The lr of each group as last set."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Set the next learning rates, or those of a certain step; after optimizer.step()."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._set(self.get_lr())

    def _set(self, lrs: Sequence[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, lrs, strict=True):
            group["lr"] = lr
        self._last_lr = list(lrs)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and functions: numbers, strings and lists."""
        return {
            key: value
            for key, value in self.__dict__.items()
            if key not in ("optimizer", "lr_lambdas")
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned; the optimizer's learning rates are set, too."""
        self.__dict__.update(state_dict)
        self._set(self._last_lr)


class LambdaLR(LRScheduler):
    """lr = base_lr f(step); one function, or one per group."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        groups = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != groups:
            raise ValueError(
                f"LambdaLR: {len(self.lr_lambdas)} functions for {groups} parameter groups"
            )
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        pairs = zip(self.base_lrs, self.lr_lambdas, strict=True)
        return [base * function(self.last_epoch) for base, function in pairs]


class StepLR(LRScheduler):
    """lr = base_lr gamma^(step // step_size)"""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [base * self.gamma ** (self.last_epoch // self.step_size) for base in self.base_lrs]


class CosineAnnealingLR(LRScheduler):
    """lr = eta_min + (base_lr - eta_min) (1 + cos(pi step / T_max)) / 2, up again after T_max.

    Loshchilov and Hutter 2017.
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        height = (1 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2
        return [self.eta_min + (base - self.eta_min) * height for base in self.base_lrs]


class WarmupCosineLR(LRScheduler):
    """lr = base_lr (step + 1) / (warmup + 1)                   while step < warmup, then
    lr = min_lr + (base_lr - min_lr) (1 + cos(pi t)) / 2,    t = (step - warmup) / (total - warmup),

    and min_lr for good from step `total` on.  Radford et al. 2018; the same as nanoGPT's get_lr.
    ValueError unless 0 <= warmup < total.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: int,
        total: int,
        min_lr: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
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
        done = min(1.0, (step - self.warmup) / (self.total - self.warmup))
        height = (1 + math.cos(math.pi * done)) / 2
        return [self.min_lr + height * (base - self.min_lr) for base in self.base_lrs]
