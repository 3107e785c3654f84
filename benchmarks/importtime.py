"""What `import tensorgrad` costs beyond NumPy's own import, and that it imports nothing heavy."""

import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from benchmarks.report import at_least_one, environment, heading, options, verdict, write_json

TARGET = 0.15  # seconds
HEAVY = {
    *("cupy", "datasets", "huggingface_hub", "llvmlite", "matplotlib", "ml_dtypes", "mpi4py"),
    *("numba", "pygraphviz", "safetensors", "scipy", "tiktoken", "tokenizers", "torch", "tqdm"),
    "transformers",
}
LINE = re.compile(r"import time:\s*(\d+) \|\s*(\d+) \|(\s+)(\S+)")


class Import(NamedTuple):
    """One line of -X importtime, in seconds; `depth` grows from importer to imported."""

    own: float
    total: float  # with what it imports
    depth: int


Imports = dict[str, Import]  # in the order of the report: a module follows what it imports


def main(argv: Sequence[str] | None = None) -> None:
    parser = options("importtime", __doc__)
    parser.add_argument("--runs", type=at_least_one, help="processes (11)")
    args = parser.parse_args(argv)
    runs = args.runs or (3 if args.quick else 11)

    heavy = sorted(HEAVY & {name.split(".")[0] for name in imported_by("tensorgrad")})
    reports = [import_times("tensorgrad") for _ in range(runs)]
    total = statistics.median(r["tensorgrad"].total for r in reports)
    numpy = statistics.median(r["numpy"].total for r in reports)
    beyond = statistics.median(r["tensorgrad"].total - r["numpy"].total for r in reports)

    facts = environment()
    print(heading(facts))
    print(f"import tensorgrad: {total:.3f} s, of which NumPy {numpy:.3f} s", end="; ")
    print(f"medians of {runs} processes under -X importtime")
    print(verdict("beyond NumPy", beyond, TARGET, " s"))
    slowest = [f"{name} {1000 * own:.1f} ms" for name, own in own_times(reports)[:8]]
    print("the slowest of it:", ", ".join(slowest))
    print("heavy libraries imported:", ", ".join(heavy) or "none")
    write_json(
        args.json,
        "importtime",
        facts,
        beyond_numpy_s=beyond,
        total_s=total,
        numpy_s=numpy,
        runs=runs,
        heavy=heavy,
        target_s=TARGET,
    )
    if heavy:
        raise SystemExit(f"`import tensorgrad` must import none of them: {', '.join(heavy)}")


def python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command, root = [sys.executable, *arguments], Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"python {' '.join(arguments)} failed:\n{done.stderr.strip()}")
    return done


def imported_by(module: str) -> list[str]:
    """The modules that `import module` adds to those of a bare interpreter."""
    code = f"import sys; bare = set(sys.modules); import {module}; print(*set(sys.modules) - bare)"
    return sorted(python("-c", code).stdout.split())


def import_times(module: str) -> Imports:
    """What -X importtime says of `import module` in a fresh process."""
    return parse(python("-X", "importtime", "-c", f"import {module}").stderr)


def parse(report: str) -> Imports:
    return {
        name: Import(int(own) / 1e6, int(total) / 1e6, len(indent))
        for own, total, indent, name in LINE.findall(report)
    }


def below(imports: Imports, module: str) -> set[str]:
    """`module` and what it was the first to import: the deeper lines right above its own."""
    names = list(imports)
    upward = reversed(names[: names.index(module)])
    deeper = takewhile(lambda name: imports[name].depth > imports[module].depth, upward)
    return {module, *deeper}


def own_times(reports: Sequence[Imports]) -> list[tuple[str, float]]:
    """Median own time of each module that tensorgrad imports and NumPy does not, slowest first."""
    names = below(reports[0], "tensorgrad") - below(reports[0], "numpy")
    medians = {n: statistics.median(r[n].own for r in reports if n in r) for n in names}
    return sorted(medians.items(), key=lambda item: -item[1])


if __name__ == "__main__":
    main()
