"""tensorgrad as a side of the benchmarks."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import tensorgrad
import tensorgrad.nn.functional as F
from benchmarks.harness import Side


def backward(out: Any, g: Any) -> None:
    out.backward(g)


def allocator_peak(f: Callable[[], object]) -> int:
    """The most bytes held for f by Python and by NumPy, which reports its arrays to tracemalloc."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    f()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak - before


SIDE = Side(
    "tensorgrad",
    tensorgrad.__version__,
    tensorgrad,
    F,
    backward=backward,
    allocator_peak=allocator_peak,
)
