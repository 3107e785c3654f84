"""A training job: data in; losses, a picture, a checkpoint and a sample out; later, more samples.

What differs between models of characters, words and tokens: char_lm.py, word_lm.py, token_lm.py.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import tensorgrad as tg
from tensorgrad import distributed as dist
from tensorgrad import nn
from tensorgrad.models.settings import Option, Settings, divided
from tensorgrad.models.training.ema import EMA
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.logs import check_loggers
from tensorgrad.models.training.picture import plot_losses
from tensorgrad.models.training.run import Run, throughput
from tensorgrad.models.training.together import device_here, is_chief, shared
from tensorgrad.rng import Generator
from tensorgrad.serialization import CheckpointError

History = list[dict[str, Any]]


@dataclass(frozen=True)
class Job(ABC):
    """How one model of the ladder is trained.

    word: what the command line calls it; kind: what its checkpoints do; about: a line of help.
    config, recipe: the settings, and `defaults` where a model's differ from theirs; presets: named
    settings on top of the defaults.
    """

    reads: ClassVar[str]
    """What `--data` may be, and what serves without it."""

    unit: ClassVar[str] = "character"
    """What the model predicts one after the other."""

    unasked: ClassVar[tuple[str, ...]] = ()
    """Settings that the command line leaves out, since the data decide."""

    aliases: ClassVar[tuple[Option, ...]] = ()
    """Other names of settings, for the command line."""

    log10: ClassVar[bool] = False
    """Whether the picture's height is the logarithm of the loss."""

    writes_text: ClassVar[bool] = False
    """Whether samples go on without end, as texts do, and not word by word."""

    word: str
    kind: str
    about: str
    model: Any
    config: type[Settings]
    recipe: type[Settings]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def named(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Settings under their own names."""
        return dict(given)

    def settings(
        self, given: Mapping[str, Any], preset: str | None = None, fresh: bool = True
    ) -> dict[str, Any]:
        """The defaults, the preset on top, and on top what is given.

        fresh: not those of a checkpoint, with what is given on top.
        """
        if preset is not None and preset not in self.presets:
            raise ValueError(
                f"{self.word} has no preset {preset!r}; "
                + (f"there is {' and '.join(self.presets)}" if self.presets else "it has none")
            )
        return {**self.defaults, **self.presets.get(preset or "", {}), **given}

    @abstractmethod
    def corpus(self, data: Any, recipe: Any) -> Any:
        """The data, with `text` and `vocab`: of a file, of a source that has a name, or default."""

    @abstractmethod
    def trainer(self, model: Any, recipe: Any, corpus: Any) -> Any:
        """With steps(), state(), load_state() and `step`.  ValueError for too little data."""

    @abstractmethod
    def introduction(self, corpus: Any, model: Any, recipe: Any) -> Iterator[str]:
        """What is trained, on what, and what is to be beaten."""

    @abstractmethod
    def plan(self, trainer: Any, recipe: Any) -> Iterator[str]:
        """How many steps, of what, where."""

    def finish(self, trainer: Any) -> tuple[dict[str, float], dict[str, Any]]:
        """After the last step: losses that replace the last evaluation's, and final buffers."""
        return {}, {}

    @abstractmethod
    def conclusion(self, last: dict[str, Any], corpus: Any, seconds: float) -> Iterator[str]:
        """What came of it."""

    @abstractmethod
    def marks(self, corpus: Any) -> dict[str, float]:
        """Losses to compare with, by name."""

    @abstractmethod
    def vocabulary(self, saved: Mapping[str, Any]) -> Any:
        """The vocabulary of a checkpoint."""

    @abstractmethod
    def write(
        self, model: Any, vocab: Any, generator: Any, start: str | None = None,
        count: int | None = None, length: int | None = None, temperature: float | None = None,
        top_k: int | None = None,
    ) -> str:  # fmt: skip
        """`count` samples of up to `length` characters that begin with `start`."""

    @abstractmethod
    def sample(self, model: Any, vocab: Any, recipe: Any, generator: Any) -> str:
        """The sample at the end of a run."""

    def scored(self, model: Any, vocab: Any, word: str) -> str:
        """How likely the model finds a word, in a sentence; ValueError from models of text."""
        raise ValueError(f"a {self.kind} writes text and scores no words; leave out --score")

    def configured(self, sizes: Mapping[str, Any], corpus: Any) -> Any:
        """The model's settings, for the vocabulary of the corpus."""
        return self.config(**{**sizes, "vocab_size": len(corpus.vocab)})

    def begun(self, sizes: Mapping[str, Any], corpus: Any, recipe: Any) -> Any:
        """The model that a run begins with."""
        return self.made(self.configured(sizes, corpus), recipe, True)

    def made(self, config: Any, recipe: Any, fresh: bool) -> Any:
        """The model.  fresh: its weights are those that training begins with, not to be loaded."""
        return self.model(config)

    def command(self) -> str:
        """What resumes a run of this job."""
        return f"tensorgrad train {self.word}"


def train(
    job: Job,
    given: Mapping[str, Any] | None = None,
    data: str | os.PathLike[str] | None = None,
    out_dir: str | os.PathLike[str] = "out",
    resume: bool | str = False,
    preset: str | None = None,
) -> History:
    """Train on a file, or on what Python brings along; returns what each step told.

    given: settings other than the defaults or, with `resume`, other than those of the checkpoint in
    out_dir.  resume: True, the name of a checkpoint in out_dir, or "auto": if there is one, and
    of a run that is at its end what follows the last step.
    Whatever cannot be raises before a file is touched.  Under mpirun all processes call this; they
    share the work, and the first one prints and writes.
    """
    if dist.is_launched():
        dist.init_process_group()
    folder = RunFolder(out_dir, is_chief())
    name = checkpoint_named(folder, resume)
    saved = None if name is None else shared(folder.load(job.kind, name) if is_chief() else None)
    if saved is not None:
        data = saved["text"]["path"] if data is None else data
        before = {**saved["config"], **saved["recipe"]}
        given = job.settings({**before, **job.named(given or {})}, None, False)
    else:
        given = job.settings(given or {}, preset)
    sizes, rates = divided(given, job.config, job.recipe)
    recipe: Any = job.recipe(**rates)
    check_loggers(getattr(recipe, "log", ""))
    tg.empty(0, device=recipe.device)  # which says at once why there is no such device
    here = replace(recipe, device=device_here(recipe.device))

    corpus = job.corpus(data, recipe)
    tg.manual_seed(recipe.seed)
    fresh = saved is None
    model = (
        job.begun(sizes, corpus, here)
        if fresh
        else job.made(job.configured(sizes, corpus), here, False)
    ).to(here.device)
    config = model.config
    if dist.get_rank():  # dropout of its own; the weights are the first process's
        tg.manual_seed(recipe.seed + dist.get_rank())
    trainer = job.trainer(model, here, corpus)
    for line in (*job.introduction(corpus, model, recipe), *job.plan(trainer, recipe)):
        say(line)
    if saved is not None:
        continue_from(saved, trainer, job, corpus, config)
        if trainer.step >= recipe.max_iters and resume != "auto":
            raise ValueError(
                f"nothing to do: the checkpoint is at step {trainer.step} of max_iters "
                f"{recipe.max_iters}; a larger --max_iters goes on"
            )
        folder.resume(trainer.step, name)
        say(f"resuming after step {trainer.step}")
    elif (earlier := folder.begin()) is not None:
        say(f"an earlier run is kept in {earlier}")

    where = None if corpus.path is None else os.path.abspath(corpus.path)
    about = {
        "kind": job.kind,
        "config": config.to_dict(),
        "recipe": recipe.to_dict(),
        "vocab": corpus.vocab.to_dict(),
        "text": {"path": where, "name": corpus.text.name, "sha256": corpus.text.sha256},
    }

    def written() -> str | None:
        """A sample in the midst of training, which it does not disturb."""
        if not getattr(recipe, "eval_sample", 0):
            return None
        generator = Generator(here.device).manual_seed(recipe.seed)
        with trainer.averaged():
            return job.write(model, corpus.vocab, generator, length=recipe.eval_sample)

    Run(trainer, folder, about, job.command(), written).go(fresh)
    final, buffers = job.finish(trainer)
    if buffers:
        folder.save({**about, "trainer": trainer.state(), "buffers": buffers})
        model.load_state_dict({**model.state_dict(), **as_tensors(buffers)})
    if not is_chief():
        return []

    history = folder.history()
    history[-1].update(final)
    plot_losses(history, job.marks(corpus), folder.picture, job.kind, job.unit, job.log10)
    for line in job.conclusion(history[-1], corpus, sum(s.get("seconds", 0) for s in history)):
        say(line)
    say(throughput(history, job.unit))
    say(f"wrote {folder.checkpoint}, {folder.losses}, {folder.picture}")
    generator = Generator(here.device).manual_seed(recipe.seed)
    with getattr(trainer, "averaged", nullcontext)():
        say(f"a sample:\n\n{job.sample(model, corpus.vocab, recipe, generator)}\n")
    say(f"more of it: tensorgrad sample --out_dir {out_dir}")
    return history


def say(text: str) -> None:
    """Print, once for all processes."""
    if is_chief():
        print(text, flush=True)


def checkpoint_named(folder: RunFolder, resume: bool | str) -> str | None:
    """The name of the checkpoint to go on from, as the first process sees it; None to begin."""
    if resume == "auto":
        name: str | None = shared(folder.newest() if is_chief() else None)
        return name
    return (folder.checkpoint.name if resume is True else resume) or None


def continue_from(
    saved: Mapping[str, Any], trainer: Any, job: Job, corpus: Any, config: Settings
) -> None:
    """Put the trainer where the checkpoint's was; ValueError where that cannot be."""
    if job.vocabulary(saved) != corpus.vocab:
        raise CheckpointError(
            f"the checkpoint learnt the {job.unit}s of {saved['text']['name']!r}, and those of "
            f"{corpus.text.name!r} are others; resume with the same --data, or train anew"
        )
    before = job.config.from_dict(saved["config"]).to_dict()
    for name, size in config.to_dict().items():
        if size != before[name]:
            raise ValueError(
                f"the checkpoint's model has {name} {before[name]}, so it cannot go on "
                f"with {size}; leave the option out, or train anew without --resume"
            )
    trainer.load_state(saved["trainer"])
    if saved["text"]["sha256"] != corpus.text.sha256:
        say("note: this is not the text that the checkpoint was trained on until now")


def restored(job: Job, saved: Mapping[str, Any], device: str = "cpu") -> tuple[Any, Any]:
    """The model of a checkpoint, in evaluation mode, and its vocabulary.

    Its weights are the average over the steps, where the run made one.
    """
    recipe = job.recipe.from_dict(saved["recipe"])
    model: nn.Module = job.made(job.config.from_dict(saved["config"]), recipe, False)
    state = saved["trainer"]
    model.load_state_dict({**state["model"], **saved.get("buffers", {})})
    if state.get("average"):
        average = EMA(model, 0.0)
        average.load_state(state["average"])
        average.put()
    return model.to(device).eval(), job.vocabulary(saved)


def as_tensors(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors in the place of arrays."""
    return {name: tg.from_numpy(array) for name, array in arrays.items()}
