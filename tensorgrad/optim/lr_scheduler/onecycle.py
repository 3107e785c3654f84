"""OneCycleLR: one rise and fall of the learning rate, and of the momentum the other way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorgrad.optim.lr_scheduler.base import LRScheduler
from tensorgrad.optim.lr_scheduler.cosine import height
from tensorgrad.optim.optimizer import Group, Optimizer


class OneCycleLR(LRScheduler):
    """lr: max_lr / div_factor -> max_lr -> max_lr / (div_factor final_div_factor)

    in total_steps (or epochs steps_per_epoch), of which pct_start go up; three_phase: down first to
    where it began, in as many steps.  Each phase is half a cosine, or straight where
    anneal_strategy is "linear".  cycle_momentum: the momentum, or the first of betas, goes from
    max_momentum to base_momentum and back meanwhile.  max_lr and the momenta: one or per group.

    Smith and Topin 2019.  ValueError for options out of range, and for a step after the last.
    """

    def __init__(
        self, optimizer: Optimizer, max_lr: float | list[float], total_steps: int | None = None,
        epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
        anneal_strategy: str = "cos", cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85, max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0, final_div_factor: float = 1e4, three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        self.total_steps = _total(total_steps, epochs, steps_per_epoch)
        if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
            raise ValueError(
                f"OneCycleLR: pct_start must be a float between 0 and 1, it is {pct_start!r}"
            )
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"OneCycleLR: anneal_strategy is 'cos' or 'linear', not {anneal_strategy!r}"
            )
        self._anneal_func_type = anneal_strategy
        self._schedule_phases = _phases(pct_start * self.total_steps, self.total_steps, three_phase)
        self.cycle_momentum = cycle_momentum
        rates = self._per_group(optimizer, "max_lr", max_lr)
        if last_epoch == -1:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                first = rate / div_factor
                group |= {"initial_lr": first, "max_lr": rate, "min_lr": first / final_div_factor}
        if cycle_momentum:
            self.use_beta1 = "betas" in optimizer.defaults
            if not self.use_beta1 and "momentum" not in optimizer.defaults:
                raise ValueError(
                    f"OneCycleLR: {type(optimizer).__name__} has neither momentum nor betas; "
                    "set cycle_momentum=False"
                )
            high = self._per_group(optimizer, "max_momentum", max_momentum)
            low = self._per_group(optimizer, "base_momentum", base_momentum)
            for group, most, least in zip(optimizer.param_groups, high, low, strict=True):
                if last_epoch == -1:
                    group |= {"max_momentum": most, "base_momentum": least}
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch > self.total_steps:
            raise ValueError(
                f"OneCycleLR: tried to step {self.last_epoch} times, total_steps is "
                f"{self.total_steps}"
            )
        phase, done = self._phase()
        for group in self.optimizer.param_groups if self.cycle_momentum else ():
            momentum = self._between(group, phase, "momentum", done)
            if self.use_beta1:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum
        return [self._between(group, phase, "lr", done) for group in self.optimizer.param_groups]

    def _phase(self) -> tuple[dict[str, Any], float]:
        """The phase of this step, and the share of it that is over."""
        begin, step = 0.0, self.last_epoch
        for phase in self._schedule_phases[:-1]:
            if step <= phase["end_step"]:
                break
            begin = phase["end_step"]
        else:
            phase = self._schedule_phases[-1]
        length = phase["end_step"] - begin
        return phase, (step - begin) / length if length else 1.0

    def _between(self, group: Group, phase: dict[str, Any], what: str, done: float) -> float:
        start, end = group[phase[f"start_{what}"]], group[phase[f"end_{what}"]]
        if self._anneal_func_type == "linear":
            return float((end - start) * done + start)
        return float(end + (start - end) * height(done))

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if self.last_epoch >= 0:  # otherwise its turn in a sequence is yet to come
            self._set(self.get_lr())  # the momentum, too


def _total(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    given = {"total_steps": total_steps}
    if total_steps is None:
        given = {"epochs": epochs, "steps_per_epoch": steps_per_epoch}
    total = 1
    for name, number in given.items():
        if number is None:
            raise ValueError("OneCycleLR needs total_steps, or epochs and steps_per_epoch")
        if not isinstance(number, int) or number <= 0:
            raise ValueError(f"OneCycleLR: {name} must be a positive integer, it is {number}")
        total *= number
    return total


def _phases(up: float, total: int, three: bool) -> list[dict[str, Any]]:
    """Where each phase ends, and between which entries of a group it goes."""
    ends = [up - 1, 2 * up - 2, total - 1] if three else [up - 1, total - 1]
    rates = ["initial_lr", "max_lr", *["initial_lr"] * three, "min_lr"]
    momenta = ["max_momentum", "base_momentum", "max_momentum", "max_momentum"]
    return [
        {
            "end_step": end, "start_lr": rates[i], "end_lr": rates[i + 1],
            "start_momentum": momenta[i], "end_momentum": momenta[i + 1],
        }
        for i, end in enumerate(ends)
    ]  # fmt: skip
