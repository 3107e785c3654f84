"""tensorgrad as a side of the benchmarks."""

import tracemalloc
from collections.abc import Callable

import tensorgrad
import tensorgrad.nn.functional as F
from benchmarks.harness import Side


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
    backward=tensorgrad.Tensor.backward,
    allocator_peak=allocator_peak,
)
