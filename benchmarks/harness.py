"""Check, then time: two sides compute the same, then take turns in short blocks.  The noise of a
shared machine is slower than a round of two blocks, so it divides out of each round's ratio.
"""

import gc
import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from time import perf_counter
from typing import Any

import numpy as np

try:
    import resource
except ModuleNotFoundError:  # not a Unix
    resource = None  # type: ignore[assignment]

Block = Callable[[int], object]  # runs the measured thing n times


@dataclass(frozen=True)
class Side:
    """One library under PyTorch's names, and what the names do not cover.

    `backward(out, g)` is out.backward(g) by the library's shortest way; `allocator_peak(f)` is the
    allocator's own account, in bytes, of what f() held at most.
    """

    name: str
    about: str  # version, BLAS, threads
    lib: Any
    F: Any
    backward: Callable[[Any, Any], object]
    allocator_peak: Callable[[Callable[[], object]], int]
    threads: tuple[int, ...] = ()  # numbers of threads worth trying, where they can be set
    set_threads: Callable[[int], object] = id


# -- check ----------------------------------------------------------------------------------------


def check(ours: Any, rival: Any, rtol: float = 1e-5, what: str = "the two sides") -> None:
    """max |a - b| <= rtol max |b|, of two arrays (or numbers) of one shape and dtype.

    Lists and tuples are compared item by item.  NaN and inf never pass.  Raises ValueError, which
    names `what` and the first place where the sides differ.
    """
    if isinstance(rival, list | tuple):
        if len(ours) != len(rival):
            raise differ(what, f"{len(ours)} results", f"{len(rival)}")
        for i, (a, b) in enumerate(zip(ours, rival, strict=True)):
            check(a, b, rtol, f"{what}[{i}]")
        return
    a, b = np.asarray(ours), np.asarray(rival)
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        raise differ(what, f"{a.dtype} of shape {a.shape}", f"{b.dtype} of shape {b.shape}")
    with np.errstate(all="ignore"):
        bound = rtol * np.abs(b).max(initial=0)
        wrong = ~((np.abs(a - b) <= bound) & np.isfinite(b))  # NaN compares false
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise differ(what, f"{a[at]} at index {at}", f"{b[at]} (allowed apart: {bound:.1e})")


def differ(what: str, ours: str, rival: str) -> ValueError:
    return ValueError(f"{what}: ours gave {ours}, the rival {rival}; unequal things are not timed")


# -- time -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """Seconds per call of each side, one figure per round."""

    ours: tuple[float, ...]
    rival: tuple[float, ...]
    loops: tuple[int, int]  # calls in a block of each side
    disturbed: int = 0  # rounds among them that another program interrupted

    @property
    def ratios(self) -> list[float]:
        return [a / b for a, b in zip(self.ours, self.rival, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios: the figure that targets are held against."""
        return statistics.median(self.ratios)

    @property
    def ours_us(self) -> float:
        return statistics.median(self.ours) * 1e6

    @property
    def rival_us(self) -> float:
        return statistics.median(self.rival) * 1e6

    def figures(self) -> dict[str, object]:
        """What a JSON file keeps of the pair; the quartiles are those of the rounds' ratios."""
        return {
            "ours_us": self.ours_us,
            "rival_us": self.rival_us,
            "ratio": self.ratio,
            "ratio_of_medians": self.ours_us / self.rival_us,
            "ratio_quartiles": np.quantile(self.ratios, [0.25, 0.75]).tolist(),
            "rounds": len(self.ours),
            "disturbed": self.disturbed,
            "loops": list(self.loops),
        }


def interleave(ours: Block, rival: Block, rounds: int = 51, seconds: float = 0.001) -> Pair:
    """Times the sides in turn, in blocks of about `seconds`; who goes first changes by round.

    A round in which the system gave the core to another program is repeated, up to a total of four
    times `rounds`; only then do interrupted rounds fill the places left.
    """
    blocks = ours, rival
    loops = calibrate(ours, seconds), calibrate(rival, seconds)
    kept: list[tuple[float, float]] = []
    interrupted: list[tuple[float, float]] = []
    for i in range(4 * rounds):
        before, spent = interruptions(), [0.0, 0.0]
        for side in (0, 1) if i % 2 == 0 else (1, 0):
            spent[side] = elapsed(blocks[side], loops[side]) / loops[side]
        (kept if interruptions() == before else interrupted).append((spent[0], spent[1]))
        if len(kept) == rounds:
            break
    a, b = zip(*(kept + interrupted)[:rounds], strict=True)
    return Pair(a, b, loops, rounds - len(kept))


def interruptions() -> int:
    """How often the system took the core from this thread while it ran; 0 where it does not say."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw if resource else 0


def calibrate(block: Block, seconds: float) -> int:
    """How many calls take about `seconds`, warm and undisturbed: the least of three attempts."""
    n = 1
    while (spent := min(elapsed(block, n) for _ in range(3))) < seconds / 2:
        n *= 2
    return max(1, round(n * seconds / spent))


def settle(side: Side, block: Block, seconds: float = 0.001) -> int | None:
    """Sets, and returns, the number of threads among side.threads with which `block` is fastest.

    Small ops lose by a second thread, and on a busy machine they wait for it through whole slices
    of the scheduler: a rival is timed as its user would run it after trying.
    """

    def median(threads: int) -> float:
        side.set_threads(threads)
        n = calibrate(block, seconds)
        return statistics.median(elapsed(block, n) / n for _ in range(5))

    if not side.threads:
        return None
    best = min(side.threads, key=median)
    side.set_threads(best)
    return best


def elapsed(block: Block, n: int) -> float:
    with collector_off():
        start = perf_counter()
        block(n)
        return perf_counter() - start


@contextmanager
def collector_off() -> Iterator[None]:
    """A collection would be charged to whichever side happens to run."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def looped(f: Callable[..., object], *args: object) -> Block:
    """The block that calls f(*args) n times, with nothing else in its loop."""

    def block(n: int) -> None:
        for _ in repeat(None, n):
            f(*args)

    return block


def geometric_mean(ratios: Iterable[float]) -> float:
    """exp(mean(log r)): twice as slow here and twice as fast there is even."""
    return math.exp(statistics.fmean(math.log(r) for r in ratios))
