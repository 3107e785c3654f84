"""The recipe of a training run, under nanoGPT's names."""

from __future__ import annotations

from dataclasses import dataclass

from tensorgrad.models.settings import Settings, setting


@dataclass(frozen=True)
class Recipe(Settings):
    """How a model is trained: batches, steps, learning rate, what is told and when.

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
    seed: int = setting(1337, "seed of weights, batches and dropout")
    device: str = setting("cpu", "cpu or cuda")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay_lr and self.min_lr > self.learning_rate:
            raise ValueError(
                f"min_lr is where the learning rate ends, so it is at most learning_rate; they are "
                f"{self.min_lr} and {self.learning_rate}"
            )
