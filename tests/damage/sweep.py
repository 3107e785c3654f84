"""A sweep over damaged files, in a process that may die: python -m tests.damage.sweep --help.

Memory beyond what the process had, the file's size and 64 MB is refused by the system; a case that
hangs is interrupted.  Prints one line of JSON a format; the case in hand is on the last line before
a crash.
"""

import argparse
import faulthandler
import json
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from tests.damage.damages import damaged
from tests.damage.formats import FORMATS
from tests.damage.ours import Format

ROOM = 64 << 20  # bytes of memory beyond the file's size
PATIENCE = 60  # seconds until a case counts as hanging
LONGEST = 2000  # letters of an error, of which one line is wanted


class Hanging(BaseException):
    """The alarm rang."""


def ring(*args: object) -> None:
    raise Hanging


def outcome(form: Format, folder: Path, name: str, raw: bytes, data: bytes, right: Any) -> str:
    """What becomes of the damaged file: error, unchanged, unseen (values only), or a failure."""
    path = folder / name
    path.write_bytes(data)
    signal.alarm(PATIENCE)
    try:
        found = form.read(folder)
    except Exception as error:
        kind = type(error).__name__
        if kind not in form.errors and not isinstance(error, OSError):
            return f"failure: {kind}: {str(error)[:300]}"
        if name not in str(error):
            return f"failure: the error does not name the file: {str(error)[:300]}"
        if "\n" in str(error) or len(str(error)) > LONGEST:
            return f"failure: an error of {len(str(error))} letters: {str(error)[:300]!r}"
        return "error"
    except BaseException as error:  # Hanging, and what Rust throws
        return f"failure: {type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.alarm(0)
    if found == right:
        return "unchanged"
    try:
        unseen = form.alike(raw, data, path)
    except Exception:
        unseen = False
    return "unseen" if unseen else "failure: other values were loaded"


def sweep(form: Format, folder: Path, seeds: range) -> dict[str, Any]:
    """Counts of outcomes, and the first failures with their seeds."""
    raws = {name: (folder / name).read_bytes() for name in form.files}
    right = form.read(folder)
    signal.signal(signal.SIGALRM, ring)
    counts: Counter[str] = Counter()
    failures: list[str] = []
    began = time.perf_counter()
    limited = False
    for seed in seeds:
        name = form.files[seed % len(form.files)]
        raw = raws[name]
        data = damaged(raw, form.makers_of(name), seed)
        print(f"seed {seed}", file=sys.stderr, flush=True)
        if not limited and seed - seeds.start >= 20:  # all code is loaded, all caches are warm
            limit(max(map(len, raws.values())))
            limited = True
        result = outcome(form, folder, name, raw, data, right)
        counts[result.split(":")[0]] += 1
        if result.startswith("failure") and len(failures) < 20:
            failures.append(f"seed {seed}, {name}: {result}")
        (folder / name).write_bytes(raw)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert form.read(folder) == right
    seconds = time.perf_counter() - began
    return {"files": len(seeds), **counts, "seconds": round(seconds, 2), "failures": failures}


def limit(size: int) -> None:
    """Let the address space grow by the file's size and 64 MB, and no further."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + size + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="with a folder for each format, or empty: they are made")
    parser.add_argument("--formats", nargs="*", default=list(FORMATS), choices=list(FORMATS))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=300)
    args = parser.parse_args()
    faulthandler.enable()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as fast:
        for name in args.formats:
            source, folder = Path(args.folder, name), Path(fast, name)
            folder.mkdir()
            if not source.exists():
                source.mkdir(parents=True)
                FORMATS[name].write(source)
            for path in source.iterdir():
                (folder / path.name).write_bytes(path.read_bytes())
            print(f"format {name}", file=sys.stderr, flush=True)
            found = sweep(FORMATS[name], folder, range(args.first, args.first + args.count))
            print(json.dumps({"format": name, **found}), flush=True)


if __name__ == "__main__":
    main()
