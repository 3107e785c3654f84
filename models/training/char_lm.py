"""The main job: text in; losses, a picture, a checkpoint and a sample out; and samples later."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad.data import CharVocab, default_text, read_text
from tensorgrad.models.char_gpt import CharGPT, CharGPTConfig
from tensorgrad.models.settings import divided
from tensorgrad.models.training.corpus import Corpus
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.picture import plot_losses
from tensorgrad.models.training.progress import Progress
from tensorgrad.models.training.recipe import Recipe
from tensorgrad.models.training.stopping import Stopped, stop_requests
from tensorgrad.models.training.trainer import Trainer
from tensorgrad.rng import Generator
from tensorgrad.serialization import CheckpointError

KIND = "char GPT"
SETTINGS = (CharGPTConfig, Recipe)
History = list[dict[str, Any]]


def train(
    given: Mapping[str, Any] | None = None,
    data: str | os.PathLike[str] | None = None,
    out_dir: str | os.PathLike[str] = "out",
    resume: bool = False,
) -> History:
    """Train a CharGPT on a text file, or on Python's own help; returns what each step told.

    given: settings (of CharGPTConfig and Recipe) other than the defaults or, with `resume`, other
    than those of the checkpoint in out_dir.  Whatever cannot be raises before a file is touched.
    """
    folder = RunFolder(out_dir)
    saved = folder.load(KIND) if resume else None
    if saved is not None:
        data = saved["text"]["path"] if data is None else data
        given = {**saved["config"], **saved["recipe"], **(given or {})}
    sizes, rates = divided(given or {}, *SETTINGS)
    recipe = Recipe(**rates)
    tg.empty(0, device=recipe.device)  # which says at once why there is no such device

    corpus = Corpus(default_text() if data is None else read_text(data))
    config = CharGPTConfig(**{**sizes, "vocab_size": len(corpus.vocab)})
    windows = corpus.windows(config.block_size, recipe.batch_size)
    tg.manual_seed(recipe.seed)
    model = CharGPT(config).to(recipe.device)
    trainer = Trainer(model, recipe, windows)
    for line in introduction(corpus, model, recipe):
        print(line)
    if saved is not None:
        continue_from(saved, trainer, corpus, config)
        folder.resume(trainer.step)
        print(f"resuming after step {trainer.step}")
    elif (earlier := folder.begin()) is not None:
        print(f"an earlier run is kept in {earlier}")

    where = None if data is None else os.path.abspath(data)
    about = {
        "kind": KIND,
        "config": config.to_dict(),
        "recipe": recipe.to_dict(),
        "vocab": corpus.vocab.to_dict(),
        "text": {"path": where, "name": corpus.text.name, "sha256": corpus.text.sha256},
    }
    run(trainer, folder, about)

    history = folder.history()
    plot_losses(history, {"bigram model": corpus.bigram}, folder.picture)
    for line in conclusion(history, corpus, folder):
        print(line)
    generator = Generator(recipe.device).manual_seed(recipe.seed)
    text = continuation(model, corpus.vocab, None, recipe.sample_length, generator=generator)
    print(f"a sample:\n\n{text.strip()}\n\nmore of it: tensorgrad sample --out_dir {out_dir}")
    return history


def run(trainer: Trainer, folder: RunFolder, about: Mapping[str, Any]) -> None:
    """Train to the end: note every step, save at each evaluation, and where asked to stop."""
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
                    f"stopped after step {step.step} of {total}, and saved; go on with: "
                    f"tensorgrad train --resume --out_dir {folder.path}",
                    asked[0],
                )


def continue_from(
    saved: Mapping[str, Any], trainer: Trainer, corpus: Corpus, config: CharGPTConfig
) -> None:
    """Put the trainer where the checkpoint's was; ValueError where that cannot be."""
    if CharVocab.from_dict(saved["vocab"]) != corpus.vocab:
        raise CheckpointError(
            f"the checkpoint learnt the characters of {saved['text']['name']!r}, and those of "
            f"{corpus.text.name!r} are others; resume with the same --data, or train anew"
        )
    for name, size in config.to_dict().items():
        if size != saved["config"][name]:
            raise ValueError(
                f"the checkpoint's model has {name} {saved['config'][name]}, so it cannot go on "
                f"with {size}; leave the option out, or train anew without --resume"
            )
    trainer.load_state(saved["trainer"])
    if trainer.step >= trainer.recipe.max_iters:
        raise ValueError(
            f"nothing to do: the checkpoint is at step {trainer.step} of max_iters "
            f"{trainer.recipe.max_iters}; a larger --max_iters goes on"
        )
    if saved["text"]["sha256"] != corpus.text.sha256:
        print("note: this is not the text that the checkpoint was trained on until now")


def introduction(corpus: Corpus, model: CharGPT, recipe: Recipe) -> Iterator[str]:
    """What is trained, on what, and what is to be beaten."""
    text, c = corpus.text, model.config
    count = sum(p.numel() for p in model.parameters())
    yield f"text: {text.name}, {text.n_chars:,} characters, {text.n_symbols:,} of them different"
    yield f"sha256: {text.sha256}"
    yield (
        f"model: {KIND} of {count:,} parameters (n_layer {c.n_layer}, n_head {c.n_head}, "
        f"n_embd {c.n_embd}, block_size {c.block_size})"
    )
    yield (
        f"to beat: {corpus.bigram:.4f} nats per character, the validation loss of a bigram model "
        f"(knowing nothing: {math.log(c.vocab_size):.4f})"
    )
    yield (
        f"training: {recipe.max_iters:,} steps of {recipe.batch_size} x {c.block_size} characters "
        f"on {recipe.device}; the first compiles kernels"
    )


def conclusion(history: History, corpus: Corpus, folder: RunFolder) -> Iterator[str]:
    """What came of it, and where it lies."""
    last, seconds = history[-1], sum(step["seconds"] for step in history)
    yield (
        f"validation loss {last['val_loss']:.4f} nats per character, training "
        f"{last['train_loss']:.4f}, bigram model {corpus.bigram:.4f}; {seconds:.0f} s of training"
    )
    yield f"wrote {folder.checkpoint}, {folder.losses}, {folder.picture}"


# ---- sampling


def restored(out_dir: str | os.PathLike[str], device: str = "cpu") -> tuple[CharGPT, CharVocab]:
    """The model of a checkpoint, in evaluation mode, and its vocabulary."""
    saved = RunFolder(out_dir).load(KIND)
    model = CharGPT(CharGPTConfig.from_dict(saved["config"]))
    model.load_state_dict(saved["trainer"]["model"])
    return model.to(device).eval(), CharVocab.from_dict(saved["vocab"])


def continuation(
    model: CharGPT,
    vocab: CharVocab,
    start: str | None,
    length: int,
    temperature: float = 0.8,
    top_k: int | None = None,
    generator: Generator | None = None,
) -> str:
    """The text `start` and `length` characters more; None starts a new line.

    ValueError names a character of `start` that the model has never seen.
    """
    if start is None:
        start = "\n" if "\n" in vocab.symbols else vocab.symbols[0]
    device = next(model.parameters()).device
    idx = tg.from_numpy(vocab.encode(start)[None]).to(device)  # (1, T)
    out = model.generate(idx, length, temperature, top_k, generator)
    return vocab.decode(np.asarray(out[0].cpu()))
