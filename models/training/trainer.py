"""The loop: a batch, the loss, its gradient, a clipped step of AdamW; now and then an estimate on fixed batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.data import random_windows
from tensorgrad.models.training.recipe import Recipe
from tensorgrad.random import generator_for
from tensorgrad.rng import Generator
from tensorgrad.tensor import Tensor


@dataclass
class Step:
    """What one step reports: losses in nats per character, the gradient's norm before clipping, seconds."""

    step: int
    loss: float
    lr: float
    grad_norm: float
    seconds: float
    train_loss: float | None = None
    val_loss: float | None = None


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases, norms and other vectors do not."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


class Trainer:
    """Trains a model whose forward(x, y) gives (logits, loss) on windows of two rows of ids."""

    def __init__(self, model: nn.Module, recipe: Recipe, train: Any, val: Any) -> None:
        self.model, self.recipe, self.train_ids, self.val_ids = model, recipe, train, val
        self.optimizer = optim.AdamW(
            decay_groups(model, recipe.weight_decay), lr=recipe.learning_rate, betas=(recipe.beta1, recipe.beta2)
        )
        self.schedule = optim.lr_scheduler.WarmupCosineLR(
            self.optimizer, min(recipe.warmup_iters, max(recipe.max_iters - 1, 0)), recipe.max_iters, recipe.min_lr
        ) if recipe.decay_lr else None  # fmt: skip
        self.batches = Generator("cpu").manual_seed(recipe.seed)
        self.step = 0
        self.best = float("inf")

    def batch(self) -> tuple[Tensor, Tensor]:
        x, y = random_windows(self.train_ids, self.recipe.block_size, self.recipe.batch_size, self.batches)
        return self._tensors(x, y)

    def _tensors(self, x: Any, y: Any) -> tuple[Tensor, Tensor]:
        return tg.from_numpy(x).to(self.recipe.device), tg.from_numpy(y).to(self.recipe.device)

    @tg.no_grad()
    def estimate_loss(self) -> tuple[float, float]:
        """(train, val): the mean loss over eval_iters batches, the same ones every time, apart from the training stream."""
        self.model.eval()
        means = []
        for ids in (self.train_ids, self.val_ids):
            draws = Generator("cpu").manual_seed(self.recipe.seed + 1)
            losses = []
            for _ in range(self.recipe.eval_iters):
                x, y = random_windows(ids, self.recipe.block_size, self.recipe.batch_size, draws)
                losses.append(self.model(*self._tensors(x, y))[1].item())
            means.append(float(np.mean(losses)))
        self.model.train()
        return means[0], means[1]

    def take_step(self) -> Step:
        """One step of the recipe."""
        began = time.perf_counter()
        x, y = self.batch()
        _, loss = self.model(x, y)
        self.optimizer.zero_grad()
        loss.backward()
        limit = self.recipe.grad_clip or float("inf")
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        lr = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        self.step += 1
        return Step(self.step, loss.item(), lr, norm.item(), time.perf_counter() - began)

    def run(self, on_eval: Callable[[Step], None] = lambda step: None) -> Iterator[Step]:
        """The steps from here to max_iters; those that are evaluated carry the losses of both splits."""
        while self.step < self.recipe.max_iters:
            step = self.take_step()
            if not np.isfinite(step.loss):
                raise FloatingPointError(
                    f"the loss became {step.loss} at step {step.step}; lower --learning_rate, or look where it was "
                    "born with tensorgrad.autograd.detect_anomaly()"
                )
            if self.step % self.recipe.eval_interval == 0 or self.step == self.recipe.max_iters:
                step.train_loss, step.val_loss = self.estimate_loss()
                self.best = min(self.best, step.val_loss)
                on_eval(step)
            yield step

    # ---- state: all that a run needs to go on as if it had not stopped

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "best": self.best if np.isfinite(self.best) else None,
            "model": {k: v.array for k, v in self.model.state_dict().items()},
            "optimizer": _arrays(self.optimizer.state_dict()),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "batches": self.batches.get_state(),
            "generator": generator_for("cpu").get_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict({k: Tensor(v) for k, v in state["model"].items()})
        self.optimizer.load_state_dict(_tensors(state["optimizer"]))
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.batches.set_state(state["batches"])
        generator_for("cpu").set_state(state["generator"])
        self.step = state["step"]
        self.best = float("inf") if state["best"] is None else state["best"]


def _arrays(tree: Any) -> Any:
    """Tensors as arrays, the integer keys of an optimizer's state as strings."""
    if isinstance(tree, Tensor):
        return tree.detach().cpu().array
    if isinstance(tree, dict):
        return {str(k): _arrays(v) for k, v in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_arrays(v) for v in tree]
    return tree


def _tensors(tree: Any) -> Any:
    if isinstance(tree, np.ndarray):
        return Tensor(tree)
    if isinstance(tree, dict):
        return {int(k) if k.isdigit() else k: _tensors(v) for k, v in tree.items()}
    return [_tensors(v) for v in tree] if isinstance(tree, list) else tree
