"""tensorgrad diagnose MODEL: layers, updates, learning rates, in sentences, pictures and JSON."""

from __future__ import annotations

import argparse
from typing import Any

from tensorgrad.commands.options import add_out_dir, add_settings

OTHER = ("command", "model", "data", "out_dir", "preset", "steps", "trained")  # no settings
PRESETS = {"char-gpt": "nanogpt-cpu"}  # what a processor manages; others have one recipe


def add_options(parser: argparse.ArgumentParser) -> None:
    from tensorgrad.models.training.ladder import JOBS

    models = parser.add_subparsers(
        dest="model", metavar="MODEL", title="models", required=True, parser_class=type(parser),
        description="each with its own settings, `tensorgrad diagnose MODEL --help`",
    )  # fmt: skip
    for word, job in JOBS.items():
        if word != "bigram":  # which is counted, not trained
            add_job(models.add_parser(word, help=job.about, description=job.about), job)


def add_job(parser: Any, job: Any) -> None:
    from tensorgrad.models.settings import options

    parser.add_argument("--data", metavar="FILE", help=job.reads)
    add_out_dir(parser)
    parser.add_argument("--trained", metavar="DIR",
                        help="examine this run's checkpoint (default: a new model)")  # fmt: skip
    parser.add_argument("--steps", type=int, default=200, metavar="INT",
                        help="updates to watch, and rates to try (default: 200)")  # fmt: skip
    preset = PRESETS.get(job.word)
    if job.presets:
        parser.add_argument("--preset", choices=list(job.presets), default=preset,
                            help=f"settings to begin with (default: {preset})")  # fmt: skip
    values = job.settings({}, preset)
    known = [o._replace(default=values.get(o.name, o.default)) for o in
             options(job.config, job.recipe)]  # fmt: skip
    add_settings(parser.add_argument_group("settings"), known)


def run(options: argparse.Namespace) -> None:
    from tensorgrad.models.diagnostics.ladder import examined
    from tensorgrad.models.training.ladder import JOBS

    if options.steps < 2:
        raise ValueError(f"steps must be at least 2, it is {options.steps}")
    given = {name: v for name, v in vars(options).items() if name not in OTHER}
    for line in examined(
        JOBS[options.model], given, options.data, options.out_dir,
        getattr(options, "preset", None), options.steps, options.trained,
    ):  # fmt: skip
        print(line, flush=True)
