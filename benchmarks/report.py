"""What opens and closes every benchmark: the machine and the libraries by name, tables, verdicts,
and the same figures as JSON.
"""

import argparse
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Side


def environment(*sides: Side) -> dict[str, Any]:
    """The facts without which a figure means nothing."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    return {
        "cpu": cpu_model(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": blas(),
        "thread_pools": thread_pools(),
        "sides": {side.name: side.about for side in sides},
    }


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def blas() -> str:
    """NumPy's BLAS, by name and version."""
    build: Any = np.show_config(mode="dicts")
    found = build.get("Build Dependencies", {}).get("blas", {})
    return f"{found.get('name', 'unknown')} {found.get('version', '')}".strip()


def thread_pools() -> list[str]:
    """The BLAS and OpenMP libraries loaded by now, each with its number of threads."""
    try:
        from threadpoolctl import threadpool_info  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        return ["unknown (pip install threadpoolctl)"]
    return [
        " ".join(filter(None, (pool["internal_api"], pool["version"], f"x{pool['num_threads']}")))
        for pool in threadpool_info()
    ]


def heading(facts: dict[str, Any]) -> str:
    """The environment, in the few lines that open a report."""
    load, cores = facts["load"], facts["cores"]
    busy = load is not None and load > 0.75 * cores
    return "\n".join(
        [
            f"{facts['cpu']}, {cores} cores, load {load}, {facts['system']}",
            *["the cores are busy with other work: trust no figure before it repeats"] * busy,
            f"Python {facts['python']}, NumPy {facts['numpy']} with {facts['blas']}",
            f"thread pools: {', '.join(facts['thread_pools']) or 'none'}",
            *(f"{name} {about}" for name, about in facts["sides"].items()),
        ]
    )


def row(cells: Sequence[object], widths: Sequence[int]) -> str:
    """One line of a table: the first cell to the left, the others to the right."""
    texts = [digits(cell) if isinstance(cell, float) else str(cell) for cell in cells]
    columns = zip(texts[1:], widths[1:], strict=True)
    return "  ".join([texts[0].ljust(widths[0]), *(text.rjust(width) for text, width in columns)])


def digits(x: float) -> str:
    """Three significant digits, and never an exponent: 0.613, 1.07, 12.3, 4567."""
    return f"{x:.{3 if x < 1 else 2 if x < 10 else 1 if x < 100 else 0}f}"


def verdict(what: str, found: float, target: float, unit: str = "") -> str:
    outcome = "met" if found <= target else "MISSED"
    return f"{what}: {found:.3f}{unit}, target at most {target}{unit}, {outcome}"


def options(name: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes: --quick and --json FILE."""
    about = " ".join((doc or "").split())
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
    parser.add_argument("--quick", action="store_true", help="less of everything, for a first look")
    parser.add_argument("--json", type=writable, metavar="FILE", help="write the figures there too")
    return parser


def at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def writable(name: str) -> Path:
    """A file in a folder that exists: a slip is told before the minutes of measuring, not after."""
    path = Path(name)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{name} is a folder; name a file in it")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{name} cannot be written: its folder does not exist")
    return path


def write_json(path: Path | None, benchmark: str, facts: dict[str, Any], **results: Any) -> None:
    """{"benchmark": ..., "environment": facts, **results}; nothing where no file was asked for."""
    if path is not None:
        found = {"benchmark": benchmark, "environment": facts, **results}
        path.write_text(json.dumps(found, indent=1) + "\n")
