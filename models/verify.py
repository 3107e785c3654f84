"""The ladder run on real data, rung by rung: measured, published, allowed, passed or failed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad.data import Text, contexts, read_text
from tensorgrad.models import published
from tensorgrad.models.layers import undrawn
from tensorgrad.models.published import Figure
from tensorgrad.models.settings import divided
from tensorgrad.models.training.corpus import Corpus
from tensorgrad.models.training.job import Job
from tensorgrad.models.training.ladder import JOBS
from tensorgrad.models.training.word_lm import WordCorpus, bigram_loss
from tensorgrad.models.training.word_trainer import WordTrainer, evaluate

Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Rung:
    """A figure and what was measured in its place."""

    figure: Figure
    measured: float

    @property
    def passed(self) -> bool:
        return self.figure.met_by(self.measured)

    def __str__(self) -> str:
        f = self.figure
        return (
            f"{f.what:<42} {number(self.measured):>12} {number(f.value):>12}  "
            f"{allowed(f):<20} {'pass' if self.passed else 'FAIL'}  {f.source}"
        )


HEADING = f"{'':<42} {'measured':>12} {'published':>12}  {'allowed':<20}       source"


def number(x: float) -> str:
    """Counts in full, losses with seven digits behind the point where they have them."""
    if float(x).is_integer():
        return f"{int(x):,}"
    return f"{x:.7f}".rstrip("0")


def allowed(f: Figure) -> str:
    """The interval that counts as reproduced."""
    if f.low == f.high:
        return "exactly"
    if f.low == 0:
        return f"at most {f.high:g}"
    if abs(f.high + f.low - 2 * f.value) < 1e-9:
        return f"+- {(f.high - f.low) / 2:.0e}"
    return f"{f.low:g} to {f.high:g}"


def ladder(names: Path | None, shakespeare: Path | None, quick: bool = False) -> Iterator[Rung]:
    """Each rung as soon as it is measured.  Without a file, the rungs that need it are left out.

    quick: what takes under three minutes on two cores; else every recipe is trained to its end.
    """
    yield from engine()
    yield from parameters()
    words = None if names is None else WordCorpus(read_text(names), path=names)
    if words is not None:
        yield from of_names(words)
        yield from short_mlp(words)
    if shakespeare is not None:
        yield from of_shakespeare(read_text(shakespeare))
    if quick:
        return
    if words is not None:
        for name in ("mlp", "mlp-bn", "wavenet"):
            yield trained(JOBS[name], words)
    if shakespeare is not None:
        corpus = JOBS["char-gpt"].corpus(shakespeare, None)
        yield trained(JOBS["char-gpt"], corpus, "nanogpt-cpu")


# ---- rungs


def compared(figures: Iterable[Figure], measured: Iterable[Any]) -> Iterator[Rung]:
    for figure, value in zip(figures, measured, strict=True):
        yield Rung(figure, float(value))


def engine() -> Iterator[Rung]:
    """The expression of micrograd's README, by scalars and by tensors."""
    from tensorgrad.scalar import Value

    a, b = Value(-4.0), Value(2.0)
    g = micrograd_expression(a, b)
    g.backward()
    yield from compared(published.MICROGRAD, (g.data, a.grad, b.grad))
    x, y = (tg.tensor(v, dtype=tg.float64, requires_grad=True) for v in (-4.0, 2.0))
    g = micrograd_expression(x, y)
    g.backward()
    yield from compared(published.MICROGRAD, (g, *(v.grad for v in (x, y) if v.grad is not None)))


def micrograd_expression(a: Any, b: Any) -> Any:
    """Sums, products, powers and relus, several of them used more than once."""
    c, d = a + b, a * b + b**3
    c = c + c + 1
    c = c + 1 + c - a
    d = d + d * 2 + (b + a).relu()
    d = d + 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    return f / 2.0 + 10.0 / f


def parameters() -> Iterator[Rung]:
    """How many numbers each model learns, at the size that was published."""
    for name, job in JOBS.items():
        if name in published.PARAMETERS:
            model = full_size(job)
            count = sum(p.numel() for p in model.parameters())
            yield Rung(published.PARAMETERS[name], count)


def full_size(job: Job) -> Any:
    """The model with its default settings, for 27 symbols of names, 65 of Shakespeare, or tokens.

    Its weights are drawn only where they are few."""
    V = 50_257 if job.unit == "token" else 65 if job.writes_text else 27
    sizes, _ = divided(job.settings({}), job.config, job.recipe)
    with undrawn() if job.unit == "token" else nullcontext():
        return job.model(job.config(**{**sizes, "vocab_size": V}))


def of_names(corpus: WordCorpus) -> Iterator[Rung]:
    """The data, and both bigram models on it."""
    words, vocab, parts = corpus.words, corpus.vocab, corpus.parts
    x, y = contexts(words, vocab, 1)
    yield Rung(published.WORDS, len(words))
    yield Rung(published.BIGRAMS, len(y))
    yield Rung(published.SEEN, len(np.unique(x[:, 0] * len(vocab) + y)))
    sizes = [len(contexts(part, vocab, 3)[1]) for part in parts.values()]
    yield from compared(published.SPLITS, sizes)
    for smoothing, figure in published.COUNT_BIGRAM.items():
        yield Rung(figure, bigram_loss(words, words, vocab, smoothing))
    losses = [bigram_loss(parts["train"], part, vocab) for part in parts.values()]
    yield from compared(published.COUNT_BIGRAM_SPLIT, losses)
    job = JOBS["neural-bigram"]
    every = dict.fromkeys(parts, (x, y))  # the lecture trains and judges on all words
    trainer = word_trainer(job, vocab, every, seed=published.NEURAL_BIGRAM_SEED)
    penalised = last_loss(trainer)
    yield from compared(published.NEURAL_BIGRAM, (evaluate(trainer.model, x, y), penalised))


def word_trainer(job: Job, vocab: Any, examples: Any, **given: Any) -> WordTrainer:
    sizes, rates = divided(job.settings(given), job.config, job.recipe)
    recipe: Any = job.recipe(**rates)
    tg.manual_seed(recipe.seed)
    model = job.model(job.config(**{**sizes, "vocab_size": len(vocab)}))
    return WordTrainer(model, recipe, examples)


def last_loss(trainer: WordTrainer) -> float:
    """That of the last step."""
    trainer.take_steps(trainer.recipe.max_iters - 1)
    return trainer.take_steps(1).loss


def short_mlp(corpus: WordCorpus) -> Iterator[Rung]:
    """The first steps from a seed, beside PyTorch's from the same seed."""
    n = published.SHORT_MLP_STEPS
    examples = corpus.examples(3)
    given = {"max_iters": n, "lr_decay_at": 1.0, "seed": 1337}
    trainer = word_trainer(JOBS["mlp"], corpus.vocab, examples, **given)
    trainer.take_steps(n - 100)
    last = trainer.take_steps(100).loss
    yield from compared(published.SHORT_MLP, (last, evaluate(trainer.model, *examples["val"])))


def of_shakespeare(text: Text) -> Iterator[Rung]:
    """The data, and what the full char GPT makes of it before it has learnt."""
    corpus = Corpus(text)
    counts = (text.n_chars, len(corpus.vocab), *(len(ids) for ids in corpus.ids.values()))
    yield from compared(published.SHAKESPEARE, counts)
    tg.manual_seed(1337)
    model = full_size(JOBS["char-gpt"]).eval()
    if len(corpus.vocab) == model.config.vocab_size:
        T = model.config.block_size
        row = corpus.ids["val"][: 8 * T + 1]
        x, y = (tg.tensor(ids.reshape(8, T)) for ids in (row[:-1], row[1:]))
        with tg.no_grad():
            yield Rung(published.CHAR_GPT_START, model(x, y)[1].item())


def trained(job: Job, corpus: Any, preset: str | None = None) -> Rung:
    """A recipe trained to its end, and the validation loss that came of it."""
    sizes, rates = divided(job.settings({}, preset), job.config, job.recipe)
    recipe: Any = job.recipe(**rates)
    tg.manual_seed(recipe.seed)
    model = job.model(job.config(**{**sizes, "vocab_size": len(corpus.vocab)}))
    trainer = job.trainer(model, recipe, corpus)
    began = perf_counter()
    print(f"training {job.word}: {recipe.max_iters:,} steps ...", flush=True)
    losses: dict[str, float] = {}
    for step in trainer.steps():
        if step.val_loss is not None:
            losses = {"val_loss": step.val_loss}
    losses |= job.finish(trainer)[0]
    print(f"  {perf_counter() - began:.0f} s", flush=True)
    return Rung(published.TRAINED[job.word], losses["val_loss"])
