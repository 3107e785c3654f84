"""What a run shows while it runs: a bar on a terminal; elsewhere plain lines, for a log file."""

from __future__ import annotations

import sys
from shutil import get_terminal_size
from types import TracebackType
from typing import Any

from tensorgrad.models.training.trainer import Step


class Progress:
    """Shows steps as they come, and closes the bar at the end of its with-block."""

    def __init__(self, recipe: Any, done: int = 0) -> None:
        self.recipe = recipe
        self.bar: Any = None
        if sys.stderr.isatty():
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
        evaluated = step.val_loss is not None
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {step.loss:.3f}", refresh=False)
            self.bar.update(step.step - self.bar.n)
            if evaluated:
                self.bar.write(line(step, self.recipe.max_iters), file=sys.stderr)
        elif evaluated or step.step == 1 or step.step % self.recipe.log_interval == 0:
            print(line(step, self.recipe.max_iters), flush=True)

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


def line(step: Step, total: int) -> str:
    """A step in one line, as llm.c writes it."""
    parts = [f"step {step.step}/{total}", f"loss {step.loss:.4f}"]
    if step.grad_norm is not None:
        parts.append(f"norm {step.grad_norm:.2f}")
    parts += [
        f"lr {step.lr:.1e}",
        f"{1e3 * step.seconds:.0f} ms",
        f"{step.tokens / step.seconds / 1e3:.1f}k tok/s",
    ]
    if step.val_loss is not None:
        parts += [f"train {step.train_loss:.4f}", f"val {step.val_loss:.4f}"]
    return " | ".join(parts)
