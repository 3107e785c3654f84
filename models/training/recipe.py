"""The recipes of training runs, under nanoGPT's names."""

from __future__ import annotations

from dataclasses import dataclass

from tensorgrad.models.settings import Settings, setting


@dataclass(frozen=True)
class Recipe(Settings):
    """How a model of text is trained: batches, steps, learning rate, what is told and when.

    The defaults train the default char GPT in about two minutes on two cores.
    """

    batch_size: int = setting(12, "windows of text in a step", least=1)
    max_iters: int = setting(2000, "steps", least=1)
    learning_rate: float = setting(1e-3, "AdamW's rate after the warm-up", least=0)
    min_lr: float = setting(1e-4, "the rate at the end", least=0)
    warmup_iters: int = setting(100, "steps of linear warm-up, fewer in a shorter run", least=0)
    decay_lr: bool = setting(True, "warm up, then lower the rate along a cosine")
    weight_decay: float = setting(0.1, "AdamW's decay, of matrices only", least=0)
    beta1: float = setting(0.9, "AdamW's memory of gradients", least=0, below=1)
    beta2: float = setting(0.99, "AdamW's memory of their squares", least=0, below=1)
    grad_clip: float = setting(1.0, "largest norm of the gradient; 0 for any", least=0)
    eval_interval: int = setting(250, "steps between evaluations, each with a checkpoint", least=1)
    eval_iters: int = setting(20, "batches of either split in an evaluation", least=1)
    log_interval: int = setting(1, "steps between lines where there is no terminal", least=1)
    sample_length: int = setting(500, "characters of the sample at the end", least=0)
    eval_sample: int = setting(0, "characters of a sample at each evaluation before it", least=0)
    seed: int = setting(1337, "seed of weights, batches and dropout")
    device: str = setting("cpu", "cpu or cuda")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay_lr and self.min_lr > self.learning_rate:
            raise ValueError(
                f"min_lr is where the learning rate ends, so it is at most learning_rate; they are "
                f"{self.min_lr} and {self.learning_rate}"
            )


@dataclass(frozen=True)
class WordRecipe(Settings):
    """How a model of words is trained: plain gradient descent, p <- p - learning_rate p.grad."""

    batch_size: int = setting(32, "examples in a step; 0 for the whole training set", least=0)
    max_iters: int = setting(200_000, "steps", least=1)
    learning_rate: float = setting(0.1, "the rate at first", least=0)
    min_lr: float = setting(0.01, "the rate at the end", least=0)
    lr_decay_at: float = setting(0.5, "share of the steps before the rate falls to min_lr", least=0)
    decay_at_once: bool = setting(True, "it falls in one step; else along an exponential")
    eval_interval: int = setting(10_000, "steps between evaluations, with a checkpoint", least=1)
    log_interval: int = setting(1000, "steps between lines, each with their mean loss", least=1)
    sample_words: int = setting(20, "words of the sample at the end", least=0)
    seed: int = setting(1337, "seed of weights, batches and sample")
    split_seed: int = setting(42, "seed of the split into 80 % training, 10 % and 10 %")
    device: str = setting("cpu", "cpu or cuda")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lr_decay_at > 1:
            raise ValueError(f"lr_decay_at is a share, at most 1; it is {self.lr_decay_at}")
        if not self.decay_at_once and not (self.learning_rate > 0 and self.min_lr > 0):
            raise ValueError(
                "an exponential never reaches 0; take a learning_rate and min_lr above it, or "
                "decay_at_once"
            )

    def rate(self, step: int) -> float:
        """The learning rate of a step, the first being 0."""
        begin = self.lr_decay_at * self.max_iters
        if step < begin:
            return self.learning_rate
        if self.decay_at_once:
            return self.min_lr
        share = (step - begin) / (self.max_iters - begin)
        return float(self.learning_rate * (self.min_lr / self.learning_rate) ** share)


@dataclass(frozen=True)
class CountRecipe(Settings):
    """How words are counted: all in one step."""

    sample_words: int = setting(20, "words of the sample at the end", least=0)
    seed: int = setting(1337, "seed of the sample")
    split_seed: int = setting(42, "seed of the split into 80 % training, 10 % and 10 %")
    device: str = setting("cpu", "cpu or cuda")
    max_iters: int = 1
    log_interval: int = 1
