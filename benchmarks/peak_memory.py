"""Peak memory of forward and backward of one GPT-2 block beside PyTorch eager, each side in its own
processes: what the system lent the process, and what the library's allocator held.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Side, check
from benchmarks.memory import forget_peak, resident, resident_peak, trim
from benchmarks.programs import BlockSize, GPT2Block
from benchmarks.report import at_least_one, environment, heading, options, row, verdict, write_json
from benchmarks.rivals import pytorch

SIZE, QUICK = BlockSize(4, 256, 768, 12), BlockSize(2, 64, 96, 12)
TARGET = 1.0
SIDES = ("tensorgrad", "PyTorch")
FIGURES = {
    "process": "process (resident peak)",
    "allocator": "allocator (tracemalloc, profiler)",
}
MIB = 2**20


def main(argv: Sequence[str] | None = None) -> None:
    parser = options("peak_memory", __doc__)
    parser.add_argument("--runs", type=at_least_one, help="processes per side (3)")
    parser.add_argument("--side", choices=SIDES, help="measure one side, here, and print JSON")
    parser.add_argument("--figure", choices=FIGURES, default="process", help="of --side: which")
    parser.add_argument("--save", type=Path, help="of --side: write output and gradients (.npz)")
    args = parser.parse_args(argv)
    if args.side:
        size = QUICK if args.quick else SIZE
        print(json.dumps(measure(load(args.side), size, args.figure, args.save)))
    else:
        compare(args.quick, args.runs or (1 if args.quick else 3), args.json)


# -- one side, in this process --------------------------------------------------------------------


def load(name: str) -> Side:
    if name == "PyTorch":
        return pytorch()
    from benchmarks.ours import SIDE

    return SIDE


def measure(side: Side, size: BlockSize, figure: str, save: Path | None = None) -> dict[str, Any]:
    """Bytes at the peak beyond the weights, x and g, which are there before; gradients count."""
    GPT2Block(side, size._replace(B=1)).step()  # libraries, threads and kernels are not the block's
    block = GPT2Block(side, size)
    peak = process_peak(block) if figure == "process" else side.allocator_peak(block.step)
    if save is not None:
        np.savez(save, **block.values())  # type: ignore[arg-type]
    return {"bytes": peak, "environment": environment(side)}


def process_peak(block: GPT2Block) -> int:
    """The resident peak of the second step, beyond what was resident before the first.

    The first pays for what happens once; what a library keeps from it still counts in the second.
    """
    trim()
    before = resident()
    block.step()
    block.clear()
    trim()
    forget_peak()
    block.step()
    return resident_peak() - before


# -- both sides, each in its own processes --------------------------------------------------------


def compare(quick: bool, runs: int, file: Path | None) -> None:
    found: dict[str, dict[str, list[int]]] = {name: {} for name in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        saved = {name: Path(folder, f"{name}.npz") for name in SIDES}
        for name in reversed(SIDES):  # a missing rival is told first
            found[name]["allocator"] = [run(name, "allocator", quick, saved[name])["bytes"]]
            found[name]["process"] = [run(name, "process", quick)["bytes"] for _ in range(runs)]
        gradients = agree(saved["tensorgrad"], saved["PyTorch"])

    facts = environment(*map(load, SIDES))
    B, T, C, heads = size = QUICK if quick else SIZE
    print(heading(facts))
    print(f"GPT-2 block, B={B} T={T} C={C}, {heads} heads, float32; {gradients}")
    print(f"MiB beyond weights and input, gradients included; process: median of {runs}\n")
    widths = (34, 10, 10, 6)
    print(row(("peak of forward and backward", *SIDES, "ratio"), widths))
    results: dict[str, Any] = {}
    for figure, label in FIGURES.items():
        a, b = (statistics.median(found[name][figure]) for name in SIDES)
        print(row((label, f"{a / MIB:.1f}", f"{b / MIB:.1f}", f"{a / b:.3f}"), widths))
        runs_of = {name: found[name][figure] for name in SIDES}
        results[figure] = {"ours_bytes": a, "rival_bytes": b, "ratio": a / b, "runs": runs_of}
    print("tracemalloc misses arrays made in Numba's kernels; the process figure has them all\n")
    print(verdict("the worse ratio", max(r["ratio"] for r in results.values()), TARGET))
    write_json(file, "peak_memory", facts, size=size._asdict(), target=TARGET, **results)


def run(name: str, figure: str, quick: bool, save: Path | None = None) -> dict[str, Any]:
    """`measure` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.peak_memory", *["--quick"] * quick]
    command += ["--side", name, "--figure", figure, *(["--save", str(save)] if save else [])]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"measuring {name} ({figure}) failed:\n{done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def agree(ours: Path, rival: Path, rtol: float = 1e-4) -> str:
    """Checks that both sides computed the same output and gradients, and says so."""
    with np.load(ours) as a, np.load(rival) as b:
        for name in b.files:
            check(a[name], b[name], rtol, f"the block's {name}")
        return f"output and {len(b.files) - 1} gradients equal within {rtol:g}"


if __name__ == "__main__":
    main()
