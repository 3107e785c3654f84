"""Schedules by a function that the user writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

from tensorgrad.optim.lr_scheduler.base import LRScheduler
from tensorgrad.optim.optimizer import Optimizer

Function = Callable[[int], float]


class LambdaLR(LRScheduler):
    """lr = base_lr f(step); one function, or one per group.

    `state_dict` holds no functions, but the attributes of callable objects.
    """

    def __init__(
        self, optimizer: Optimizer, lr_lambda: Function | Sequence[Function], last_epoch: int = -1
    ) -> None:
        self.lr_lambdas: list[Any] = self._per_group(optimizer, "lr_lambda", lr_lambda)
        for function in self.lr_lambdas:
            if not callable(function):
                raise TypeError(
                    f"{self._name}: lr_lambda should be a function, not {type(function).__name__}"
                )
        super().__init__(optimizer, last_epoch)

    def _factors(self) -> list[float]:
        return [function(self.last_epoch) for function in self.lr_lambdas]

    def get_lr(self) -> list[float]:
        return [base * factor for base, factor in zip(self.base_lrs, self._factors(), strict=True)]

    def state_dict(self) -> dict[str, Any]:
        own = [
            None if isinstance(function, FunctionType) else dict(getattr(function, "__dict__", {}))
            for function in self.lr_lambdas
        ]
        return {**super().state_dict(), "lr_lambdas": own}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        given = dict(state_dict)
        for function, own in zip(self.lr_lambdas, given.pop("lr_lambdas"), strict=True):
            if own:
                function.__dict__.update(own)
        super().load_state_dict(given)


class MultiplicativeLR(LambdaLR):
    """lr <- lr f(step) at each step from 1 on; one function, or one per group."""

    def get_lr(self) -> list[float]:
        if self._is_initial:
            return self._rates()
        return [lr * factor for lr, factor in zip(self._rates(), self._factors(), strict=True)]
