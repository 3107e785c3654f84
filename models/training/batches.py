"""Where batches come from: random windows of a text, or token shards in order.

Either gives the same batches to a step whatever the number of processes that share them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from tensorgrad import distributed as dist
from tensorgrad.data import TokenLoader, random_windows
from tensorgrad.rng import Generator

Ids = np.ndarray[tuple[int, ...], np.dtype[Any]]
Batch = tuple[Ids, Ids]
"""x and y, int64 (B, T): tokens, and the token that follows each; -100 where none is asked for."""


class Batches(Protocol):
    """What the trainer wants of its data."""

    tokens: int
    """In a batch of one process."""

    def next(self) -> Batch:
        """This process's next batch to train on."""

    def fixed(self, split: str, count: int) -> Iterator[tuple[int, Batch]]:
        """This process's share of `count` batches, numbered: the same every time.

        They leave the stream of `next` where it is."""

    def state(self) -> dict[str, Any]:
        """The place in the stream, the same on every process."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""


class RandomWindows:
    """B windows of T tokens at random places of ids["train"]: nanoGPT's get_batch.

    Drawn from a generator of their own, so neither dropout nor sampling moves them.  The processes
    draw alike and take turns.
    """

    def __init__(
        self, ids: Mapping[str, Ids], block_size: int, batch_size: int, seed: int
    ) -> None:
        self.ids, self.T, self.B, self.seed = ids, block_size, batch_size, seed
        self.tokens = batch_size * block_size
        self.generator = Generator("cpu").manual_seed(seed)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def next(self) -> Batch:
        [(_, batch)] = self._drawn("train", self.generator, self.size)  # all draw to the end
        return batch

    def fixed(self, split: str, count: int) -> Iterator[tuple[int, Batch]]:
        return self._drawn(split, Generator("cpu").manual_seed(self.seed + 1), count)

    def _drawn(self, split: str, generator: Generator, count: int) -> Iterator[tuple[int, Batch]]:
        """Of `count` batches every size-th; those of other processes are drawn and left."""
        ids = self.ids[split]
        for i in range(count):
            if i % self.size == self.rank:
                yield i, random_windows(ids, self.T, self.B, generator)
            else:
                generator.randint(0, len(ids) - self.T, (self.B,))

    def state(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.generator.set_state(state["generator"])


class ShardBatches:
    """Windows of token shards side by side, every token a target once an epoch; see TokenLoader.

    The splits "train" and "val" are files of the folder.  An evaluation takes the first batches of
    each.
    """

    def __init__(
        self, folder: str | os.PathLike[str], block_size: int, batch_size: int, seed: int,
        shuffle: bool = False,
    ) -> None:  # fmt: skip
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.tokens = batch_size * block_size
        sizes = (folder, batch_size, block_size)
        self.loader = TokenLoader(
            *sizes, "train", shuffle=shuffle, seed=seed, rank=self.rank, world_size=self.size
        )
        self.parts = {
            "train": TokenLoader(*sizes, "train", verify=False, prefetch=False),
            "val": TokenLoader(*sizes, "val", prefetch=False),
        }

    def next(self) -> Batch:
        return self.loader.next_batch()

    def fixed(self, split: str, count: int) -> Iterator[tuple[int, Batch]]:
        part = self.parts[split]
        for i in range(self.rank, min(count, part.batches), self.size):
            yield i, part.epoch_batch(i)

    def state(self) -> dict[str, Any]:
        return self.loader.state_dict()

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.loader.load_state_dict(dict(state))

    def close(self) -> None:
        """End the thread that reads ahead."""
        self.loader.close()
