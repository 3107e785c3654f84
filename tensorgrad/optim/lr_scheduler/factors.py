"""Schedules that multiply every lr by one factor, so that several can act on one optimizer."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tensorgrad.optim.lr_scheduler.base import LRScheduler
from tensorgrad.optim.optimizer import Optimizer


class FactorLR(LRScheduler):
    """lr <- lr f(step) / f(step - 1): alone, lr = base_lr f(step).  A subclass writes `factor`."""

    resumes = True
    """Whether going on from last_epoch leaves the lr found; otherwise its first step is a step."""

    def factor(self, step: int) -> float:
        """f"""
        return 1.0

    def _ratio(self) -> float:
        now = self.factor(self.last_epoch)
        if self.last_epoch == 0:
            return now
        if self._is_initial and self.resumes:
            return 1.0
        before = self.factor(self.last_epoch - 1)
        if now != before == 0:
            raise ZeroDivisionError(
                f"{type(self).__name__}: an lr of 0 cannot become more by a factor; start from a "
                "small factor instead"
            )
        return 1.0 if now == before else now / before

    def get_lr(self) -> list[float]:
        ratio = self._ratio()
        return [lr * ratio for lr in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]


class StepLR(FactorLR):
    """lr = base_lr gamma^(step // step_size)"""

    resumes = False

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def factor(self, step: int) -> float:
        return self.gamma ** (step // self.step_size)


class MultiStepLR(FactorLR):
    """lr = base_lr gamma^n, n being how many of the milestones have been reached."""

    resumes = False

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        self.milestones, self.gamma = Counter(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def factor(self, step: int) -> float:
        return self.gamma ** bisect_right(sorted(self.milestones.elements()), step)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        counts = {int(step): n for step, n in state_dict["milestones"].items()}  # JSON's are texts
        super().load_state_dict({**state_dict, "milestones": Counter(counts)})


class ConstantLR(FactorLR):
    """lr = base_lr factor while step < total_iters, then base_lr.  ValueError for a factor not in [0, 1]."""

    resumes = False

    def __init__(
        self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        _check_share(self, "factor", factor)
        self.__dict__.update(factor=factor, total_iters=total_iters)
        super().__init__(optimizer, last_epoch)
