"""Token shards in llm.c's format: 256 int32 of header (magic, version, count), then uint16 tokens.

Written whole or not at all; read through a memory map, after the file has been checked.
"""

from __future__ import annotations

import mmap
import os
from contextlib import ExitStack
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from tensorgrad.atomic import replacing
from tensorgrad.serialization import unreadable

Ids = np.ndarray[tuple[int, ...], np.dtype[Any]]
Tokens = np.ndarray[tuple[int, ...], np.dtype[np.uint16]]

MAGIC, VERSION = 20240520, 1
LLAMA_MAGIC = 20240801  # llm.c's shards of 32-bit tokens
HEADER_BYTES = 256 * 4
LARGEST_COUNT = 2**31 - 1  # the header's count is an int32
LARGEST_ID = 2**16 - 1


class ShardError(ValueError):
    """A shard or manifest that is damaged or something else; the sentence names it and says why."""


class ShardInfo(NamedTuple):
    """What a manifest says of a shard: how many tokens, and the CRC-32 of their bytes."""

    tokens: int
    crc32: str


def header_of(count: int) -> bytes:
    """The 1,024 bytes before `count` tokens."""
    header = np.zeros(256, "<i4")
    header[:3] = MAGIC, VERSION, count
    return header.tobytes()


def check_ids(ids: Ids) -> Tokens:
    """The ids as uint16; ValueError for those that 16 bits cannot hold."""
    if ids.dtype.kind not in "iu" or ids.ndim != 1:
        raise ValueError(f"a shard holds a row of integers, not {ids.dtype} of {ids.shape}")
    if ids.size and ids.dtype != np.uint16:
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high > LARGEST_ID:
            raise ValueError(
                f"a shard holds ids from 0 to {LARGEST_ID}, and id {low if low < 0 else high} is "
                "none; use a vocabulary of at most 65,536"
            )
    return ids.astype("<u2", copy=False)


class ShardWriter:
    """A shard that grows by `write` and takes its name when `close` is called, complete.

    As a context manager it closes at the end of the block, and leaves no file where the block
    raises.  Needs no more memory than one write's tokens, however large the shard.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.tokens, self._crc = 0, 0
        self._stack = ExitStack()
        self._file = self._stack.enter_context(replacing(path))
        self._file.write(bytes(HEADER_BYTES))

    def write(self, ids: Ids) -> None:
        """Add tokens; ValueError for ids outside 0 .. 65,535 and for more than 2^31 - 1 tokens."""
        data = check_ids(ids).tobytes()
        if self.tokens + len(ids) > LARGEST_COUNT:
            raise ValueError(
                f"{self.path!r}: a shard's header counts to {LARGEST_COUNT:,} tokens; "
                "make the shards smaller"
            )
        self._file.write(data)
        self._crc = crc32(data, self._crc)
        self.tokens += len(ids)

    @property
    def info(self) -> ShardInfo:
        return ShardInfo(self.tokens, f"{self._crc:08x}")

    def close(self) -> ShardInfo:
        """Write the header, flush to the disk, rename."""
        with self._stack:
            self._file.seek(0)
            self._file.write(header_of(self.tokens))
        return self.info

    def discard(self) -> None:
        """Leave what was there under this name as it was."""
        unwanted = GeneratorExit()
        self._stack.__exit__(GeneratorExit, unwanted, None)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def write_shard(path: str | os.PathLike[str], ids: Ids) -> ShardInfo:
    """Write one shard, whole or not at all.  Raises as ShardWriter does, and OSError."""
    with ShardWriter(path) as writer:
        writer.write(ids)
    return writer.info


class Shard:
    """A shard's tokens, uint16, through a memory map: what no one touches is not read.

    `info`, from a manifest, holds the file against its count and checksum (which reads it once);
    without it, as for shards that llm.c wrote, magic, version, count and length are checked.
    Raises ShardError for a damaged or foreign file, FileNotFoundError and other OSErrors.
    """

    def __init__(self, path: str | os.PathLike[str], info: ShardInfo | None = None) -> None:
        self.path = os.fspath(path)
        try:
            with open(path, "rb") as file:
                count = self._check_header(file.read(HEADER_BYTES), os.fstat(file.fileno()).st_size)
                if info is not None and count != info.tokens:
                    raise ShardError(
                        f"{self.path!r} is damaged: it says that it holds {count:,} tokens, and "
                        f"the manifest {info.tokens:,}; prepare it again"
                    )
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise unreadable(self.path, error) from error
        self.tokens: Tokens = np.frombuffer(self._map, "<u2", count, HEADER_BYTES)
        if info is not None:
            self._compare(info)

    def _check_header(self, raw: bytes, size: int) -> int:
        if size < HEADER_BYTES or len(raw) < HEADER_BYTES:
            raise ShardError(
                f"{self.path!r} is cut off, or no token shard: it has {size:,} bytes, and a "
                f"shard's header alone takes {HEADER_BYTES:,}"
            )
        header: Any = np.frombuffer(raw, "<i4")
        magic, version, count = (int(n) for n in header[:3])
        if magic == LLAMA_MAGIC:
            raise ShardError(
                f"{self.path!r} holds llm.c's 32-bit tokens of Llama 3; only shards of 16 bits "
                "are read here"
            )
        if magic != MAGIC:
            raise ShardError(
                f"{self.path!r} is no token shard: it begins with {magic}, and a shard with "
                f"{MAGIC}; `tensorgrad prepare` makes shards of texts"
            )
        if version != VERSION:
            raise ShardError(
                f"{self.path!r} is a token shard of version {version}, and only version {VERSION} "
                "is read here"
            )
        if count < 0 or size != HEADER_BYTES + 2 * count:
            raise ShardError(
                f"{self.path!r} is damaged: its header says {count:,} tokens, which make "
                f"{HEADER_BYTES + 2 * count:,} bytes, and it has {size:,}"
            )
        if header[3:].any():
            raise ShardError(f"{self.path!r} is damaged: its header holds more than the count")
        return count

    def _compare(self, info: ShardInfo) -> None:
        found = f"{crc32(memoryview(self._map)[HEADER_BYTES:]):08x}"
        if found != info.crc32:
            raise ShardError(
                f"{self.path!r} is damaged: its tokens have CRC-32 {found}, and the manifest says "
                f"{info.crc32}; prepare it again"
            )
        self.release()

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        return f"Shard({self.path!r}, {len(self):,} tokens)"

    def release(self) -> None:
        """Hand the pages read so far back to the system, so that resident memory stays small."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
