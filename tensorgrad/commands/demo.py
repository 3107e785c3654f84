"""tensorgrad demo gpt2: five sentences learnt, saved, read back and written again, in seconds."""

from __future__ import annotations

import argparse

ABOUT = (
    "a GPT-2 of 4.8 million parameters learns five sentences, is saved, read back into a new model "
    "and writes them; the smallest whole example, models/training/demo.py"
)


def add_options(parser: argparse.ArgumentParser) -> None:
    models = parser.add_subparsers(
        dest="model", metavar="MODEL", title="models", required=True, parser_class=type(parser)
    )
    add = models.add_parser("gpt2", help=ABOUT, description=ABOUT).add_argument
    add("--epochs", type=int, default=40, metavar="INT",
        help="rounds over the sentences (default: 40)")  # fmt: skip
    add("--lr", type=float, default=1e-3, metavar="FLOAT",
        help="AdamW's rate after the warm-up (default: 0.001)")  # fmt: skip
    add("--seed", type=int, default=1337, metavar="INT",
        help="seed of weights, batches, dropout and samples (default: 1337)")  # fmt: skip
    add("--start", default="", metavar="TEXT",
        help="what the samples begin with (default: nothing)")  # fmt: skip
    add("--out_dir", default="out/demo-gpt2", metavar="DIR",
        help="the folder of the trained model (default: out/demo-gpt2)")  # fmt: skip
    add("--device", default="cpu", metavar="STR", help="cpu or cuda (default: cpu)")


def run(options: argparse.Namespace) -> None:
    from functools import partial

    from tensorgrad.models.training.demo import demo

    demo(
        options.epochs, options.lr, options.seed, options.out_dir, options.device, options.start,
        partial(print, flush=True),
    )  # fmt: skip
