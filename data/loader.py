"""Training pairs out of token shards: every target once an epoch, at a position of a few integers.

What a batch holds is a function of its position, so a run resumes, and looks ahead, exactly.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tensorgrad.data.manifest import read_manifests
from tensorgrad.data.permutation import permuted
from tensorgrad.data.shards import Shard, ShardError, ShardInfo, Tokens

Ids = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Batch = tuple[Ids, Ids]
NAME = re.compile(r"(?P<name>.+?)_(?P<split>[a-z]+)(_(?P<number>\d{6,}))?\.bin")
IGNORED = -100  # cross_entropy's ignore_index
OPEN = 64  # shards mapped at a time
RELEASE = 256  # batches after which the pages read are handed back


def find_shards(
    folder: str | os.PathLike[str], split: str, name: str | None = None
) -> list[tuple[Path, ShardInfo | None]]:
    """The shards of one split, NAME_SPLIT_%06d.bin or NAME_SPLIT.bin, in order, each with what its
    manifest says.

    Raises FileNotFoundError where there are none, ValueError where several names share the folder,
    ShardError where manifest and folder disagree.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r} of token shards")
    matches = {path: NAME.fullmatch(path.name) for path in folder.iterdir()}
    found = {p: m for p, m in matches.items() if m and m["split"] == split}
    known = read_manifests(folder)
    if known is None and any(folder.glob(".progress-*.json")):
        raise ShardError(
            f"{str(folder)!r} is not complete: the same `tensorgrad prepare` again finishes it"
        )
    if known is not None:
        said = {key for key in known if (m := NAME.fullmatch(key)) and m["split"] == split}
        differing = sorted(said ^ {path.name for path in found})
        if differing:
            where = "is missing" if differing[0] in said else "is in no manifest"
            raise ShardError(f"{str(folder / differing[0])!r} {where}; prepare the folder again")
    names = sorted({m["name"] for m in found.values()})
    if name is None and len(names) > 1:
        raise ValueError(f"{str(folder)!r} holds {', '.join(names)}: say which one by name=")
    chosen = [(int(m["number"] or 0), p) for p, m in found.items() if name in (None, m["name"])]
    if not chosen:
        raise FileNotFoundError(
            f"{str(folder)!r} has no shards named {name or '*'}_{split}_*.bin; "
            "`tensorgrad prepare` makes them"
        )
    return [(path, known[path.name] if known else None) for _, path in sorted(chosen)]


def listed(path: Path) -> ShardInfo | None:
    """What a manifest beside the file says of it, if there is one."""
    return (read_manifests(path.parent) or {}).get(path.name)


class TokenRow:
    """The shards' tokens as one long row, of which any part can be read; the files stay 16 bits.

    A shard is checked when it is first opened; `len` needs the headers only.
    """

    def __init__(
        self, shards: Sequence[tuple[Path, ShardInfo | None]], verify: bool = True
    ) -> None:
        self._shards, self._verify = list(shards), verify
        self._checked: set[int] = set()
        self._open: OrderedDict[int, Shard] = OrderedDict()
        sizes = [len(Shard(path)) for path, _ in self._shards]
        for (path, info), size in zip(self._shards, sizes):
            if info is not None and info.tokens != size:
                Shard(path, info)  # which raises
        self.ends = np.cumsum(sizes, dtype=np.int64)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def read(self, start: int, count: int) -> Tokens:
        """Tokens start .. start + count, copied; they may lie in several shards."""
        out = np.empty(count, np.uint16)
        i = int(np.searchsorted(self.ends, start, "right"))
        at = 0
        while at < count:
            first = start + at - (int(self.ends[i - 1]) if i else 0)
            part = self._shard(i).tokens[first : first + count - at]
            out[at : at + len(part)] = part
            at += len(part)
            i += 1
        return out

    def _shard(self, i: int) -> Shard:
        shard = self._open.pop(i, None)
        if shard is None:
            path, info = self._shards[i]
            shard = Shard(path, info if self._verify and i not in self._checked else None)
            self._checked.add(i)
            if len(self._open) >= OPEN:
                self._open.popitem(last=False)
        self._open[i] = shard
        return shard

    def release(self) -> None:
        """Hand back the pages read so far; resident memory would grow with every page touched."""
        for shard in self._open.values():
            shard.release()


class TokenLoader:
    """x[b] = ids[i : i+T] and y[b] = ids[i+1 : i+T+1] for B windows; two int64 arrays (B, T).

    The N tokens of a split's shards are one row, cut into ceil((N-1) / T) windows side by side, so
    every token but the first is a target exactly once an epoch.  What is left at the end is a
    window that begins earlier; its targets that had their turn are -100, which `cross_entropy`
    leaves out.  `next_batch` goes on for ever, from one epoch into the next; `epoch` gives each
    window once.

    source: a folder, in which the files NAME_SPLIT_%06d.bin of the split are read, or a list of
    files.  shuffle: the windows in an order that `seed` and the epoch decide.  rank, world_size:
    of each world_size * B windows a rank takes its B, so that all ranks together see what one
    process would with that batch.  verify: hold each shard against its manifest when it is first
    read.  prefetch: read the next batch in a thread meanwhile.

    The position is the number of windows that all ranks have used: `state_dict` holds it, and
    another number of ranks or batch size goes on from there.  Raises ShardError for damaged files,
    FileNotFoundError, and ValueError for a row shorter than T + 1 tokens.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        batch_size: int,
        block_size: int,
        split: str = "train",
        *,
        name: str | None = None,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        verify: bool = True,
        prefetch: bool = True,
    ) -> None:
        if batch_size < 1 or block_size < 1:
            raise ValueError(
                f"TokenLoader: batch_size and block_size must be at least 1, not {batch_size} and "
                f"{block_size}"
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"TokenLoader: rank {rank} is not 0 to {world_size - 1}")
        where = ""
        if isinstance(source, str | os.PathLike):
            self.shards = find_shards(source, split, name)
            where = f" with the {split} shards of {os.fspath(source)!r}"
        else:
            self.shards = [(Path(path), listed(Path(path))) for path in source]
            if not self.shards:
                raise ValueError("TokenLoader: the list of shards is empty")
        self._row = TokenRow(self.shards, verify)
        self.tokens = len(self._row)
        if self.tokens <= block_size:
            raise ValueError(
                f"TokenLoader: {self.tokens:,} tokens are too few for one window of {block_size} "
                f"and the token after it; block_size can be at most {max(self.tokens - 1, 0)}"
                + where
            )
        self.batch_size, self.block_size = batch_size, block_size
        self.shuffle, self.seed = shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.windows = -(-(self.tokens - 1) // block_size)
        self.position = 0
        self._reads = 0
        self._thread = ThreadPoolExecutor(1, "next batch") if prefetch else None
        self._ahead: tuple[int, Future[Batch]] | None = None

    @property
    def epoch_number(self) -> int:
        """How many times all windows have been used."""
        return self.position // self.windows

    def __repr__(self) -> str:
        return (
            f"TokenLoader({self.tokens:,} tokens in {len(self.shards)} shards, "
            f"{self.windows:,} windows of {self.block_size}, {self.batch_size} a batch)"
        )

    def next_batch(self) -> Batch:
        """This rank's next B windows, from the end of an epoch on into the next."""
        batch: Batch | None = None
        if self._ahead is not None:
            position, future = self._ahead
            self._ahead = None
            batch = future.result()  # an error met ahead is raised here, once
            if position != self.position:
                batch = None
        if batch is None:
            batch = self._batch(self.position)
        self.position += self.batch_size * self.world_size
        if self._thread is not None:
            self._ahead = self.position, self._thread.submit(self._batch, self.position)
        return batch

    def __iter__(self) -> Iterator[Batch]:
        """`next_batch` for ever."""
        while True:
            yield self.next_batch()

    def epoch(self) -> Iterator[Batch]:
        """Every window of this rank once, in the order of the row; the last batch may be smaller.

        The position stays where it is: an evaluation does not touch the training stream.
        """
        for i in range(self.batches):
            yield self.epoch_batch(i)

    @property
    def batches(self) -> int:
        """How many batches of this rank make an epoch."""
        return -(-len(self._mine) // self.batch_size)

    def epoch_batch(self, i: int) -> Batch:
        """The i-th batch of `epoch`.  IndexError unless 0 <= i < batches."""
        if not 0 <= i < self.batches:
            raise IndexError(f"epoch_batch: {i} is not among the {self.batches} of an epoch")
        return self._windows(np.array(self._mine[i * self.batch_size :][: self.batch_size]))

    @property
    def _mine(self) -> range:
        return range(self.rank, self.windows, self.world_size)

    def reset(self) -> None:
        """Back to the first window of the first epoch."""
        self.position = 0

    def state_dict(self) -> dict[str, int]:
        """The position, and what it counts."""
        return {
            "position": self.position,
            "block_size": self.block_size,
            "tokens": self.tokens,
            "shuffle": int(self.shuffle),
            "seed": self.seed,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there; ValueError where the windows are not those that were counted."""
        now = self.state_dict()
        for key in ("block_size", "tokens", "shuffle", "seed"):
            if int(state[key]) != now[key]:
                raise ValueError(
                    f"TokenLoader: the state was saved with {key} {state[key]}, and here it is "
                    f"{now[key]}: its position means other windows"
                )
        if int(state["position"]) < 0:
            raise ValueError(f"TokenLoader: {state['position']} is no position")
        self.position = int(state["position"])

    def close(self) -> None:
        """End the thread that reads ahead."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = self._ahead = None

    def __enter__(self) -> TokenLoader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _batch(self, position: int) -> Batch:
        """The batch of this rank at a position, whichever epochs it reaches over."""
        first = position + self.rank * self.batch_size
        epochs, places = np.divmod(np.arange(first, first + self.batch_size), self.windows)
        if self.shuffle:
            for epoch in np.unique(epochs):
                inside = epochs == epoch
                places[inside] = permuted(places[inside], self.windows, self.seed, int(epoch))
        return self._windows(places)

    def _windows(self, numbers: Ids) -> Batch:
        """Windows by number, (B, T) and (B, T)."""
        T, last = self.block_size, self.tokens - 1
        rows = np.empty((len(numbers), T + 1), np.int64)
        starts = numbers * T
        for row, start in zip(rows, np.minimum(starts, last - T)):
            row[:] = self._row.read(int(start), T + 1)
        x, y = rows[:, :-1].copy(), rows[:, 1:].copy()
        for i in np.flatnonzero(starts > last - T):
            y[i, : starts[i] - (last - T)] = IGNORED  # the window before had these
        self._reads += 1
        if self._reads % RELEASE == 0:
            self._row.release()
        return x, y
