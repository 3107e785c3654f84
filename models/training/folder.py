"""The folder of a run: checkpoints, losses, picture.  Nothing in it is half-written or lost."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tensorgrad.atomic import replacing, replacing_by_link, sweep
from tensorgrad.models.training.trainer import Step
from tensorgrad.serialization import CheckpointError, load_tree, save_tree

FORMAT = 2
"""Of checkpoints: another number means other contents."""

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

    @property
    def own(self) -> tuple[Path, ...]:
        """The files of a run, those that mean nothing without the checkpoint before it."""
        files = (self.picture, self.best, self.times, self.losses, self.checkpoint)
        return (*(path for _, path in reversed(self.numbered())), *files)

    def begin(self) -> Path | None:
        """Make the folder.  The files of an earlier run move into the folder that is returned."""
        if not self.chief:
            return None
        self.make()
        old = [file for file in self.own if file.exists()]
        if not old:
            return None
        number = 1
        while (earlier := self.path / f"earlier-{number}").exists():
            number += 1
        with sentence(f"cannot move the files of an earlier run to {str(earlier)!r}"):
            earlier.mkdir()
            for file in old:
                file.rename(earlier / file.name)
        return earlier

    def make(self) -> None:
        """The folder, with a sentence where it cannot be."""
        with sentence(f"cannot make the folder {str(self.path)!r}"):
            self.path.mkdir(parents=True, exist_ok=True)

    def resume(self, step: int, name: str | None = None) -> None:
        """Forget the losses and checkpoints of the steps after this one: they come again.

        name: the file that the run goes on from, which becomes `checkpoint`.
        """
        if not self.chief:
            return
        if name not in (None, self.checkpoint.name):  # first: losses are never behind it
            replacing_by_link(self.path / str(name), self.checkpoint)
            if self.best.exists() and step_of(self.best) > step:
                remove(self.best)
        for path in (self.losses, self.times):
            lines = [json.dumps(entry) + "\n" for entry in entries(path) if entry["step"] <= step]
            with replacing(path) as file:
                file.write("".join(lines).encode())
        for number, path in self.numbered():
            if number > step:
                remove(path)

    def note(self, step: Step) -> None:
        """Add a step to the losses and its times to theirs."""
        if not self.chief:
            return
        told_of = {k: number(v) for k, v in asdict(step).items() if v is not None}
        for path, names in ((self.losses, told_of.keys() - TIMES), (self.times, TIMES)):
            entry = {k: v for k, v in told_of.items() if k in names or k == "step"}
            with (
                sentence(f"cannot write {str(path)!r}"),
                open(path, "a", encoding="utf-8") as file,
            ):
                file.write(json.dumps(entry) + "\n")

    def history(self) -> list[dict[str, Any]]:
        """The steps noted, in order, with their times; a line that a crash cut off is not one."""
        times = {entry["step"]: entry for entry in entries(self.times)}
        return [{**times.get(entry["step"], {}), **entry} for entry in entries(self.losses)]

    def save(self, state: dict[str, Any], keep_last: int = 1, best: bool = False) -> None:
        """Replace the checkpoint; of those before, keep_last - 1 stay.

        The losses reach the disk first, so no checkpoint is ahead of them, then `best`: a run that
        is killed before the checkpoint comes to this step again.
        """
        if not self.chief:
            return
        state = {"format": FORMAT, **state}
        self.flush()
        if keep_last > 1:
            newest = self.path / f"ckpt-{state['trainer']['step']:08d}.safetensors"
        else:
            newest = self.best if best else self.checkpoint
        save_tree(newest, state)
        if best and newest != self.best:
            replacing_by_link(newest, self.best)
        if newest != self.checkpoint:
            replacing_by_link(newest, self.checkpoint)
        kept = keep_last if keep_last > 1 else 0
        for _, path in self.numbered()[kept:]:
            remove(path)
        names = {path.name for path in self.own}
        sweep(self.checkpoint, lambda name: name in names or bool(NUMBERED.fullmatch(name)))

    def flush(self) -> None:
        """Hand what was noted to the disk."""
        for path in (self.losses, self.times):
            if path.exists():
                with sentence(f"cannot write {str(path)!r}"), open(path, "rb") as file:
                    os.fsync(file.fileno())

    def numbered(self) -> list[tuple[int, Path]]:
        """The checkpoints kept by their step, the newest first."""
        names = ((NUMBERED.fullmatch(path.name), path) for path in self.path.glob("ckpt-*"))
        return sorted(((int(m[1]), path) for m, path in names if m), reverse=True)

    def newest(self) -> str | None:
        """The name of the checkpoint, or where it is gone of the newest that was kept beside it."""
        names = [self.checkpoint.name] if self.checkpoint.exists() else []
        return next(iter([*names, *(path.name for _, path in self.numbered())]), None)

    def load(self, kind: str | None = None, name: str | None = None) -> dict[str, Any]:
        """The checkpoint, or the file of this name, of a model of this kind or of any.

        FileNotFoundError where there is none, CheckpointError for a bad one or another kind's.
        """
        file = self.checkpoint if name is None else self.path / name
        if not file.exists():
            raise FileNotFoundError(
                f"there is no checkpoint {str(file)!r}; "
                + (self.others(file) or f"`tensorgrad train --out_dir {self.path}` makes one")
            )
        try:
            state: Any = load_tree(file)
        except CheckpointError as error:
            others = self.others(file)
            raise CheckpointError(f"{error}; {others}" if others else str(error)) from error
        if not isinstance(state, dict) or PARTS - state.keys():
            raise CheckpointError(
                f"{str(file)!r} is not the checkpoint of a {kind or 'model of language'}"
            )
        if state.get("format") != FORMAT:
            raise CheckpointError(
                f"{str(file)!r} was written by another version of tensorgrad: its contents are of "
                f"format {state.get('format', 1)}, and this one reads {FORMAT}"
            )
        if kind not in (None, state["kind"]):
            raise CheckpointError(
                f"{str(file)!r} is not the checkpoint of a {kind} but of a "
                f"{state['kind']}; name that model, or another --out_dir"
            )
        return state

    def others(self, file: Path) -> str:
        """Which checkpoints there are beside a file and its other names, the newest first."""
        known = [self.checkpoint, *(path for _, path in self.numbered()), self.best]
        names = [
            path.name
            for path in known
            if path.exists() and not (file.exists() and path.samefile(file))
        ]
        return f"--resume --checkpoint NAME takes another: {', '.join(names)}" if names else ""


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file that are whole: a crash may cut off the last, or leave blank ones."""
    if not path.exists():
        return
    with sentence(f"cannot read {str(path)!r}"):
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for line in lines[:-1]:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            yield entry


def step_of(path: Path) -> int:
    """The step of a checkpoint; 0 of a damaged one."""
    try:
        state: Any = load_tree(path)
        return int(state["trainer"]["step"])
    except (KeyError, TypeError, ValueError):  # CheckpointError is one
        return 0


def remove(path: Path) -> None:
    """Delete a file, with a sentence where it cannot be."""
    with sentence(f"cannot delete {str(path)!r}"):
        path.unlink()


def number(value: Any) -> Any:
    """JSON has no nan: None stands for it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def sentence(what: str) -> Iterator[None]:
    """An error of the system inside is raised as a sentence."""
    try:
        yield
    except OSError as error:
        told = type(error)(f"{what}: {(error.strerror or str(error)).lower()}")
        told.errno = error.errno
        raise told from error
