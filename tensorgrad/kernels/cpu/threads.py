"""A range cut among threads.  Kernels release the GIL, so plain Python threads share the cores.

Unlike Numba's parallel loops this compiles nothing, nests in other threads and survives a fork."""

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

Piece = tuple[Callable[..., Any], int, int, tuple[Any, ...], "SimpleQueue[Any]"]

WORTH = 60_000  # nanoseconds of work in a piece; handing one over and back costs 20 to 40 thousand


def _cores() -> int:
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Pool:
    """Threads that wait on one queue; they start when first needed and end with the process."""

    def __init__(self) -> None:
        self.size = _cores()
        self.forget()

    def forget(self) -> None:
        """A forked child has none of its parent's threads."""
        self.queue: SimpleQueue[Piece] = SimpleQueue()
        self.started = 0
        self.lock = threading.Lock()

    def start(self, count: int) -> None:
        with self.lock:
            while self.started < count:
                name = f"tensorgrad-{self.started}"
                threading.Thread(target=_work, args=(self.queue,), name=name, daemon=True).start()
                self.started += 1


def _work(queue: "SimpleQueue[Piece]") -> None:
    while True:
        kernel, lo, hi, args, done = queue.get()
        try:
            result = kernel(lo, hi, *args)
        except BaseException as error:
            result = error
        done.put(result)
        del kernel, args, done, result  # an idle thread keeps no arrays alive


_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.forget)


def get_num_threads() -> int:
    """Threads that a kernel may use: OMP_NUM_THREADS, or the cores given to this process."""
    return _pool.size


def set_num_threads(count: int) -> None:
    """Let kernels use `count` threads from now on; no number that they compute depends on it."""
    if count < 1:
        raise RuntimeError(f"set_num_threads: expects a positive number of threads, not {count}")
    _pool.size = count


def share(kernel: Callable[..., Any], n: int, work: float, *args: Any) -> int:
    """kernel(lo, hi, *args) over [0, n), in as many pieces as `work`, nanoseconds in all, pays for.

    Answers the largest of the kernel's return codes, 0 for a kernel that returns none."""
    pieces = min(_pool.size, n, int(work / WORTH))
    if pieces <= 1:
        return kernel(0, n, *args) or 0
    if _pool.started < pieces - 1:
        _pool.start(pieces - 1)
    done: SimpleQueue[Any] = SimpleQueue()
    for i in range(1, pieces):
        _pool.queue.put((kernel, n * i // pieces, n * (i + 1) // pieces, args, done))
    results = [kernel(0, n // pieces, *args)]
    results += [done.get() for _ in range(1, pieces)]
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return max(result or 0 for result in results)
