"""From texts to token shards: in parallel, resumable after any death, every document once.

The stream of tokens is cut into shards as it comes; at its end the last of it becomes validation.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tensorgrad.data.carve import carve
from tensorgrad.data.journal import Journal, Settings, alone, compare
from tensorgrad.data.manifest import manifest_name, read_json, write_json
from tensorgrad.data.shards import Shard, ShardError, ShardWriter
from tensorgrad.data.sources import Source, Task, find_sources, pieces, shares
from tensorgrad.data.streams import batches
from tensorgrad.data.tokens import BPE
from tensorgrad.data.vocabulary import vocabulary
from tensorgrad.data.workers import tokenised

TOKENIZER = "tokenizer.json"


def prepare(
    sources: str | Sequence[str],
    out: str | os.PathLike[str],
    *,
    name: str | None = None,
    tokenizer: str | BPE = "gpt2",
    vocab_size: int = 8192,
    text_key: str = "text",
    shard_size: int = 100_000_000,
    total_tokens: int | None = None,
    val_tokens: int | None = None,
    workers: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    download: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Write the texts' tokens as shards into the folder `out`; returns its manifest.

    sources: text files (one document each), JSONL (`text_key`), parquet, folders of these, hub data
    sets such as "HuggingFaceFW/fineweb:sample-10BT".  tokenizer: "gpt2", a vocabulary's file, a
    BPE, or "bpe", which trains one of `vocab_size` on the sources.  `<|endoftext|>` comes before
    each document.  Of all tokens, or the first `total_tokens`, the last `val_tokens` (default: one
    in a hundred, at least one) are NAME_val_000000.bin, the others NAME_train_%06d.bin.

    The shards are the same for any number of `workers` (default: one for each core).  After a kill
    the same call goes on where it was; after the end it does nothing.  Sockets are opened for hub
    sources and `download` (of gpt2's vocabulary) alone.  Raises ValueError, OSError and
    RuntimeError with sentences.
    """
    names = [sources] if isinstance(sources, str) else list(sources)
    if not names:
        raise ValueError("prepare: name at least one source")
    found = find_sources(names)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder, rank):
        trained = tokenizer == "bpe"
        if trained and (any(folder.glob(".progress-*")) or any(folder.glob("manifest*.json"))):
            tokenizer = str(folder / TOKENIZER)  # which was trained when this began
        hub = any(source.kind == "hub" for source in found)
        bpe = vocabulary(tokenizer, found, text_key, vocab_size, download or hub)
        settings = Settings(
            name=name or default_name(names[0]),
            sources=[source.identity() for source in found],
            tokenizer=bpe.name,
            tokenizer_crc32=bpe.crc32,
            vocab_size=vocab_size if trained else None,
            text_key=text_key,
            shard_size=shard_size,
            total_tokens=total_tokens,
            val_tokens=val_tokens,
            rank=rank,
            world_size=world_size,
        )
        return Preparation(settings, found, bpe, folder).run(workers or cores(), progress)


def default_name(source: str) -> str:
    """fineweb for FineWeb, else the first source's stem."""
    name = Path(source if os.path.exists(source) else source.partition(":")[0]).name
    if name.lower().startswith("fineweb") and not os.path.exists(source):
        return "fineweb"
    return name.split(".")[0] or name


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Preparation:
    """One preparation, from wherever its folder stands to its manifest."""

    def __init__(self, settings: Settings, sources: list[Source], bpe: BPE, folder: Path) -> None:
        self.settings, self.sources, self.bpe, self.folder = settings, sources, bpe, folder
        self.manifest_path = folder / manifest_name(settings.rank, settings.world_size)
        self.journal_path = folder / f".progress-{settings.rank}.json"
        self.made_with = asdict(settings)
        self.journal = Journal()

    def run(self, workers: int, progress: bool) -> dict[str, Any]:
        if self.manifest_path.exists():
            manifest = read_json(self.manifest_path)
            compare(self.folder, manifest["made_with"], self.made_with)
            self.journal_path.unlink(missing_ok=True)  # killed between the two
            self.check_present(manifest)
            return manifest
        if self.journal_path.exists():
            self.journal = Journal.load(self.journal_path, self.made_with)
        else:
            self.begin()
        if self.journal.stage == "tokens":
            self.write_shards(workers, progress)
        return self.finish()

    def check_present(self, manifest: dict[str, Any]) -> None:
        """Every shard is there and as long as it was; ShardError names the first that is not."""
        for entry in manifest["shards"]:
            path = self.folder / entry["file"]
            if not path.is_file() or len(Shard(path)) != entry["tokens"]:
                raise ShardError(
                    f"{str(path)!r} is missing or not what was written; remove "
                    f"{str(self.folder)!r} and prepare it again"
                )

    def begin(self) -> None:
        mine = [self.settings.shard_name(split, i) for split, i in (("train", 1), ("val", 0))]
        for name in mine:
            if (self.folder / name).exists():
                raise ValueError(
                    f"prepare: {str(self.folder / name)!r} is there, and nothing tells how it was "
                    "made; choose another --out"
                )
        if self.bpe.name != "gpt2":
            self.bpe.save(self.folder / TOKENIZER)
        self.save()

    def save(self) -> None:
        self.journal.save(self.journal_path, self.made_with)

    def tasks(self) -> Iterator[tuple[Task, tuple[list[Any], float]]]:
        """(task, (its position, how much of the local bytes lies behind it)), from the journal's.

        A position is [number of the source, first byte of the task or state of the stream].
        """
        rank, world_size = self.settings.rank, self.settings.world_size
        ranges = shares(self.sources, rank, world_size)
        total, seen = sum(end - start for start, end in ranges), 0
        known = all(source.local for source in self.sources)
        number, at = self.journal.position
        for i, (source, (start, end)) in enumerate(zip(self.sources, ranges)):
            here = at if i == number else None
            if i >= number and source.local:
                for task in pieces(source, start, end, here):
                    share = (seen + task.end - start) / total if known else 0.0
                    yield task, ([i, task.start], share)
            elif i >= number:
                key = self.settings.text_key
                for task, after in batches(source, key, rank, world_size, here):
                    yield task, ([i, here], 0.0)
                    here = after
            seen += end - start

    def write_shards(self, workers: int, progress: bool) -> None:
        """Tokenise to the end of the sources or of `total_tokens`; the journal follows each shard.

        What stands in the journal does not change until its shard is on the disk.
        """
        journal, limit = self.journal, self.settings.total_tokens
        stream = tokenised(self.tasks(), self.bpe, self.settings.text_key, workers)
        writer: ShardWriter | None = None
        done, used, documents = journal.tokens, journal.skip, 0
        try:
            with closing(stream), Bar(progress, done, limit) as bar:
                for ids, (position, share) in stream:
                    while used < len(ids) and done != limit:
                        writer = writer or self.new_shard()
                        room = self.settings.shard_size - writer.tokens
                        room = room if limit is None else min(room, limit - done)
                        part = ids[used : used + room]
                        writer.write(part)
                        used, done = used + len(part), done + len(part)
                        documents += int(np.count_nonzero(part == self.bpe.eot))
                        if writer.tokens == self.settings.shard_size:
                            journal.position, journal.skip = position, used
                            self.keep(writer, documents)
                            writer, documents = None, 0
                            self.save()
                    bar.show(done, share)
                    if used < len(ids):  # the limit is reached, and the next token says what it cut
                        journal.whole = bool(ids[used] == self.bpe.eot)
                        break
                    used = 0
            if writer is not None:
                self.keep(writer, documents)
                writer = None
        finally:
            if writer is not None:
                writer.discard()
        journal.stage = "validation"
        self.save()

    def new_shard(self) -> ShardWriter:
        number = len(self.journal.shards) + 1
        return ShardWriter(self.folder / self.settings.shard_name("train", number))

    def keep(self, writer: ShardWriter, documents: int) -> None:
        """Close a shard and enter it in the journal."""
        info = writer.close()
        self.journal.shards.append({"file": Path(writer.path).name, **info._asdict()})
        self.journal.documents += documents

    def finish(self) -> dict[str, Any]:
        """The validation shard, and the manifest that makes all of it count."""
        settings, journal = self.settings, self.journal
        val_tokens = settings.val_tokens or max(1, journal.tokens // 100)
        if val_tokens >= journal.tokens:
            self.journal_path.unlink()
            for entry in journal.shards:
                (self.folder / entry["file"]).unlink(missing_ok=True)
            raise ValueError(
                f"prepare: the sources give {journal.tokens:,} tokens, too few for {val_tokens:,} "
                "of validation and some to train on"
            )
        val_name = settings.shard_name("val", 0)
        write_json(self.manifest_path, {
            "format": "llm.c token shards, version 1",
            "name": settings.name,
            "tokenizer": {"name": self.bpe.name, "n_vocab": self.bpe.n_vocab, "eot": self.bpe.eot},
            "documents": journal.documents,
            "tokens": journal.tokens,
            "last_document": "whole" if journal.whole else "cut",
            "rank": settings.rank,
            "world_size": settings.world_size,
            "shards": carve(journal, self.folder, val_name, val_tokens, self.save),
            "made_with": self.made_with,
        })  # fmt: skip
        self.journal_path.unlink()
        return read_json(self.manifest_path)


class Bar:
    """tokens, tokens per second, time left; where nobody watches a terminal, every half minute."""

    def __init__(self, shown: bool, done: int, limit: int | None) -> None:
        self.limit, self._bar = limit, None
        if shown:
            from tqdm import tqdm

            self._bar = tqdm(
                total=limit, initial=done, unit="tok", unit_scale=True, dynamic_ncols=True,
                mininterval=0.1 if sys.stderr.isatty() else 30,
            )  # fmt: skip

    def show(self, done: int, share: float) -> None:
        """Tokens done; `share` of the sources' bytes read, from which the total is reckoned."""
        if self._bar is not None:
            if share:
                total = int(done / share)
                self._bar.total = min(total, self.limit or total)
            self._bar.update(done - self._bar.n)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
