"""What a preparation was asked and how far it has come, on the disk after every shard."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tensorgrad.data.manifest import read_json, write_json
from tensorgrad.data.shards import LARGEST_COUNT, Shard, ShardInfo


@dataclass(frozen=True)
class Settings:
    """What decides the shards' bytes; the number of workers does not."""

    name: str
    sources: list[dict[str, Any]]
    tokenizer: str
    tokenizer_crc32: str
    vocab_size: int | None
    text_key: str
    shard_size: int
    total_tokens: int | None
    val_tokens: int | None
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        """Raises ValueError for settings that nothing can be prepared with."""
        name = self.name
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise ValueError(f"prepare: {name!r} cannot begin the names of files")
        if not 1 <= self.shard_size <= LARGEST_COUNT:
            raise ValueError(
                f"prepare: shard_size is 1 to {LARGEST_COUNT:,} tokens, not {self.shard_size}"
            )
        for what in ("total_tokens", "val_tokens"):
            value = getattr(self, what)
            if value is not None and value < 1:
                raise ValueError(f"prepare: {what} must be at least 1, it is {value}")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(
                f"prepare: rank must be 0 to world_size - 1, it is {self.rank} of {self.world_size}"
            )

    def shard_name(self, split: str, number: int) -> str:
        """llm.c's names, validation being number 0; machines take turns with the numbers."""
        return f"{self.name}_{split}_{number * self.world_size + self.rank:06d}.bin"


@dataclass
class Journal:
    """How far the work has come: all that is needed to go on without losing or repeating a token.

    Stage "tokens": the next token is number `skip` of what the task at `position` gives, where
    `shards` end.  Then "validation" is written, then the training shards' ends are cut in "trim".
    """

    stage: str = "tokens"
    position: list[Any] = field(default_factory=lambda: [0, None])
    skip: int = 0
    documents: int = 0
    whole: bool = True
    shards: list[dict[str, Any]] = field(default_factory=list)
    validation: dict[str, Any] | None = None

    @property
    def tokens(self) -> int:
        return sum(shard["tokens"] for shard in self.shards)

    def save(self, path: Path, made_with: dict[str, Any]) -> None:
        write_json(path, {"made_with": made_with, **asdict(self)})

    @classmethod
    def load(cls, path: Path, made_with: dict[str, Any]) -> Journal:
        """The journal of the same preparation, its shards checked; ValueError for another's."""
        content = read_json(path)
        compare(path.parent, content.pop("made_with"), made_with)
        journal = cls(**content)
        if journal.stage == "tokens":
            for shard in journal.shards:
                Shard(path.parent / shard["file"], ShardInfo(shard["tokens"], shard["crc32"]))
        return journal


def compare(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to mix two preparations in one folder."""
    for key, value in now.items():
        if before.get(key) != value:
            what = "its source files have changed since"
            if key != "sources" or names(before[key]) != names(value):
                what = f"{key} was {before.get(key)!r:.200} and now is {value!r:.200}"
            raise ValueError(
                f"prepare: {str(folder)!r} holds another preparation ({what}); choose another "
                "--out, or remove that folder"
            )


def names(sources: list[dict[str, Any]]) -> list[str]:
    return [source["name"] for source in sources]


@contextmanager
def alone(folder: Path, rank: int) -> Iterator[None]:
    """Keep a second preparation out; the lock falls with the process that holds it."""
    import fcntl

    path = folder / f".prepare-{rank}.lock"
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(
                f"another `tensorgrad prepare` is writing to {str(folder)!r}; let it end"
            ) from None
        yield
        os.unlink(path)
