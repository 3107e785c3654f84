"""`tensorgrad prepare` beside the plain loop, one document at a time through tiktoken: first the
same tokens for any number of workers, then tokens per second in turns, and peak memory.
"""

import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.report import at_least_one, environment, heading, options, row, write_json
from tensorgrad.data import BPE, Shard, default_text, get_tokenizer, train_bpe

ROOT = Path(__file__).parents[1]
TARGET = 1.6  # times the plain loop, with two workers on two cores
MEMORY = 1e9  # bytes, all processes together


class Run(NamedTuple):
    """Of all processes of one command: seconds by the clock, seconds of CPU, bytes at the peak."""

    seconds: float
    cpu: float
    peak: int


def main(argv: Sequence[str] | None = None) -> None:
    parser = options("prepare", __doc__)
    parser.add_argument("--megabytes", type=at_least_one, help="of JSONL to make (200)")
    parser.add_argument("--runs", type=at_least_one, help="of each kind, interleaved (3)")
    parser.add_argument("--workers", type=at_least_one, default=2, help="processes (2)")
    parser.add_argument("--plain", nargs=3, metavar="FILE", help="the loop: JSONL, tokenizer, out")
    args = parser.parse_args(argv)
    if args.plain:
        plain_loop(*args.plain)
        return
    size = (args.megabytes or (10 if args.quick else 200)) * 10**6
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), size, args.runs or (1 if args.quick else 3), args.workers, args.json)


def measure(folder: Path, size: int, runs: int, workers: int, file: Path | None) -> None:
    jsonl, tokenizer = folder / "texts.jsonl", folder / "tokenizer.json"
    digest = write_texts(jsonl, size)
    bpe = a_tokenizer()
    bpe.save(tokenizer)
    facts = environment()
    print(heading(facts))
    print(f"{size / 1e6:.0f} MB of JSONL, sha256 {digest[:16]}, tokens of {bpe.name}\n")

    def plain() -> Run:
        return timed("benchmarks.prepare", "--plain", jsonl, tokenizer, folder / "plain.bin")

    def ours(n: int) -> Callable[[], Run]:
        out = folder / f"workers-{n}"
        command = ("tensorgrad", "prepare", jsonl, "--tokenizer", tokenizer, "--workers", n)

        def run() -> Run:
            for path in out.glob("*"):
                path.unlink()
            return timed(*command, "--shard_size=10M", "--out", out)

        return run

    sides = {"plain loop": plain, "1 worker": ours(1), f"{workers} workers": ours(workers)}
    for run in sides.values():  # check, then time
        run()
    tokens = agreement(folder, workers)
    found: dict[str, list[Run]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, run in sides.items():
            found[name].append(run())

    base = statistics.median(r.seconds for r in found["plain loop"])
    widths = (14, 12, 12, 12, 12)
    print(row(("", "tokens/s", "of plain", "CPU s", "peak MB"), widths))
    results: dict[str, Any] = {}
    for name, times in found.items():
        seconds, cpu = (statistics.median(getattr(r, of) for r in times) for of in Run._fields[:2])
        peak = max(r.peak for r in times)
        print(row((name, f"{tokens / seconds:,.0f}", base / seconds, cpu, peak / 1e6), widths))
        results[name] = {
            "tokens_per_s": tokens / seconds, "of_plain": base / seconds, "cpu_s": cpu,
            "peak": peak, "runs": [r._asdict() for r in times],
        }  # fmt: skip
    ratio, peak = results[f"{workers} workers"]["of_plain"], results[f"{workers} workers"]["peak"]
    print(f"\n{workers} workers: {ratio:.2f} times the plain loop, target at least {TARGET}, "
          f"{'met' if ratio >= TARGET else 'MISSED'}; {peak / 1e6:.0f} MB, target at most "
          f"{MEMORY / 1e6:.0f}, {'met' if peak <= MEMORY else 'MISSED'}")  # fmt: skip
    write_json(file, "prepare", facts, bytes=size, tokens=tokens, target=TARGET, **results)


def write_texts(path: Path, size: int) -> str:
    """Documents of some 3 kB, drawn by seed from paragraphs of Python's manual; the SHA-256."""
    draw = random.Random(0)
    paragraphs = default_text().text.split("\n\n")
    digest, written = sha256(), 0
    with open(path, "wb") as file:
        while written < size:
            text = "\n\n".join(draw.choices(paragraphs, k=draw.randint(1, 25)))
            line = json.dumps({"id": written, "text": text}).encode() + b"\n"
            file.write(line)
            digest.update(line)
            written += len(line)
    return digest.hexdigest()


def a_tokenizer() -> BPE:
    """GPT-2's where this machine has it, else one trained on the same texts."""
    try:
        return get_tokenizer("gpt2")
    except FileNotFoundError:
        return train_bpe([default_text().text], 8192)


def plain_loop(jsonl: str, tokenizer: str, out: str) -> None:
    """What everybody writes first."""
    bpe = BPE.load(tokenizer)
    encode = bpe.encoding.encode_ordinary
    with open(jsonl, encoding="utf-8") as lines, open(out, "wb") as file:
        for line in lines:
            ids = [bpe.eot, *encode(json.loads(line)["text"])]
            file.write(np.array(ids, np.uint16).tobytes())


def agreement(folder: Path, workers: int) -> int:
    """How many tokens; raises where the shards are not the plain loop's tokens, byte for byte."""
    want = np.fromfile(folder / "plain.bin", np.uint16)
    names = sorted(path.name for path in (folder / "workers-1").glob("*.bin"))
    for n in (1, workers):
        here = folder / f"workers-{n}"
        parts = sorted(here.glob("*_train_*.bin")) + sorted(here.glob("*_val_*.bin"))
        got = np.concatenate([Shard(path).tokens for path in parts])
        if not np.array_equal(got, want):
            raise SystemExit(f"{n} workers gave other tokens than the plain loop")
        for name in names:
            if (here / name).read_bytes() != (folder / "workers-1" / name).read_bytes():
                raise SystemExit(f"{name} differs between 1 and {n} workers")
    return len(want)


def timed(module: str, *arguments: object) -> Run:
    """`python -m module` from start to end.  CPU seconds tell what a busy machine's clock hides."""
    start, peak, before = time.perf_counter(), 0, cpu_of_children()
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        while run.poll() is None:
            peak = max(peak, tree_resident(run.pid))
            try:
                run.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
        seconds = time.perf_counter() - start
        if run.returncode:
            assert run.stdout is not None
            raise SystemExit(f"{' '.join(command)} failed:\n{run.stdout.read().strip()}")
    return Run(seconds, cpu_of_children() - before, peak)


def cpu_of_children() -> float:
    """Seconds, of all that have ended, theirs included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tree_resident(pid: int) -> int:
    """VmRSS of a process and its children in bytes; what they share counts for each (Linux)."""
    total, waiting = 0, [pid]
    while waiting:
        process = Path(f"/proc/{waiting.pop()}")
        try:
            status = (process / "status").read_text()
            children = [task.read_text() for task in process.glob("task/*/children")]
        except OSError:  # it ended meanwhile
            continue
        found = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
        total += 1024 * sum(map(int, found))
        waiting += [int(child) for line in children for child in line.split()]
    return total


if __name__ == "__main__":
    main()
