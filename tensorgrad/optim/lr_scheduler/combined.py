"""Schedules of schedules: one after the other, or all at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tensorgrad.optim.lr_scheduler.base import LRScheduler
from tensorgrad.optim.lr_scheduler.plateau import ReduceLROnPlateau
from tensorgrad.optim.optimizer import Optimizer


class Combined(LRScheduler):
    """What the two share: the schedules they hold, checked, and the state of all of them."""

    def __init__(self, optimizer: Optimizer | None, schedulers: Sequence[LRScheduler]) -> None:
        if not schedulers:
            raise ValueError(f"{self._name} needs at least one scheduler")
        self._schedulers = list(schedulers)
        for i, one in enumerate(schedulers):
            if not isinstance(getattr(one, "optimizer", None), Optimizer):
                raise TypeError(
                    f"{self._name}: schedulers[{i}] is a {type(one).__name__}, without an optimizer"
                )
            if isinstance(one, ReduceLROnPlateau):
                raise ValueError(
                    f"{self._name} does not support ReduceLROnPlateau (schedulers[{i}]), whose "
                    "step wants a metric; step it yourself"
                )
        self.optimizer = schedulers[0].optimizer if optimizer is None else optimizer
        for i, one in enumerate(schedulers):
            if one.optimizer is not self.optimizer:
                raise ValueError(
                    f"{self._name}: schedulers[{i}] belongs to another optimizer; all schedulers "
                    "must act on the same"
                )

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, with the states of the schedulers."""
        states = [one.state_dict() for one in self._schedulers]
        return {**super().state_dict(), "_schedulers": states}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned; the optimizer's learning rates are set, too."""
        given = dict(state_dict)
        for one, state in zip(self._schedulers, given.pop("_schedulers"), strict=True):
            one.load_state_dict(state)
        super().load_state_dict(given)


class SequentialLR(Combined):
    """Each schedule in its turn, from 0: the second starts at step milestones[0], and so on.

    milestones: one less than schedulers.  ValueError where numbers or optimizers do not fit.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        super().__init__(self._checked(optimizer), schedulers)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"SequentialLR: {len(milestones)} milestones for {len(schedulers)} schedulers, "
                "there must be one less"
            )
        self._milestones = list(milestones)
        self.last_epoch = last_epoch + 1
        for group in optimizer.param_groups:  # undo what their constructors did
            group["lr"] = group["initial_lr"]
        for one in _plain(self):
            one.last_epoch -= 1
        self._initial_step()

    def _initial_step(self) -> None:
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def step(self) -> None:  # type: ignore[override]
        """Set the next learning rates; after optimizer.step()."""
        self._update_lr()

    def _update_lr(self, epoch: int | None = None) -> None:
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        i = bisect_right(self._milestones, self.last_epoch)
        current = self._schedulers[i]
        if epoch is not None or (i and self._milestones[i - 1] == self.last_epoch):
            current._update_lr(0)
        else:
            current.step()
        self._last_lr = current.get_last_lr()


class ChainedScheduler(Combined):
    """All schedules at once, each changing what the one before it set.

    optimizer: that of the schedulers, if not given.  ValueError where optimizers differ.
    """

    def __init__(
        self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None
    ) -> None:
        super().__init__(optimizer, schedulers)
        self._last_lr = self._rates()

    def step(self) -> None:  # type: ignore[override]
        """Set the next learning rates; after optimizer.step()."""
        for one in self._schedulers:
            one.step()
        self._last_lr = self._rates()

    def _initial_step(self) -> None:
        for one in self._schedulers:
            one._initial_step()
        self._last_lr = self._rates()

    def _update_lr(self, epoch: int | None = None) -> None:
        for one in self._schedulers:
            one._update_lr(epoch)
        self._last_lr = self._rates()


def _plain(one: LRScheduler) -> Iterator[LRScheduler]:
    """The schedules that hold no others."""
    if isinstance(one, Combined):
        for inner in one._schedulers:
            yield from _plain(inner)
    else:
        yield one
