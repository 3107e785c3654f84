"""Options that several commands share, and those made of a model's or a recipe's settings."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any


def add_settings(parser: Any, options: Iterable[Any]) -> None:
    """One option for each setting; those not given are not in the namespace."""
    kinds: dict[str, Any] = {"int": int, "float": float, "bool": truth, "str": str}
    for o in options:
        parser.add_argument(
            f"--{o.name}", type=kinds[o.type], metavar=o.type.upper(), default=argparse.SUPPRESS,
            help=f"{o.meaning} (default: {o.default})".replace("%", "%%"),
        )  # fmt: skip


def truth(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise argparse.ArgumentTypeError(f"expected True or False, not {text!r}")
    return text.lower() in ("true", "1", "yes")


def add_out_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out_dir", default="out", metavar="DIR",
                        help="the folder of the run (default: out)")  # fmt: skip
