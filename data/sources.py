"""What `prepare` reads, cut into tasks that workers can do alone: byte ranges of local files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

PIECE = 2**20  # bytes of a local file in one task: half a second's work at most
LONGEST = 2**26  # bytes of one line of JSON, or of text without a blank

JSONL = {".jsonl", ".ndjson", ".json"}
TEXT = {".txt", ".text", ".md"}
STREAMED = {".parquet": "parquet", ".jsonl.gz": "json", ".jsonl.zst": "json", ".json.gz": "json"}
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
BREAK = re.compile(rb"[^ \n\r\t](?=[ \n\r\t])")


class Source(NamedTuple):
    """One source: `kind` is text, jsonl, a builder of the library datasets, or hub."""

    kind: str
    path: str
    size: int = 0
    changed: int = 0  # st_mtime_ns

    @property
    def local(self) -> bool:
        return self.kind in ("text", "jsonl")

    @property
    def name(self) -> str:
        """What the manifest calls it: the same on every machine."""
        return self.path if self.kind == "hub" else Path(self.path).name

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "kind": self.kind, "bytes": self.size, "changed": self.changed}


class Task(NamedTuple):
    """A part of a source: bytes `start` to `end` of a file, or texts that were read already.

    `begins`: of a text file, whether the mark comes first.
    """

    kind: str
    path: str = ""
    start: int = 0
    end: int = 0
    size: int = 0
    begins: bool = False
    texts: tuple[bytes, ...] = ()


def find_sources(names: list[str]) -> list[Source]:
    """Files as they are, folders file by file in the order of their names, hub data sets.

    Raises FileNotFoundError and ValueError for what is none of them.
    """
    found: list[Source] = []
    for name in names:
        if os.path.isdir(name):
            inside = [str(p) for p in sorted(Path(name).rglob("*")) if p.is_file() and known(p)]
            if not inside:
                raise ValueError(f"prepare: the folder {name!r} has no .txt, .jsonl or .parquet")
            found += [file_source(path) for path in inside]
        elif os.path.exists(name):
            found.append(file_source(name))
        elif HUB_NAME.fullmatch(name) and not suffix_of(name) and not Path(name).parent.is_dir():
            found.append(Source("hub", name))
        else:
            raise FileNotFoundError(
                f"prepare: there is no file or folder {name!r}; a data set of the hub is named "
                "like HuggingFaceFW/fineweb:sample-10BT"
            )
    return found


def suffix_of(path: str | Path) -> str:
    """The longest ending that says what a file is, or ''."""
    lower = Path(path).name.lower()
    return max((s for s in (*JSONL, *TEXT, *STREAMED) if lower.endswith(s)), key=len, default="")


def known(path: Path) -> bool:
    return bool(suffix_of(path)) and not path.name.startswith(".")


def file_source(path: str) -> Source:
    suffix = suffix_of(path)
    kind = "jsonl" if suffix in JSONL else STREAMED.get(suffix, "text")
    stat = os.stat(path)
    return Source(kind, path, stat.st_size, stat.st_mtime_ns)


def shares(sources: list[Source], rank: int, world_size: int) -> list[tuple[int, int]]:
    """For each source the bytes (start, end) that fall to a rank: the files joined, cut evenly.

    What is streamed is cut by its own library instead, and has (0, 0).
    """
    total = sum(source.size for source in sources if source.local)
    low, high = total * rank // world_size, total * (rank + 1) // world_size
    found, before = [], 0
    for source in sources:
        size = source.size if source.local else 0
        found.append((min(max(low - before, 0), size), min(max(high - before, 0), size)))
        before += size
    return found


def pieces(source: Source, start: int, end: int, at: int | None = None) -> Iterator[Task]:
    """The tasks of a local file's bytes start .. end, those from byte `at` on.

    Where machines share a text, each one's part begins like a document.
    """
    kind, path, _, _ = source
    if kind == "text" and start < end:
        with open(path, "rb") as file:
            start, end = (break_from(file, path, source.size, byte) for byte in (start, end))
    for first in range(start if at is None else at, end, PIECE):
        last = min(first + PIECE, end)
        yield Task(kind, path, first, last, source.size, begins=first == start)


# -- in the worker --------------------------------------------------------------------------------


def texts_of(task: Task, text_key: str) -> Iterator[tuple[bool, str]]:
    """(whether a document begins here, its text) for every document or part of one in a task."""
    if task.kind == "jsonl":
        for text in lines_of(task, text_key):
            yield True, text
    elif task.kind == "text":
        first, text = part_of(task)
        if first or text:
            yield first, text
    else:
        for raw in task.texts:
            yield True, raw.decode("utf-8", "surrogatepass")


def lines_of(task: Task, text_key: str) -> Iterator[str]:
    """The texts of the lines that begin within the bytes start .. end."""
    with open(task.path, "rb") as file:
        at = task.start
        if at:  # the line before, or the rest of one that began before
            file.seek(at - 1)
            at += len(bounded_line(file, task, at - 1)) - 1
        while at < task.end:
            line = bounded_line(file, task, at)
            if not line:
                raise ValueError(f"{task.path!r} became shorter while it was read")
            if line.strip():
                yield text_in(line, task, at, text_key)
            at += len(line)


def bounded_line(file: BinaryIO, task: Task, at: int) -> bytes:
    line = file.readline(LONGEST + 1)
    if len(line) > LONGEST:
        raise ValueError(
            f"{task.path!r}: the line at byte {at:,} is longer than {LONGEST:,} bytes; JSONL has "
            "one document on each line"
        )
    return line


def text_in(line: bytes, task: Task, at: int, text_key: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{task.path!r}: the line at byte {at:,} is not JSON in UTF-8: {error}"
        ) from None
    text = row.get(text_key) if isinstance(row, dict) else None
    if not isinstance(text, str):
        keys = ", ".join(map(repr, row)) if isinstance(row, dict) else "no keys"
        raise ValueError(
            f"{task.path!r}: the line at byte {at:,} has no text under {text_key!r} (it has "
            f"{keys[:200]}); name the key with --text_key"
        )
    return text


def part_of(task: Task) -> tuple[bool, str]:
    """A text file's characters from the first break at or after `start` to that of `end`.

    Breaks are where no token can reach across, so the parts' tokens are the whole text's.
    """
    with open(task.path, "rb") as file:
        begin = break_from(file, task.path, task.size, task.start)
        end = break_from(file, task.path, task.size, task.end)
        file.seek(begin)
        raw = file.read(end - begin)
    try:
        return task.begins, raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{task.path!r} is not UTF-8: {error.reason} at byte {begin + error.start:,}; convert "
            "it, as in `iconv -f LATIN1 -t UTF-8`"
        ) from None


def break_from(file: BinaryIO, path: str, size: int, at: int) -> int:
    """The first byte at or after `at` that is a blank after a character that is none.

    No alternative of GPT-2's pattern goes on from another character to a blank, and its blanks look
    ahead only as far as the next character that is none: both sides match as the whole does.
    """
    if at == 0 or at >= size:
        return min(at, size)
    start = max(at - 4, 0)  # room for the whole character before
    file.seek(start)
    window = b""
    while len(window) < LONGEST:
        more = file.read(2**16)
        searched, window = max(len(window) - 4, 0), window + more
        for match in BREAK.finditer(window, searched):
            q = match.end()
            before = window[max(q - 4, 0) : q].decode("utf-8", "ignore")[-1:]
            if start + q >= at and before and not before.isspace():
                return start + q
        if not more:
            return size
    raise ValueError(
        f"{path!r} has no blank in the {LONGEST:,} bytes after byte {at:,}: is it text?"
    )
