"""The main job: text in; losses, a picture, a checkpoint and a sample out.  And sampling from it afterwards."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad.data import CharVocab, Text, bigram_loss, default_text, random_windows, read_text, split
from tensorgrad.models.char_gpt import CharGPT, CharGPTConfig
from tensorgrad.models.settings import Settings
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.picture import plot_losses
from tensorgrad.models.training.progress import Progress
from tensorgrad.models.training.recipe import Recipe
from tensorgrad.models.training.stopping import Stopped, stop_requests
from tensorgrad.models.training.trainer import Step, Trainer
from tensorgrad.rng import Generator
from tensorgrad.serialization import CheckpointError

KIND = "char-gpt"
SETTINGS = (CharGPTConfig, Recipe)


def train(
    given: Mapping[str, Any] | None = None,
    data: str | os.PathLike[str] | None = None,
    out_dir: str | os.PathLike[str] = "out",
    resume: bool = False,
) -> list[dict[str, Any]]:
    """Train a CharGPT on a text file, or on Python's own help; returns the steps as dicts.

    given: values of `CharGPTConfig` and `Recipe` that differ from the defaults or, with `resume`,
    from those of the checkpoint in out_dir.  What cannot be raises before anything is written.
    """
    folder, given = RunFolder(out_dir), dict(given or {})
    saved = folder.load(KIND) if resume else None
    if saved is not None:
        data = saved["text"]["path"] if data is None else data
        given = {**saved["config"], **saved["recipe"], **given}
    recipe = Recipe.from_dict(belonging(given, Recipe))
    tg.empty(0, device=recipe.device)  # which says at once where there is no such device

    text = default_text() if data is None else read_text(data)
    vocab = CharVocab.from_text(text.text)
    sizes = {**belonging(given, CharGPTConfig), "vocab_size": len(vocab)}
    config = CharGPTConfig.from_dict(sizes)
    ids = dict(zip(("train", "val"), split(vocab.encode(text.text)), strict=True))
    check_lengths(ids, config.block_size)
    if saved is not None:
        check_the_same(saved, config, vocab, text)
    bigram = bigram_loss(ids["train"], ids["val"], len(vocab))

    tg.manual_seed(recipe.seed)
    model = CharGPT(config).to(recipe.device)
    draw = partial(windows, ids, config.block_size, recipe.batch_size)
    trainer = Trainer(model, recipe, draw)
    if saved is not None:
        trainer.load_state(saved["trainer"])
        if trainer.step >= recipe.max_iters:
            raise ValueError(
                f"nothing to do: {str(folder.checkpoint)!r} is at step {trainer.step} of "
                f"max_iters {recipe.max_iters}; name more to go on"
            )
    for line in introduction(text, model, recipe, bigram):
        print(line)
    if saved is None:
        earlier = folder.begin()
        if earlier is not None:
            print(f"an earlier run is kept in {earlier}")
    else:
        folder.resume(trainer.step)
        print(f"resuming after step {trainer.step}")

    about = {
        "kind": KIND,
        "config": config.to_dict(),
        "recipe": recipe.to_dict(),
        "vocab": vocab.to_dict(),
        "text": {"path": None if data is None else os.path.abspath(data), "sha256": text.sha256},
    }
    run(trainer, folder, about)

    history = folder.history()
    plot_losses(history, {"bigram model": bigram}, folder.picture)
    for line in conclusion(history, bigram, folder):
        print(line)
    print(sample_of(model, vocab, opening(vocab), 500, 0.8, None, Generator("cpu")).strip())
    print(f"\nmore of it: tensorgrad sample --out_dir {out_dir}")
    return history


def run(trainer: Trainer, folder: RunFolder, about: dict[str, Any]) -> None:
    """Train to the end, noting every step, saving at each evaluation and when asked to stop."""
    total = trainer.recipe.max_iters
    with stop_requests() as asked, Progress(trainer.recipe, trainer.step) as progress:
        for step in trainer.steps():
            folder.note(step)
            progress.show(step)
            stopping = asked and step.step < total
            if stopping or step.val_loss is not None:
                folder.save({**about, "trainer": trainer.state()})
            if stopping:
                raise Stopped(
                    f"stopped and saved after step {step.step} of {total}; go on with: "
                    f"tensorgrad train --resume --out_dir {folder.path}",
                    asked[0],
                )


def windows(
    ids: dict[str, Any], block_size: int, batch_size: int, split: str, generator: Generator
) -> tuple[Any, Any]:
    """A batch of random windows of a split: x, and y one character later, both (B, T)."""
    return random_windows(ids[split], block_size, batch_size, generator)


def belonging(given: Mapping[str, Any], kind: type[Settings]) -> dict[str, Any]:
    """Those of the values that are settings of this kind, and those that are of no kind at all."""
    others = {f.name for other in SETTINGS if other is not kind for f in fields(other)}
    return {name: value for name, value in given.items() if name not in others}
