"""The diagnosis of a model of the ladder, on the data and by the recipe that it trains with."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorgrad as tg
from tensorgrad import Tensor, optim
from tensorgrad.models.attention_maps import visualize_attention
from tensorgrad.models.diagnostics.diagnosis import diagnose
from tensorgrad.models.settings import divided
from tensorgrad.models.training.char_lm import TextJob
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.job import Job, restored
from tensorgrad.models.training.trainer import Trainer, decay_groups

SAMPLE = 32
"""Characters of the text whose attention is drawn."""


def examined(
    job: Job,
    given: Mapping[str, Any],
    data: str | os.PathLike[str] | None,
    out_dir: str | os.PathLike[str],
    preset: str | None = None,
    steps: int = 200,
    trained: str | os.PathLike[str] | None = None,
) -> Iterator[str]:
    """Findings as sentences, one by one; pictures and numbers go into out_dir.

    A new model with the settings given, or with `trained` that of the checkpoint in this folder,
    its data and settings included.  ValueError for settings that cannot be.
    """
    saved = None if trained is None else RunFolder(trained).load(job.kind)
    if saved is None:
        given = job.settings(given, preset)
    else:
        data = saved["text"]["path"] if data is None else data
        given = {**saved["config"], **saved["recipe"], **given}
    sizes, rates = divided(given, job.config, job.recipe)
    recipe: Any = job.recipe(**rates)
    corpus = job.corpus(data, recipe)
    tg.manual_seed(recipe.seed)
    if saved is None:
        model = job.model(job.config(**{**sizes, "vocab_size": len(corpus.vocab)}))
        model = model.to(recipe.device)
    else:
        model, _ = restored(job, saved, recipe.device)
    trainer = job.trainer(model, recipe, corpus)
    count = sum(p.numel() for p in model.parameters())
    age = "untrained" if saved is None else f"trained for {saved['trainer']['step']:,} steps"
    yield f"{job.kind}, {count:,} parameters, {age}, on {corpus.text.name}"

    def loss() -> Tensor:
        text = isinstance(trainer, Trainer)
        if text:
            result: Tensor = trainer.loss(*trainer.batches.next())
        else:
            x, y = next(trainer.draw(1))
            result = model(x, y)[1]
        return result

    rate = recipe.learning_rate
    found = diagnose(
        model, loss, rate, optimizer_of(model, recipe), len(corpus.vocab), steps,
        (1e-3 * rate, 1e2 * rate),
    )  # fmt: skip
    for finding in found.findings:
        yield str(finding)
    files = found.save(out_dir)
    if isinstance(job, TextJob):
        files.append(Path(out_dir) / "attention.png")
        length = min(SAMPLE, model.config.block_size)
        text = corpus.vocab.decode(corpus.ids["val"][:length])
        visualize_attention(model, text, corpus.vocab, files[-1])
    yield f"wrote {', '.join(map(str, files))}"


def optimizer_of(model: Any, recipe: Any) -> Any:
    """What the recipe trains with: AdamW for texts, plain descent for words."""
    if not hasattr(recipe, "beta1"):
        return optim.SGD

    def adamw(parameters: Iterable[Tensor]) -> Any:
        groups = decay_groups(model, recipe.weight_decay)
        return optim.AdamW(groups, betas=(recipe.beta1, recipe.beta2))

    return adamw
