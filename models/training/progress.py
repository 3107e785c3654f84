"""What a run shows while it runs: a bar on a terminal; elsewhere plain lines, for a log file."""

from __future__ import annotations

import statistics
import sys
from collections import deque
from shutil import get_terminal_size
from types import TracebackType
from typing import Any

from tensorgrad.models.training.together import is_chief
from tensorgrad.models.training.trainer import Step


class Progress:
    """Shows steps as they come, and closes the bar at the end of its with-block."""

    def __init__(self, recipe: Any, done: int = 0) -> None:
        self.recipe = recipe
        self.recent: deque[float] = deque(maxlen=50)  # seconds a step
        self.done, self.warm = done, False
        self.bar: Any = None
        if sys.stderr.isatty() and is_chief():
            from tqdm import tqdm

            columns, lines = get_terminal_size()  # 80 and 24 where a terminal says 0 and 0
            self.bar = tqdm(
                total=recipe.max_iters,
                initial=done,
                unit=" step",
                ncols=min(columns, 100),
                nrows=lines,
            )

    def show(self, step: Step) -> None:
        """A tick of the bar, or a line; evaluations always leave a line."""
        evaluated = step.val_loss is not None or step.skipped is not None
        if self.warm:  # the first step compiles kernels
            self.recent.append(step.seconds / max(1, step.step - self.done))
        self.done, self.warm = step.step, True
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {step.loss:.3f}", refresh=False)
            self.bar.update(step.step - self.bar.n)
            if evaluated:
                self.bar.write(line(step, self.recipe.max_iters), file=sys.stderr)
        elif evaluated or step.step == 1 or step.step % self.recipe.log_interval == 0:
            left = (self.recipe.max_iters - step.step) * statistics.median(self.recent or [0.0])
            print(line(step, self.recipe.max_iters, left), flush=True)

    def back(self, step: int) -> None:
        """The run went back to this step."""
        self.done = step
        if self.bar is not None:
            self.bar.n = step
            self.bar.refresh()

    def say(self, text: str) -> None:
        """A text between the steps."""
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            print(text, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.close()


def line(step: Step, total: int, left: float | None = None) -> str:
    """A step in one line, as llm.c writes it; `left`, seconds to the end."""
    parts = [f"step {step.step}/{total}", f"loss {step.loss:.4f}"]
    if step.grad_norm is not None:
        parts.append(f"norm {step.grad_norm:.2f}")
    parts += [
        f"lr {step.lr:.1e}",
        f"{1e3 * step.seconds:.0f} ms",
        f"{step.tokens / step.seconds / 1e3:.1f}k tok/s",
    ]
    if step.mfu is not None:
        parts.append(f"MFU {100 * step.mfu:.1f} %")
    if step.val_loss is not None:
        parts += [f"train {step.train_loss:.4f}", f"val {step.val_loss:.4f}"]
    if left:
        parts.append(f"ETA {duration(left)}")
    if step.skipped is not None:
        parts.append(f"skipped: {step.skipped}")
    return " | ".join(parts)


def duration(seconds: float) -> str:
    """12 s, 3 min 20 s, 5 h 3 min, 6 d 2 h"""
    whole = round(seconds)
    sizes = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    parts: list[str] = []
    for unit, size in sizes:
        count, whole = divmod(whole, size)
        if count or parts or unit == "s":
            parts.append(f"{count} {unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0 ") or len(parts) == 1)
