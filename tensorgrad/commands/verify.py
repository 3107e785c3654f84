"""tensorgrad verify: the ladder on real data beside the published numbers, or one model's parts."""

from __future__ import annotations

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--names", metavar="FILE",
                        help="makemore's names.txt (default: leave its rungs out)")  # fmt: skip
    parser.add_argument("--shakespeare", metavar="FILE",
                        help="tinyshakespeare (default: leave its rungs out)")  # fmt: skip
    parser.add_argument("--quick", action="store_true",
                        help="without the long trainings: under three minutes")  # fmt: skip
    parser.add_argument("--model", metavar="NAME",
                        help="examine one model instead: bigram ... gpt2-xl")  # fmt: skip


def run(options: argparse.Namespace) -> None:
    if options.model is not None:
        of_model(options.model)
    else:
        of_ladder(options)


def of_model(name: str) -> None:
    from tensorgrad.models.model_checks import check_model

    failed = total = 0
    for check in check_model(name):
        print(check, flush=True)
        total, failed = total + 1, failed + (not check.passed)
    conclude(total, failed, "checks")


def of_ladder(options: argparse.Namespace) -> None:
    from tensorgrad.models.verify import HEADING, ladder

    print(HEADING)
    failed = total = 0
    for rung in ladder(options.names, options.shakespeare, options.quick):
        print(rung, flush=True)
        total, failed = total + 1, failed + (not rung.passed)
    for option, file in (("names", options.names), ("shakespeare", options.shakespeare)):
        if file is None:
            print(f"left out, without --{option} FILE: the rungs that need it")
    conclude(total, failed, "rungs")


def conclude(total: int, failed: int, what: str) -> None:
    """Say how many; exit status 1 where one failed."""
    if failed:
        raise RuntimeError(f"{failed} of {total} {what} failed")
    print(f"all {total} {what} passed")
