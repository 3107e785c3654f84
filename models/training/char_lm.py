"""Models of text, a character at a time: their corpus, what is told of them, and how they write."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import distributed as dist
from tensorgrad.data import CharVocab, default_text, read_text
from tensorgrad.models.char_gpt import CharGPT, CharGPTConfig
from tensorgrad.models.training import job as jobs
from tensorgrad.models.training.corpus import Corpus
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.job import History, Job
from tensorgrad.models.training.recipe import Recipe
from tensorgrad.models.training.source import located
from tensorgrad.models.training.trainer import Trainer
from tensorgrad.rng import Generator


@dataclass(frozen=True)
class TextJob(Job):
    """A GPT on a text, cut in nine tenths to train on and one to validate on."""

    reads = (
        "a text in UTF-8, or `shakespeare`, which is downloaded (default: the help topics of "
        "Python)"
    )
    writes_text = True

    def corpus(self, data: Any, recipe: Any) -> Corpus:
        path = located(data)
        return Corpus(default_text() if path is None else read_text(path), path)

    def trainer(self, model: Any, recipe: Any, corpus: Any) -> Trainer:
        windows = corpus.windows(model.config.block_size, recipe.batch_size, recipe.seed)
        return Trainer(model, recipe, windows)

    def introduction(self, corpus: Any, model: Any, recipe: Any) -> Iterator[str]:
        text, c = corpus.text, model.config
        count = sum(p.numel() for p in model.parameters())
        yield (
            f"text: {text.name}, {text.n_chars:,} characters, {text.n_symbols:,} of them different"
        )
        yield f"sha256: {text.sha256}"
        yield (
            f"model: {self.kind} of {count:,} parameters (n_layer {c.n_layer}, n_head {c.n_head}, "
            f"n_embd {c.n_embd}, block_size {c.block_size})"
        )
        yield (
            f"to beat: {corpus.bigram:.4f} nats per character, the validation loss of a bigram "
            f"model (knowing nothing: {math.log(c.vocab_size):.4f})"
        )

    def plan(self, trainer: Any, recipe: Any) -> Iterator[str]:
        size, rows = dist.get_world_size(), recipe.batch_size * trainer.accumulation
        yield (
            f"training: {recipe.max_iters:,} steps of {rows * size} x "
            f"{trainer.model.config.block_size} characters on {recipe.device}"
            + (f" in {size} processes" if size > 1 else "")
            + "; the first compiles kernels"
        )

    def conclusion(self, last: dict[str, Any], corpus: Any, seconds: float) -> Iterator[str]:
        yield (
            f"validation loss {last['val_loss']:.4f} nats per character, training "
            f"{last['train_loss']:.4f}, bigram model {corpus.bigram:.4f}; {seconds:.0f} s of "
            "training"
        )

    def marks(self, corpus: Any) -> dict[str, float]:
        return {"bigram model": corpus.bigram}

    def vocabulary(self, saved: Mapping[str, Any]) -> CharVocab:
        return CharVocab.from_dict(saved["vocab"])

    def write(
        self, model: Any, vocab: Any, generator: Any, start: str | None = None,
        count: int | None = None, length: int | None = None, temperature: float | None = None,
        top_k: int | None = None,
    ) -> str:  # fmt: skip
        n = 500 if length is None else length
        heat = 0.8 if temperature is None else temperature
        texts = (
            continuation(model, vocab, start, n, heat, top_k, generator)
            for _ in range(1 if count is None else count)
        )
        return ("\n" + "-" * 40 + "\n").join(texts)

    def command(self) -> str:
        return super().command() if self.word != "char-gpt" else "tensorgrad train"

    def sample(self, model: Any, vocab: Any, recipe: Any, generator: Any) -> str:
        return self.write(model, vocab, generator, length=recipe.sample_length).strip()


CPU = {
    "block_size": 64, "n_layer": 4, "n_head": 4, "n_embd": 128, "dropout": 0.0, "batch_size": 12,
    "max_iters": 2000, "learning_rate": 1e-3, "min_lr": 1e-4, "warmup_iters": 100,
    "decay_lr": True, "weight_decay": 0.1, "beta2": 0.99, "grad_clip": 1.0, "eval_interval": 250,
    "eval_iters": 20, "log_interval": 1,
}  # fmt: skip
"""nanoGPT's recipe for a laptop's processor, as its README has it."""

LECTURE = {
    "block_size": 256, "n_layer": 6, "n_head": 6, "n_embd": 384, "dropout": 0.2, "batch_size": 64,
    "max_iters": 5000, "learning_rate": 3e-4, "decay_lr": False, "weight_decay": 0.01,
    "beta2": 0.999, "grad_clip": 0.0, "eval_interval": 500, "eval_iters": 200, "log_interval": 10,
}  # fmt: skip
"""That of the lecture, for a GPU: 10.8 million parameters, a constant rate, no clipping."""

CHAR_GPT = TextJob(
    "char-gpt",
    "char GPT",
    "a GPT of characters, as large as the lecture's; --preset=nanogpt-cpu for a small one",
    CharGPT,
    CharGPTConfig,
    Recipe,
    LECTURE,
    {"lecture": LECTURE, "nanogpt-cpu": CPU},
)


def train(
    given: Mapping[str, Any] | None = None,
    data: str | os.PathLike[str] | None = None,
    out_dir: str | os.PathLike[str] = "out",
    resume: bool = False,
) -> History:
    """The job that needs no choice: a small CharGPT, as `tensorgrad train` trains it."""
    return jobs.train(CHAR_GPT, given, data, out_dir, resume, None if resume else "nanogpt-cpu")


def restored(out_dir: str | os.PathLike[str], device: str = "cpu") -> tuple[CharGPT, CharVocab]:
    """The CharGPT of a checkpoint, in evaluation mode, and its vocabulary."""
    return jobs.restored(CHAR_GPT, RunFolder(out_dir).load(CHAR_GPT.kind), device)


def continuation(
    model: Any,
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
    start = vocab.opening if start is None else start
    device = next(model.parameters()).device
    idx = tg.from_numpy(vocab.encode(start)[None]).to(device)  # (1, T)
    out = model.generate(idx, length, temperature, top_k, generator)
    return vocab.decode(np.asarray(out[0].cpu()))
