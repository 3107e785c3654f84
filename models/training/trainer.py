"""The training loop of models of text: a batch, its loss, the gradient, a clipped step of AdamW."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import tensorgrad as tg
from tensorgrad import Tensor, nn, optim
from tensorgrad.models.modes import evaluating
from tensorgrad.models.training.recipe import Recipe
from tensorgrad.optim import lr_scheduler
from tensorgrad.random import generator_for
from tensorgrad.rng import Generator
from tensorgrad.tree import map_tree

Draw = Callable[[str, Generator], tuple[Any, Any]]
"""draw(split, generator) -> x, y: a random batch of "train" or "val", two arrays of integers."""


@dataclass
class Step:
    """What a step tells; losses are in nats a token, grad_norm is before clipping."""

    step: int
    loss: float
    grad_norm: float | None
    lr: float
    seconds: float
    tokens: int
    train_loss: float | None = None
    val_loss: float | None = None


class Trainer:
    """Trains a model whose forward(x, y) gives (output, mean loss) on batches that `draw` makes.

    Batches come from a generator of their own, so neither dropout nor sampling moves them.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, draw: Draw) -> None:
        self.model, self.recipe, self.draw = model, recipe, draw
        self.optimizer = optim.AdamW(
            decay_groups(model, recipe.weight_decay),
            lr=recipe.learning_rate,
            betas=(recipe.beta1, recipe.beta2),
        )
        warmup = min(recipe.warmup_iters, recipe.max_iters - 1)
        self.schedule: lr_scheduler.LRScheduler = (
            lr_scheduler.WarmupCosineLR(self.optimizer, warmup, recipe.max_iters, recipe.min_lr)
            if recipe.decay_lr
            else lr_scheduler.LRScheduler(self.optimizer)
        )
        self.batches = Generator("cpu").manual_seed(recipe.seed)
        self.step = 0

    def steps(self) -> Iterator[Step]:
        """The steps from here to max_iters; every eval_interval-th, and the last, is evaluated."""
        last = self.recipe.max_iters
        while self.step < last:
            step = self.take_step()
            if self.step % self.recipe.eval_interval == 0 or self.step == last:
                losses = self.estimate_loss()
                step.train_loss, step.val_loss = losses["train"], losses["val"]
            yield step

    def take_step(self) -> Step:
        """One step; FloatingPointError, and no weight changed, where the gradient is not finite."""
        began, lr = time.perf_counter(), self.schedule.get_last_lr()[0]
        x, y = self.batch("train", self.batches)
        _, loss = self.model(x, y)
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(
            self.model.parameters(), self.recipe.grad_clip or math.inf
        ).item()
        if not math.isfinite(loss.item() + norm):
            raise FloatingPointError(
                f"at step {self.step + 1} the loss is {loss.item()}, the gradient's norm {norm}; "
                "take a lower learning_rate, or let autograd.detect_anomaly() name the op"
            )
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        return Step(self.step, loss.item(), norm, lr, time.perf_counter() - began, y.numel())

    @tg.no_grad()
    def estimate_loss(self) -> dict[str, float]:
        """The mean loss of eval_iters batches of each split, the same batches every time.

        They come from a generator seeded for the purpose: the training stream stays where it was.
        """
        means = {}
        with evaluating(self.model):
            for split in ("train", "val"):
                generator = Generator("cpu").manual_seed(self.recipe.seed + 1)
                batches = (self.batch(split, generator) for _ in range(self.recipe.eval_iters))
                losses = [self.model(x, y)[1].item() for x, y in batches]
                means[split] = math.fsum(losses) / len(losses)
        return means

    def batch(self, split: str, generator: Generator) -> tuple[Tensor, Tensor]:
        x, y = (tg.from_numpy(ids).to(self.recipe.device) for ids in self.draw(split, generator))
        return x, y

    def state(self) -> dict[str, Any]:
        """What `load_state` needs to go on as if nothing had happened: arrays and numbers.

        Weights, moments, the place in the stream of batches, the generators of dropout.  Rates and
        betas are not state: the recipe has them, and one that has changed is obeyed.
        """
        return {
            "step": self.step,
            "model": arrays(self.model.state_dict()),
            "moments": arrays(self.optimizer.state_dict()["state"]),
            **streams(self.batches, self.recipe.device),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a `state`.  RuntimeError or ValueError where it is another model's."""
        groups = self.optimizer.state_dict()["param_groups"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict({"state": state["moments"], "param_groups": groups})
        load_streams(state, self.batches, self.recipe.device)
        self.step = state["step"]
        self.schedule.step(self.step)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases, norms and other vectors do not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def streams(batches: Generator, device: str) -> dict[str, Any]:
    """Where the generators are: that of the batches, and the default ones, which dropout uses."""
    kinds = {"cpu", tg.device(device).type}
    return {
        "batches": batches.get_state(),
        "generators": {kind: generator_for(kind).get_state() for kind in sorted(kinds)},
    }


def load_streams(state: dict[str, Any], batches: Generator, device: str) -> None:
    """Put them there."""
    batches.set_state(state["batches"])
    for kind, saved in state["generators"].items():
        if kind in ("cpu", tg.device(device).type):
            generator_for(kind).set_state(saved)


def arrays(tree: Any) -> Any:
    """The NumPy arrays in the place of the tensors."""
    return map_tree(lambda tensor: tensor.detach().cpu().array, tree)
