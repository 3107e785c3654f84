"""tensorgrad train: data in; losses, a picture, a checkpoint and a sample out."""

from __future__ import annotations

import argparse
from typing import Any

from tensorgrad.commands.options import add_settings

RUN = ("command", "model", "data", "out_dir", "resume", "auto_resume", "checkpoint", "preset")
"""Options that are no settings."""

DEFAULT, PRESET = "char-gpt", "nanogpt-cpu"  # what is trained where nothing is named


def add_options(parser: argparse.ArgumentParser) -> None:
    from tensorgrad.models.training.ladder import JOBS

    models = parser.add_subparsers(
        dest="model",
        metavar="MODEL",
        title="models",
        description="each with its own settings, `tensorgrad train MODEL --help`; without one, "
        f"{DEFAULT} in the size that two cores train in minutes",
        parser_class=type(parser),
    )
    for word, job in JOBS.items():
        sub = models.add_parser(word, help=job.about, description=job.about)
        add_job(sub, job, None)
    add_job(parser, JOBS[DEFAULT], PRESET)


def add_job(parser: Any, job: Any, preset: str | None) -> None:
    """The options of one model; none of them has a value where it is not given."""
    from tensorgrad.models.settings import options

    parser.add_argument("--data", metavar="FILE", default=argparse.SUPPRESS, help=job.reads)
    parser.add_argument("--out_dir", metavar="DIR", default=argparse.SUPPRESS,
                        help="the folder of the run (default: out)")  # fmt: skip
    parser.add_argument("--resume", action="store_true", default=argparse.SUPPRESS,
                        help="go on, exactly, from the checkpoint in --out_dir")  # fmt: skip
    parser.add_argument("--auto_resume", action="store_true", default=argparse.SUPPRESS,
                        help="the same if there is one, else begin: for jobs that are restarted"
                        )  # fmt: skip
    parser.add_argument("--checkpoint", metavar="NAME", default=argparse.SUPPRESS,
                        help="with --resume, another one of --out_dir: best.safetensors, "
                        "ckpt-00000500.safetensors")  # fmt: skip
    if job.presets:
        first = preset or next(iter(job.presets))
        parser.add_argument("--preset", choices=list(job.presets), default=argparse.SUPPRESS,
                            help=f"settings to begin with (default: {first})")  # fmt: skip
    values = job.settings({}, preset)
    known = [o._replace(default=values.get(o.name, o.default)) for o in
             options(job.config, job.recipe) if o.name not in job.unasked]  # fmt: skip
    group = parser.add_argument_group("settings")
    add_settings(group, [*known, *job.aliases])


def run(options: argparse.Namespace) -> None:
    from tensorgrad.models.training.job import train
    from tensorgrad.models.training.ladder import JOBS

    chosen = vars(options)
    given = {name: v for name, v in chosen.items() if name not in RUN}
    preset = chosen.get("preset", None if options.model else PRESET)
    resume: bool | str = chosen.get("resume", False)
    if "checkpoint" in chosen:
        if not resume:
            raise ValueError("--checkpoint says what --resume goes on from; give both")
        resume = chosen["checkpoint"]
    if chosen.get("auto_resume"):
        if resume:
            raise ValueError("give --resume or --auto_resume, not both")
        resume = "auto"
    train(
        JOBS[options.model or DEFAULT],
        given,
        chosen.get("data"),
        chosen.get("out_dir", "out"),
        resume,
        preset,
    )
