"""The last tokens of a row of shards become the validation shard, and the others the training set.

Each step can be done again after a kill, and then gives the same files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorgrad.data.journal import Journal
from tensorgrad.data.shards import Shard, ShardWriter

Entry = dict[str, Any]


def carve(
    journal: Journal, folder: Path, val_name: str, val_tokens: int, save: Callable[[], None]
) -> list[Entry]:
    """The manifest's entries, once the last `val_tokens` have been moved; `save` saves the journal.

    The journal goes on to list the shards as they were, so that every token has one known place.
    """
    keep = journal.tokens - val_tokens
    if journal.stage == "validation":
        journal.validation = write_tail(journal.shards, folder, val_name, keep)
        journal.stage = "trim"
        save()
    assert journal.validation is not None
    entries = [{"split": "val", **journal.validation}]
    before = 0
    for shard in journal.shards:
        kept = min(max(keep - before, 0), shard["tokens"])
        before += shard["tokens"]
        if kept == 0:
            (folder / shard["file"]).unlink(missing_ok=True)
        else:
            whole = kept == shard["tokens"]
            entries.append({"split": "train", **(shard if whole else cut(folder, shard, kept))})
    return entries


def write_tail(shards: list[Entry], folder: Path, name: str, keep: int) -> Entry:
    """All tokens from number `keep` on, as one shard."""
    before = 0
    with ShardWriter(folder / name) as writer:
        for entry in shards:
            first = max(keep - before, 0)
            before += entry["tokens"]
            if first < entry["tokens"]:
                copy(Shard(folder / entry["file"]), first, entry["tokens"], writer)
    return {"file": name, **writer.info._asdict()}


def cut(folder: Path, entry: Entry, kept: int) -> Entry:
    """The shard with its first tokens alone; the same if that was done before."""
    shard = Shard(folder / entry["file"])
    with ShardWriter(folder / entry["file"]) as writer:
        copy(shard, 0, kept, writer)
    return {"file": entry["file"], **writer.info._asdict()}


def copy(shard: Shard, start: int, end: int, writer: ShardWriter, step: int = 2**22) -> None:
    for at in range(start, end, step):
        writer.write(shard.tokens[at : min(at + step, end)])
        shard.release()
