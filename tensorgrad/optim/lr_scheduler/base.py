"""LRScheduler: sets the learning rate of every group, now and after each step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tensorgrad.optim.optimizer import Optimizer


class LRScheduler:
    """The base of schedules: sets every group's lr now, and again at each step().

    A subclass writes `get_lr`, from `last_epoch`, the number of steps taken, and either `base_lrs`,
    the lr each group had first, or, so that several schedules can act on one optimizer, from the lr
    that the groups have now.  last_epoch: -1 to begin; otherwise the last step of an earlier run,
    and then the groups must hold "initial_lr".
    """

    optimizer: Optimizer
    last_epoch: int
    _is_initial = False
    """Whether this is the step that the constructor makes."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = self._checked(optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f"{self._name}: param_groups[{i}] has no 'initial_lr', needed to go on from "
                    f"step {last_epoch}; load the optimizer's state first, or leave out last_epoch"
                )
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._initial_step()

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _checked(self, optimizer: Any) -> Optimizer:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{self._name}: {type(optimizer).__name__} is not an Optimizer")
        return optimizer

    def _per_group(self, optimizer: Optimizer, what: str, value: Any) -> list[Any]:
        """The given values, one for each group; or the given one, for all."""
        count = len(self._checked(optimizer).param_groups)
        values = list(value) if isinstance(value, list | tuple) else [value] * count
        if len(values) != count:
            raise ValueError(
                f"{self._name}: {len(values)} values of {what} for {count} parameter groups"
            )
        return values

    # ---- stepping

    def _initial_step(self) -> None:
        self._step_count, self._is_initial = 0, True
        self.step()
        self._is_initial = False

    def get_lr(self) -> list[float]:
        """The lr of each group at `last_epoch`."""
        return list(self.base_lrs)

    def _get_closed_form_lr(self) -> list[float]:
        """The same from `base_lrs` alone, for a step that does not follow the one before."""
        return self.get_lr()

    def get_last_lr(self) -> list[float]:
        """The lr of each group as last set."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Set the next learning rates, or those of a certain step; after optimizer.step()."""
        self._step_count += 1
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        if epoch is None:
            self.last_epoch += 1
            self._set(self.get_lr())
        else:
            self.last_epoch = epoch
            self._set(self._get_closed_form_lr())

    def _set(self, lrs: Iterable[float]) -> None:
        self._last_lr = list(lrs)
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = lr

    def _rates(self) -> list[float]:
        """The lr that each group has now."""
        return [group["lr"] for group in self.optimizer.param_groups]

    # ---- states

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and functions: numbers, strings, lists and dicts of them."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned; the optimizer's learning rates are set, too."""
        self.__dict__.update(state_dict)
        self._set(self._last_lr)
