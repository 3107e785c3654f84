"""ReduceLROnPlateau: a lower learning rate whenever a figure stops getting better."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, SupportsFloat

from tensorgrad.optim.lr_scheduler.base import LRScheduler
from tensorgrad.optim.optimizer import Optimizer


class ReduceLROnPlateau(LRScheduler):
    """lr <- max(lr factor, min_lr) once the metric has not improved in more than `patience` steps.

    An improvement of the best metric so far is one below best (1 - threshold), or with
    threshold_mode="abs" below best - threshold; above, with a plus, where mode is "max".  After a
    reduction the next `cooldown` steps are not counted.  Reductions of eps or less are left out.
    ValueError for options out of range.
    """

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
        threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0,
        min_lr: list[float] | float = 0, eps: float = 1e-8,
    ) -> None:  # fmt: skip
        self.optimizer = self._checked(optimizer)
        if factor >= 1:
            raise ValueError(f"ReduceLROnPlateau: factor must be less than 1, it is {factor}")
        if mode not in ("min", "max"):
            raise ValueError(f"ReduceLROnPlateau: mode {mode!r} is unknown, it is 'min' or 'max'")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(
                f"ReduceLROnPlateau: threshold mode {threshold_mode!r} is unknown, it is 'rel' or "
                "'abs'"
            )
        self.min_lrs = self._per_group(optimizer, "min_lr", min_lr)
        self.default_min_lr = None if isinstance(min_lr, list | tuple) else min_lr
        self.mode, self.threshold, self.threshold_mode = mode, threshold, threshold_mode
        self.factor, self.patience, self.cooldown, self.eps = factor, patience, cooldown, eps
        self.mode_worse = math.inf if mode == "min" else -math.inf
        self.best, self.cooldown_counter, self.num_bad_epochs = self.mode_worse, 0, 0
        self.last_epoch = 0
        self._last_lr = self._rates()

    @property
    def in_cooldown(self) -> bool:
        return self.cooldown_counter > 0

    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:  # type: ignore[override]
        """Look at the metric of this step: a number, or a tensor of one element."""
        metric = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self._is_better(metric):
            self.best, self.num_bad_epochs = metric, 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._set(self._reduced())
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._last_lr = self._rates()

    def _is_better(self, metric: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            bound = self.best * (1 + sign * self.threshold)
        else:
            bound = self.best + sign * self.threshold
        return sign * metric > sign * bound

    def _reduced(self) -> Iterable[float]:
        for lr, least in zip(self._rates(), self._least(), strict=True):
            lower = max(float(lr) * self.factor, least)
            yield lower if lr - lower > self.eps else lr

    def _least(self) -> list[Any]:
        """min_lr of each group, of those added since as well."""
        count = len(self.optimizer.param_groups)
        if len(self.min_lrs) != count:
            if self.default_min_lr is None:
                raise RuntimeError(
                    f"ReduceLROnPlateau: {len(self.min_lrs)} values of min_lr for {count} "
                    "parameter groups; add one to min_lrs for each group added"
                )
            self.min_lrs = [self.default_min_lr] * count
        return self.min_lrs
