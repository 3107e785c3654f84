"""Schedules that multiply every lr by one factor, so that several can act on one optimizer."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tensorgrad.optim.lr_scheduler.base import LRScheduler
from tensorgrad.optim.optimizer import Optimizer


class FactorLR(LRScheduler):
    """lr <- lr f(step) / f(step - 1): alone, lr = base_lr f(step).  A subclass writes `scale`."""

    resumes = True
    """Going on from last_epoch leaves the lr as it is found; False: it is a step as any other."""

    def scale(self, step: int) -> float:
        """f(step)"""
        return 1.0

    def _ratio(self) -> float:
        step, now = self.last_epoch, self.scale(self.last_epoch)
        if step == 0:
            return now
        before = self.scale(step - 1)
        if now == before or (self._is_initial and self.resumes):
            return 1.0
        if before == 0:
            raise ZeroDivisionError(
                f"{self._name}: no factor makes more of an lr of 0; start from a small factor"
            )
        return now / before

    def get_lr(self) -> list[float]:
        ratio = self._ratio()
        return [lr * ratio for lr in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        return [base * self.scale(self.last_epoch) for base in self.base_lrs]


class StepLR(FactorLR):
    """lr = base_lr gamma^(step // step_size)"""

    resumes = False

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def scale(self, step: int) -> float:
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

    def scale(self, step: int) -> float:
        return self.gamma ** bisect_right(sorted(self.milestones.elements()), step)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        counts = {int(step): n for step, n in state_dict["milestones"].items()}  # JSON has texts
        super().load_state_dict({**state_dict, "milestones": Counter(counts)})


class ConstantLR(FactorLR):
    """lr = base_lr factor while step < total_iters, then base_lr

    ValueError unless 0 <= factor <= 1.
    """

    resumes = False

    def __init__(
        self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if not 0 <= factor <= 1:
            raise ValueError(f"ConstantLR: factor must be between 0 and 1, it is {factor}")
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def scale(self, step: int) -> float:
        return self.factor if step < self.total_iters else 1.0


class LinearLR(FactorLR):
    """lr = base_lr (start_factor + (end_factor - start_factor) min(1, step / total_iters))

    ValueError unless 0 < start_factor <= 1 and 0 <= end_factor <= 1.
    """

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0,
        total_iters: int = 5, last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if not 0 < start_factor <= 1:
            raise ValueError(
                f"LinearLR: start_factor must be greater than 0 and at most 1, it is {start_factor}"
            )
        if not 0 <= end_factor <= 1:
            raise ValueError(f"LinearLR: end_factor must be between 0 and 1, it is {end_factor}")
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def scale(self, step: int) -> float:
        way = min(self.total_iters, step) / self.total_iters
        return self.start_factor + (self.end_factor - self.start_factor) * way


class PolynomialLR(FactorLR):
    """lr = base_lr (1 - min(1, step / total_iters))^power"""

    def __init__(
        self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1
    ) -> None:
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def scale(self, step: int) -> float:
        return float((1 - min(self.total_iters, step) / self.total_iters) ** self.power)


class ExponentialLR(FactorLR):
    """lr = base_lr gamma^step"""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def scale(self, step: int) -> float:
        return self.gamma**step

    def _ratio(self) -> float:  # not from powers, which in the end are 0 or too large
        return 1.0 if self._is_initial else self.gamma
