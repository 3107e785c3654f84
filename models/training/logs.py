"""TensorBoard and Weights & Biases, beside the JSON lines that are always written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zlib import crc32

LOGGERS = {"tensorboard": "tensorboardX", "wandb": "wandb"}
"""The library of each."""


def named_loggers(names: str) -> list[str]:
    """The loggers of a comma-separated list; ValueError for one that does not exist."""
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in LOGGERS:
            raise ValueError(f"log must name {' or '.join(LOGGERS)}, it is {names!r}")
    return chosen


def check_loggers(names: str) -> None:
    """ImportError, with what to install, where the library of one that is named is missing."""
    for name in named_loggers(names):
        if find_spec(LOGGERS[name]) is None:
            raise ImportError(f"--log={name}: pip install {LOGGERS[name]}")


class Logs:
    """Hands every step's numbers to the loggers that were asked for, under the same names.

    tensorboard: event files in FOLDER/tensorboard.  wandb: offline, in FOLDER/wandb, to be sent by
    `wandb sync`, unless $WANDB_MODE says otherwise.  begin: the step after which a run goes on.
    ImportError, with what to install, where a library is missing.
    """

    def __init__(
        self, names: str, folder: Path, settings: Mapping[str, Any], begin: int = 0
    ) -> None:
        self.board: Any = None
        self.run: Any = None
        check_loggers(names)
        chosen = named_loggers(names)
        if "tensorboard" in chosen:
            from tensorboardX import SummaryWriter

            # The library names a file by the second alone; another one would replace it.
            self.board = SummaryWriter(
                str(folder / "tensorboard"), purge_step=begin + 1, filename_suffix=f".{begin}"
            )
        if "wandb" in chosen:
            import wandb

            mode: Any = os.environ.get("WANDB_MODE", "offline")
            self.run = wandb.init(
                project="tensorgrad",
                dir=str(folder),
                id=f"{folder.name}-{crc32(os.fsencode(folder.absolute())):08x}",
                resume="allow",
                mode=mode,
                config=dict(settings),
            )

    def note(self, step: Any) -> None:
        """Add a step."""
        if self.board is None and self.run is None:
            return
        numbers = {
            name: value
            for name, value in asdict(step).items()
            if isinstance(value, int | float) and name != "step"
        }
        numbers["tokens_per_second"] = step.tokens / step.seconds
        if self.board is not None:
            for name, value in numbers.items():
                self.board.add_scalar(name, value, step.step)
        if self.run is not None:
            self.run.log(numbers, step=step.step)

    def close(self) -> None:
        """Flush what is written."""
        if self.board is not None:
            self.board.close()
        if self.run is not None:
            self.run.finish()
