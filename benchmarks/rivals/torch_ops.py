"""PyTorch eager as a side of the benchmarks: its names, its threads, its allocator's account."""

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from benchmarks.harness import Side

run_backward = torch.autograd.Variable._execution_engine.run_backward


def backward(out: torch.Tensor, g: torch.Tensor) -> None:
    """The C++ engine without the Python above it, which takes longer than the engine to check g.

    A training step pays for that check once, if at all; a single op must not be measured by it.
    """
    run_backward((out,), (g,), False, False, (), allow_unreachable=True, accumulate_grad=True)


def allocator_peak(f: Callable[[], object]) -> int:
    """The most bytes that the CPU allocator held for f, by the profiler's memory events."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        f()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trace.json")
        trace.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    changes = [e for e in events if e["name"] == "[memory]"]
    held = peak = 0
    for e in sorted(changes, key=lambda e: (e["ts"], e["args"]["Ev Idx"])):
        held += e["args"]["Bytes"]
        peak = max(peak, held)
    return peak


def about() -> str:
    mkl = re.search(r"Math Kernel Library Version ([\d.]+)", torch.__config__.show())
    blas = f"oneMKL {mkl[1]}" if mkl else "without oneMKL"
    return f"{torch.__version__} with {blas}, {torch.get_num_threads()} threads"


SIDE = Side(
    "PyTorch",
    about(),
    torch,
    F,
    backward=backward,
    allocator_peak=allocator_peak,
    threads=tuple(sorted({1, torch.get_num_threads()})),
    set_threads=torch.set_num_threads,
)
