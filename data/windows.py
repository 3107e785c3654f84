"""Training pairs from one long row of ids: x is a window, y the same window one step later."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import numpy as np

Ids = np.ndarray[tuple[int, ...], np.dtype[Any]]
Scalar = TypeVar("Scalar", bound=np.generic)


class Draws(Protocol):
    """What `random_windows` wants of a generator: integers in low .. high - 1, of a shape."""

    def randint(self, low: int, high: int, shape: tuple[int, ...]) -> Any: ...


def split(
    ids: np.ndarray[tuple[int, ...], np.dtype[Scalar]], fraction: float = 0.9
) -> tuple[
    np.ndarray[tuple[int, ...], np.dtype[Scalar]], np.ndarray[tuple[int, ...], np.dtype[Scalar]]
]:
    """The first `fraction` of a row for training and the rest for validation, as views.

    Cut once, not shuffled: neighbouring windows share characters, so a random choice of windows
    would validate on what was trained on.  int(0.9 n), as nanoGPT cuts.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"split: fraction must lie between 0 and 1, not {fraction}")
    check_row("split", ids)
    n = int(fraction * len(ids))
    return ids[:n], ids[n:]


def random_windows(
    ids: Ids, block_size: int, batch_size: int, generator: Draws | None = None
) -> tuple[Ids, Ids]:
    """x[b] = ids[i : i+T], y[b] = ids[i+1 : i+1+T] for B draws of i; two int64 arrays (B, T).

    The starts are `randint(0, len(ids) - T, (B,))`, as nanoGPT draws them, so a Generator gives the
    batches that PyTorch's of the same seed gives; without one, the default generator.  ids may be a
    memory map.  Raises ValueError where the text is shorter than one window and the id after it.
    """
    T = check_window("random_windows", ids, block_size, batch_size)
    if generator is None:
        from tensorgrad.random import generator_for

        generator = generator_for("cpu")
    starts = np.asarray(generator.randint(0, len(ids) - T, (batch_size,)), np.int64)
    windows = ids[starts[:, None] + np.arange(T + 1)].astype(np.int64)  # (B, T + 1)
    return pair(windows)


def all_windows(ids: Ids, block_size: int, batch_size: int) -> Iterator[tuple[Ids, Ids]]:
    """Every id but the first as a target, exactly once: windows side by side, B at a time.

    Yields int64 pairs (B, T), then what is left over as a smaller batch and a shorter window, so a
    mean over `y.size` targets is the loss of the whole row, the same in every run.
    """
    T = check_window("all_windows", ids, block_size, batch_size)
    n, left = divmod(len(ids) - 1, T)
    for first in range(0, n, batch_size):
        starts = T * np.arange(first, min(first + batch_size, n))
        yield pair(ids[starts[:, None] + np.arange(T + 1)].astype(np.int64))
    if left:
        yield pair(ids[None, -left - 1 :].astype(np.int64))


def pair(windows: Ids) -> tuple[Ids, Ids]:  # (B, T + 1) -> (B, T), (B, T)
    return np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:])


def check_row(name: str, ids: Ids) -> None:
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ValueError(f"{name}: ids are one row of integers, not {ids.dtype} of {ids.shape}")


def check_window(name: str, ids: Ids, block_size: int, batch_size: int) -> int:
    check_row(name, ids)
    if block_size < 1 or batch_size < 1:
        raise ValueError(
            f"{name}: block_size and batch_size are at least 1, not {block_size} and {batch_size}"
        )
    if len(ids) < block_size + 1:
        raise ValueError(
            f"{name}: {len(ids):,} ids are too few for one block of {block_size:,} and the id "
            f"after it; take a longer text, or a block_size of at most {max(len(ids) - 1, 0):,}"
        )
    return block_size
