"""DataLoader: the items of a data set in batches, in PyTorch's order for the same seed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice, repeat
from typing import Any

from tensorgrad.data.collate import default_collate, default_convert
from tensorgrad.data.datasets import IterableDataset
from tensorgrad.data.samplers import BatchSampler, RandomSampler, SequentialSampler, draw_seed

END = object()  # of a stream


class DataLoader:
    """Batches of a data set: `collate_fn` of `batch_size` items in the sampler's order.

    Arguments as in PyTorch, whose shuffle it repeats number by number: the same seed, in
    `manual_seed` or in `generator`, gives the same batches.  num_workers threads read ahead
    (`prefetch_factor` batches each, 2 by default), in order; they share the data set, so nothing
    is copied or pickled.  pin_memory changes nothing here: arrays go to the GPU as they are.
    A data set that is a stream (`IterableDataset`) is read once, by one thread.
    Raises ValueError for options that exclude each other.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[list[int]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        *,
        generator: Any = None,
        prefetch_factor: int | None = None,
    ) -> None:
        if num_workers < 0:
            raise ValueError(f"DataLoader: num_workers must not be negative, it is {num_workers}")
        if prefetch_factor is not None and (num_workers == 0 or prefetch_factor < 1):
            raise ValueError(
                f"DataLoader: prefetch_factor={prefetch_factor} wants num_workers > 0 and at least "
                "one batch each"
            )
        self.streams = isinstance(dataset, IterableDataset)
        if self.streams and (shuffle or sampler is not None or batch_sampler is not None):
            raise ValueError(
                "DataLoader: a stream comes in its own order: no shuffle, sampler or batch_sampler"
            )
        if sampler is not None and shuffle:
            raise ValueError("DataLoader: sampler and shuffle exclude each other")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "DataLoader: batch_sampler excludes batch_size, shuffle, sampler and drop_last"
                )
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError("DataLoader: batch_size=None makes no batches, so drop_last has none")
        if sampler is None and not self.streams:
            sampler = (
                RandomSampler(dataset, generator=generator)
                if shuffle
                else SequentialSampler(dataset)
            )
        if batch_sampler is None and batch_size is not None:
            batch_sampler = BatchSampler(() if sampler is None else sampler, batch_size, drop_last)
        self.dataset, self.batch_size, self.drop_last = dataset, batch_size, drop_last
        self.sampler, self.batch_sampler, self.generator = sampler, batch_sampler, generator
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self.prefetch_factor = prefetch_factor or 2
        batched = batch_sampler is not None
        self.collate_fn = collate_fn or (default_collate if batched else default_convert)

    def __iter__(self) -> Iterator[Any]:
        draw_seed(self.generator)  # PyTorch draws a seed for its workers here, used or not
        if self.streams:
            stream = self._stream()
            if not self.num_workers:
                return stream
            return self._ahead(repeat(lambda: next(stream, END)), 1)
        indices = iter(self._order)
        if not self.num_workers:
            return map(self._fetch, indices)
        return self._ahead((partial(self._fetch, index) for index in indices), self.num_workers)

    def __len__(self) -> int:
        """How many batches; TypeError where the data set or sampler has no length."""
        if self.streams:
            n = len(self.dataset)
            if self.batch_size is None:
                return n
            return n // self.batch_size if self.drop_last else -(-n // self.batch_size)
        return len(self._order)

    @property
    def _order(self) -> Any:
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    def _fetch(self, index: Any) -> Any:
        """One batch, or one item where there are no batches."""
        if self.batch_sampler is None:
            return self.collate_fn(self.dataset[index])
        if hasattr(self.dataset, "__getitems__"):
            return self.collate_fn(self.dataset.__getitems__(index))
        return self.collate_fn([self.dataset[i] for i in index])

    def _stream(self) -> Iterator[Any]:
        items = iter(self.dataset)
        if self.batch_size is None:
            yield from map(self.collate_fn, items)
            return
        while batch := list(islice(items, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield self.collate_fn(batch)

    def _ahead(self, calls: Iterable[Callable[[], Any]], workers: int) -> Iterator[Any]:
        """The calls' results in order, computed by threads before they are asked for."""
        rest = iter(calls)
        with ThreadPoolExecutor(workers, "DataLoader") as pool:
            waiting = deque(map(pool.submit, islice(rest, workers * self.prefetch_factor)))
            try:
                while waiting:
                    batch = waiting.popleft().result()
                    if batch is END:
                        return
                    waiting.extend(map(pool.submit, islice(rest, 1)))
                    yield batch
            finally:
                for future in waiting:
                    future.cancel()
