"""tensorgrad env: versions, BLAS, threads, GPU, and why there is none."""

from __future__ import annotations

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(options: argparse.Namespace) -> None:
    from tensorgrad.environment import report

    print(report())
