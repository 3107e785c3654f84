"""tensorgrad train: text in; losses, a picture, a checkpoint and a sample out."""

from __future__ import annotations

import argparse

from tensorgrad.commands.options import add_out_dir, add_settings

RUN = ("data", "out_dir", "resume")  # the options of `train` that are no settings


def add_options(parser: argparse.ArgumentParser) -> None:
    from tensorgrad.models.settings import options
    from tensorgrad.models.training.char_lm import SETTINGS

    parser.add_argument("--data", metavar="FILE",
                        help="a text in UTF-8 (default: the help topics of Python)")  # fmt: skip
    add_out_dir(parser)
    parser.add_argument("--resume", action="store_true",
                        help="go on, exactly, from the checkpoint in --out_dir")  # fmt: skip
    add_settings(parser.add_argument_group("settings"), options(*SETTINGS))


def run(options: argparse.Namespace) -> None:
    from tensorgrad.models.training import char_lm

    given = {name: v for name, v in vars(options).items() if name not in ("command", *RUN)}
    char_lm.train(given, options.data, options.out_dir, options.resume)
