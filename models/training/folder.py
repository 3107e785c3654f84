"""The folder of a run: checkpoints, losses, picture.  Nothing in it is half-written or lost."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tensorgrad.atomic import replacing, replacing_by_link
from tensorgrad.models.training.trainer import Step
from tensorgrad.serialization import CheckpointError, load_tree, save_tree

PARTS = {"kind", "config", "recipe", "vocab", "text", "trainer"}
"""What a checkpoint of a language model consists of."""

TIMES = {"seconds", "mfu"}
"""What a step tells that differs in every run: it has a file of its own."""

NUMBERED = re.compile(r"ckpt-(\d{8,})\.safetensors")


class RunFolder:
    """`checkpoint` is replaced whole, `losses` and `times` grow by a line a step.

    Two runs of the same seed write the same losses, byte for byte; times are apart.  Where several
    are kept, `checkpoint` is another name of the newest ckpt-STEP.safetensors, and `best` of the
    one with the least validation loss.  chief: without it nothing is written, for the processes
    that share a run with the one that writes.
    """

    def __init__(self, path: str | os.PathLike[str], chief: bool = True) -> None:
        self.path, self.chief = Path(path), chief
        self.checkpoint = self.path / "ckpt.safetensors"
        self.best = self.path / "best.safetensors"
        self.losses = self.path / "losses.jsonl"
        self.times = self.path / "times.jsonl"
        self.picture = self.path / "loss.png"

    def begin(self) -> Path | None:
        """Make the folder.  The files of an earlier run move into the folder that is returned."""
        if not self.chief:
            return None
        self.make()
        own = (self.checkpoint, self.best, self.losses, self.times, self.picture)
        old = [file for file in own if file.exists()] + [file for _, file in self.numbered()]
        if not old:
            return None
        number = 1
        while (earlier := self.path / f"earlier-{number}").exists():
            number += 1
        earlier.mkdir()
        for file in old:
            file.rename(earlier / file.name)
        return earlier

    def make(self) -> None:
        """The folder, with a sentence where it cannot be."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise told(error, f"cannot make the folder {str(self.path)!r}") from error

    def resume(self, step: int) -> None:
        """Forget the losses and checkpoints of the steps after this one: they come again."""
        if not self.chief:
            return
        for path in (self.losses, self.times):
            lines = [json.dumps(entry) + "\n" for entry in entries(path) if entry["step"] <= step]
            with replacing(path) as file:
                file.write("".join(lines).encode())
        for number, path in self.numbered():
            if number > step:
                path.unlink()

    def note(self, step: Step) -> None:
        """Add a step to the losses and its times to theirs."""
        if not self.chief:
            return
        told_of = {k: number(v) for k, v in asdict(step).items() if v is not None}
        for path, names in ((self.losses, told_of.keys() - TIMES), (self.times, TIMES)):
            entry = {k: v for k, v in told_of.items() if k in names or k == "step"}
            try:
                with open(path, "a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
            except OSError as error:
                raise told(error, f"cannot write {str(path)!r}") from error

    def history(self) -> list[dict[str, Any]]:
        """The steps noted, in order, with their times; a line that a crash cut off is not one."""
        times = {entry["step"]: entry for entry in entries(self.times)}
        return [{**times.get(entry["step"], {}), **entry} for entry in entries(self.losses)]

    def save(self, state: dict[str, Any], keep_last: int = 1, best: bool = False) -> None:
        """Replace the checkpoint; of those before, keep_last - 1 stay.

        The losses reach the disk first, so no checkpoint is ahead of them.
        """
        if not self.chief:
            return
        self.flush()
        if keep_last == 1:
            save_tree(self.checkpoint, state)
        else:
            newest = self.path / f"ckpt-{state['trainer']['step']:08d}.safetensors"
            save_tree(newest, state)
            replacing_by_link(newest, self.checkpoint)
        if best:
            replacing_by_link(self.checkpoint, self.best)
        kept = keep_last if keep_last > 1 else 0
        for _, path in self.numbered()[kept:]:
            path.unlink()

    def flush(self) -> None:
        """Hand what was noted to the disk."""
        for path in (self.losses, self.times):
            if path.exists():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())

    def numbered(self) -> list[tuple[int, Path]]:
        """The checkpoints kept by their step, the newest first."""
        names = ((NUMBERED.fullmatch(path.name), path) for path in self.path.glob("ckpt-*"))
        return sorted(((int(m[1]), path) for m, path in names if m), reverse=True)

    def load(self, kind: str | None = None, name: str | None = None) -> dict[str, Any]:
        """The checkpoint, or the file of this name, of a model of this kind or of any.

        FileNotFoundError where there is none, CheckpointError for a bad one or another kind's.
        """
        file = self.checkpoint if name is None else self.path / name
        if not file.exists():
            others = sorted(path.name for path in self.path.glob("*.safetensors"))
            raise FileNotFoundError(
                f"there is no checkpoint {str(file)!r}; "
                + (
                    f"there is {', '.join(others)}"
                    if others
                    else f"`tensorgrad train --out_dir {self.path}` makes one"
                )
            )
        state: Any = load_tree(file)
        if not isinstance(state, dict) or PARTS - state.keys():
            raise CheckpointError(
                f"{str(file)!r} is not the checkpoint of a {kind or 'model of language'}"
            )
        if kind not in (None, state["kind"]):
            raise CheckpointError(
                f"{str(file)!r} is not the checkpoint of a {kind} but of a "
                f"{state['kind']}; name that model, or another --out_dir"
            )
        return state


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file that are whole."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def number(value: Any) -> Any:
    """JSON has no nan: None stands for it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def told(error: OSError, what: str) -> OSError:
    """The same error, as a sentence."""
    sentence = type(error)(f"{what}: {(error.strerror or str(error)).lower()}")
    sentence.errno = error.errno
    return sentence
