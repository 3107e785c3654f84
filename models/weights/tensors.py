"""Reading safetensors piece by piece: a tensor goes where it belongs as it leaves the disk.

Nothing is mapped into memory, so a file that somebody rewrites meanwhile cannot hurt."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from tensorgrad.dtypes import as_dtype
from tensorgrad.serialization import (
    BODY_CRC,
    CODES,
    HEADER_CRC,
    MARK,
    CheckpointError,
    brief,
    read_header,
    unreadable,
)

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]

TYPES = {code: name for name, code in CODES.items()}
LARGEST = 1 << 63  # what a size stays below
PIECE = 1 << 20  # bytes that are turned at a time: they fit into a core's cache


class Entry(NamedTuple):
    """Where a tensor lies in its file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class TensorFile:
    """The tensors of one safetensors file; CheckpointError, with its name, where it is damaged.

    `check` is held against the checksums of files that tensorgrad wrote, once all has been read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        header = read_header(self.path)
        self.start = 8 + len(header)
        self.entries, self.metadata = parsed(self.path, header, os.path.getsize(self.path))
        self.sums: dict[str, int] = {}
        self.ours = any(MARK in word for item in self.metadata.items() for word in item)
        self.said = {key: self.metadata.pop(key, None) for key in (HEADER_CRC, BODY_CRC)}
        self.body = 0
        if self.ours and self.said[HEADER_CRC] != self.header_sum():
            raise CheckpointError(f"{self.path!r} is damaged: its names and shapes were changed")

    def header_sum(self) -> str:
        shapes = {n: [e.dtype, *e.shape] for n, e in sorted(self.entries.items())}
        text = json.dumps([shapes, self.metadata], sort_keys=True)
        return f"{MARK} {crc32(text.encode()):08x}"

    def read(self, name: str, out: Array, turned: bool = False) -> None:
        """Write the tensor, or its transpose, over `out`, in `out`'s dtype.

        The sum of what was read holds if names are read in order."""
        entry = self.entries[name]
        dtype = as_dtype(entry.dtype)
        try:
            file: Any = open(self.path, "rb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise unreadable(self.path, error) from error
        with file:
            file.seek(self.start + entry.begin)
            if not turned and out.dtype == dtype and out.flags.c_contiguous:
                self.fill(file, out.reshape(-1).view(np.uint8))
                return
            rows = entry.shape[0] if entry.shape else 1
            width = math.prod(entry.shape[1:])
            place = out.reshape(rows, width) if not turned else out.T
            step = max(1, PIECE // max(1, width * dtype.itemsize))
            piece = np.empty((min(step, rows), width), dtype)
            for row in range(0, rows, step):
                part = piece[: min(step, rows - row)]
                self.fill(file, part.reshape(-1).view(np.uint8))
                place[row : row + len(part)] = part

    def fill(self, file: Any, memory: Array) -> None:
        done = 0
        while done < memory.size:
            count = file.readinto(memory[done:].data)
            if not count:
                raise CheckpointError(f"{self.path!r} was cut off while it was read")
            done += count
        if self.ours:
            self.body = crc32(memory.data, self.body)

    def check(self) -> None:
        """CheckpointError unless all that was read is what was written."""
        if self.ours and self.said[BODY_CRC] != f"{MARK} {self.body:08x}":
            raise CheckpointError(f"{self.path!r} is damaged: its values were changed")


def parsed(path: str, header: bytes, size: int) -> tuple[dict[str, Entry], dict[str, str]]:
    """The entries and the metadata that a header tells, all of it found sound."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("its header says something twice")
        return dict(pairs)

    try:
        told = json.loads(header.decode(), object_pairs_hook=once)
        if not isinstance(told, dict):
            raise ValueError("its header is no table")
        metadata = told.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(w, str) for w in metadata.values()):
            raise ValueError("its metadata are not words")
        entries = {name: entry_of(name, said) for name, said in told.items()}
        end = 0
        for name, entry in sorted(entries.items(), key=lambda item: item[1].begin):
            if entry.begin != end:
                raise ValueError(f"{name!r} does not begin where the tensor before it ends")
            end = entry.end
        if end != size - 8 - len(header):
            raise ValueError(f"its tensors take {end:,} bytes of {size - 8 - len(header):,}")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = brief(str(error))
        raise CheckpointError(f"{path!r} is no sound safetensors file: {reason}") from error
    return entries, metadata


def entry_of(name: str, said: Mapping[str, Any]) -> Entry:
    if not isinstance(said, dict) or not said.keys() >= {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name!r} lacks a type, a shape or its place")
    code, shape, place = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(code, str) or code not in TYPES:
        raise ValueError(f"{name!r} has type {code!r}, and tensorgrad reads {', '.join(TYPES)}")
    if not isinstance(shape, list) or not isinstance(place, list) or len(place) != 2:
        raise ValueError(f"{name!r} has no sound shape or place")
    if not all(type(n) is int and 0 <= n < LARGEST for n in (*shape, *place)):
        raise ValueError(f"{name!r} has sizes that no tensor has")
    begin, end = place
    if end - begin != math.prod(shape) * as_dtype(TYPES[code]).itemsize:
        raise ValueError(f"{name!r} of shape {tuple(shape)} takes {end - begin:,} bytes")
    return Entry(TYPES[code], tuple(shape), begin, end)
