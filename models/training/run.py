"""A run from its first step to its last: it notes every step, saves, stops when asked, rolls back.

Killed at any moment, it can go on from its folder as if nothing had happened."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tensorgrad import distributed as dist
from tensorgrad.dtypes import is_differentiable
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.guard import RollBack
from tensorgrad.models.training.logs import Logs
from tensorgrad.models.training.progress import Progress, duration
from tensorgrad.models.training.stopping import Stopped, stop_requests
from tensorgrad.models.training.together import is_chief, largest, shared
from tensorgrad.models.training.trainer import Step

ROLLBACKS = 3
"""Times that a run goes back to one checkpoint before it gives up."""


class Run:
    """Steps of a trainer, and what a folder keeps of them.

    about: what a checkpoint holds beside the trainer's state.  command: what resumes the run.
    written: a sample to show at evaluations.
    """

    def __init__(
        self, trainer: Any, folder: RunFolder, about: Mapping[str, Any], command: str,
        written: Callable[[], str | None],
    ) -> None:  # fmt: skip
        self.trainer, self.folder, self.about = trainer, folder, about
        self.command, self.written = command, written
        self.recipe = trainer.recipe
        self.total = self.recipe.max_iters
        self.rolled_back_to: list[int] = []

    def go(self, fresh: bool) -> None:
        """Train to the end; Stopped, after a checkpoint, where a signal asks for it."""
        if fresh:
            self.save()  # from here on there is always something to resume
        logs = None
        if is_chief():
            settings = {**self.about["config"], **self.about["recipe"]}
            names = getattr(self.recipe, "log", "")
            logs = Logs(names, self.folder.path, settings, self.trainer.step)
        try:
            with stop_requests() as asked, Progress(self.recipe, self.trainer.step) as progress:
                while self.trainer.step < self.total:
                    try:
                        for step in self.trainer.steps():
                            self.told(step, asked, progress, logs)
                    except RollBack as error:
                        self.roll_back(str(error), progress)
        finally:
            if logs is not None:
                logs.close()

    def told(self, step: Step, asked: list[int], progress: Progress, logs: Logs | None) -> None:
        """Note and show a step; save where it is time."""
        evaluated, keep_best = step.val_loss is not None, getattr(self.recipe, "keep_best", False)
        best = keep_best and step.val_loss is not None and step.val_loss <= self.least()
        self.folder.note(step)
        if is_chief():
            progress.show(step)
        if logs is not None:
            logs.note(step)
        number = largest(asked[0] if asked else 0)  # a signal may reach one process before others
        stopping = bool(number) and step.step < self.total
        often = getattr(self.recipe, "save_interval", 0)
        if stopping or evaluated or (often and step.step % often == 0):
            self.save(best)
        if evaluated and step.step < self.total and is_chief():
            text = self.written()
            if text:
                progress.say(text)
        if stopping:
            raise Stopped(
                f"stopped after step {step.step} of {self.total}, and saved; go on with: "
                f"{self.command} --resume --out_dir {self.folder.path}",
                number,
            )

    def least(self) -> float:
        """The least validation loss so far."""
        losses = [s["val_loss"] for s in self.folder.history() if s.get("val_loss") is not None]
        return min(losses, default=math.inf)

    def save(self, best: bool = False) -> None:
        """A checkpoint of this moment.  All processes take part.

        FloatingPointError, or RollBack where the recipe says so, if a weight is not finite.
        """
        state = {**self.about, "trainer": self.trainer.state()}
        name = not_finite(state["trainer"])
        if name is not None:
            back = getattr(self.recipe, "on_nonfinite", "stop") == "rollback" and self.trainer.step
            raise (RollBack if back else FloatingPointError)(
                f"after step {self.trainer.step} the weight {name!r} is not finite, and no "
                "checkpoint was made of it; take a lower learning_rate"
            )
        self.folder.save(state, getattr(self.recipe, "keep_last", 1), best)

    def roll_back(self, why: str, progress: Progress) -> None:
        """Back to the checkpoint, on with the batches that come next.

        FloatingPointError where that was done several times from the same one.
        """
        state = shared(self.folder.load() if is_chief() else None)["trainer"]
        self.rolled_back_to.append(state["step"])
        if self.rolled_back_to.count(state["step"]) > ROLLBACKS:
            raise FloatingPointError(
                f"{why}; {ROLLBACKS} times the run went back to step {state['step']}, and it "
                "happened again"
            )
        self.trainer.roll_back(state)
        self.folder.resume(self.trainer.step)
        if is_chief():
            progress.back(self.trainer.step)
            progress.say(f"{why}: back to step {self.trainer.step}, and past these batches")


def not_finite(state: Mapping[str, Any]) -> str | None:
    """The name of a weight, or of its average, that has an inf or a nan."""
    for part in ("model", "average"):
        for name, array in state.get(part, {}).items():
            if is_differentiable(array.dtype) and not np.isfinite(array).all():
                return str(name)
    return None


def throughput(history: Sequence[Mapping[str, Any]], unit: str = "token") -> str:
    """How fast the steps were, the one that compiles kernels apart, and what they make in all."""
    timed = [s for s in history if s.get("seconds")]
    if not timed:
        return "no step was timed"
    first, rest = timed[0], timed[1:]
    if not rest:
        speed = first["tokens"] / first["seconds"]
        return f"speed: {speed:,.0f} {unit}s a second in the only step, compiling included"
    speeds = [s["tokens"] / s["seconds"] for s in rest]
    text = (
        f"speed: {statistics.median(speeds):,.0f} {unit}s a second, the median of {len(rest):,} "
        f"steps; the first, which compiles kernels, took {first['seconds']:.1f} s and is left out"
    )
    shares = [s["mfu"] for s in rest if s.get("mfu") is not None]
    if shares:
        size = dist.get_world_size()
        text += f"; {100 * statistics.median(shares):.1f} % of the products' peak measured here" + (
            f", times {size}" if size > 1 else ""
        )
    total, seconds = (sum(s[name] for s in timed) for name in ("tokens", "seconds"))
    return f"{text}; in all {total:,} {unit}s in {duration(seconds)}"
