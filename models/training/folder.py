"""The folder of a run: checkpoint, losses, picture.  Nothing in it is ever half-written or lost."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tensorgrad.atomic import replacing
from tensorgrad.models.training.trainer import Step
from tensorgrad.serialization import CheckpointError, load_tree, save_tree

PARTS = {"kind", "config", "recipe", "vocab", "text", "trainer"}
"""What a checkpoint of a language model consists of."""


class RunFolder:
    """`checkpoint` is replaced whole, `losses` grows by a line a step, `picture` comes last."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.checkpoint = self.path / "ckpt.safetensors"
        self.losses = self.path / "losses.jsonl"
        self.picture = self.path / "loss.png"

    def begin(self) -> Path | None:
        """Make the folder.  The files of an earlier run move into the folder that is returned."""
        self.make()
        old = [file for file in (self.checkpoint, self.losses, self.picture) if file.exists()]
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
        """Forget the losses noted after the checkpoint's step: those steps come again."""
        lines = [json.dumps(entry) + "\n" for entry in self.history() if entry["step"] <= step]
        with replacing(self.losses) as file:
            file.write("".join(lines).encode())

    def note(self, step: Step) -> None:
        """Add a step to the losses."""
        entry = {name: value for name, value in asdict(step).items() if value is not None}
        try:
            with open(self.losses, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise told(error, f"cannot write {str(self.losses)!r}") from error

    def history(self) -> list[dict[str, Any]]:
        """The steps noted, in order; a last line that a crash cut off does not count."""
        if not self.losses.exists():
            return []
        entries = []
        for line in self.losses.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                entries.append(json.loads(line))
        return entries

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint."""
        save_tree(self.checkpoint, state)

    def load(self, kind: str | None = None) -> dict[str, Any]:
        """The checkpoint, of a model of this kind or of any.

        FileNotFoundError where there is none, CheckpointError for a bad one or another kind's.
        """
        if not self.checkpoint.exists():
            raise FileNotFoundError(
                f"there is no checkpoint {str(self.checkpoint)!r}; `tensorgrad train --out_dir "
                f"{self.path}` makes one"
            )
        state: Any = load_tree(self.checkpoint)
        if not isinstance(state, dict) or PARTS - state.keys():
            raise CheckpointError(
                f"{str(self.checkpoint)!r} is not the checkpoint of a {kind or 'model of language'}"
            )
        if kind not in (None, state["kind"]):
            raise CheckpointError(
                f"{str(self.checkpoint)!r} is not the checkpoint of a {kind} but of a "
                f"{state['kind']}; name that model, or another --out_dir"
            )
        return state


def told(error: OSError, what: str) -> OSError:
    """The same error, as a sentence."""
    sentence = type(error)(f"{what}: {(error.strerror or str(error)).lower()}")
    sentence.errno = error.errno
    return sentence
