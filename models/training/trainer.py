"""The training loop: gradients of a step's batches, a look at them, a clipped step of AdamW.

Alone or on many processes, in one batch or in many: the step is that of the joint batch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import tensorgrad as tg
from tensorgrad import Tensor, nn, optim
from tensorgrad import distributed as dist
from tensorgrad.data.collate import IGNORED
from tensorgrad.models.modes import evaluating
from tensorgrad.models.training.batches import Batches
from tensorgrad.models.training.ema import EMA
from tensorgrad.models.training.guard import Guard, RollBack
from tensorgrad.models.training.objective import loss_of
from tensorgrad.models.training.precision import autocast_for, preferred_dtype
from tensorgrad.models.training.recipe import Recipe
from tensorgrad.models.training.together import (
    agreed,
    generator_states,
    load_generator_states,
    summed,
)
from tensorgrad.nn.parallel import DistributedDataParallel
from tensorgrad.optim import lr_scheduler
from tensorgrad.tree import map_tree


@dataclass
class Step:
    """What a step tells; losses are in nats a token, grad_norm is before clipping.

    skipped: why the weights stayed as they were.  mfu: the share of the machine's peak.
    """

    step: int
    loss: float
    grad_norm: float | None
    lr: float
    seconds: float
    tokens: int
    train_loss: float | None = None
    val_loss: float | None = None
    skipped: str | None = None
    mfu: float | None = None


class Trainer:
    """Trains a model whose forward(x, y) gives (output, mean loss in nats a token).

    Every process has the model whole and its own batches.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, batches: Batches) -> None:
        self.model, self.recipe, self.batches = model, recipe, batches
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.accumulation = recipe.accumulation(batches.tokens, dist.get_world_size())
        self.dtype = preferred_dtype(recipe.device) if recipe.dtype == "auto" else recipe.dtype
        self.optimizer = self.make_optimizer()
        warmup = min(recipe.warmup_iters, recipe.max_iters - 1)
        self.schedule: lr_scheduler.LRScheduler = (
            lr_scheduler.WarmupCosineLR(self.optimizer, warmup, recipe.max_iters, recipe.min_lr)
            if recipe.decay_lr
            else lr_scheduler.LRScheduler(self.optimizer)
        )
        self.ema = EMA(model, recipe.ema_decay) if recipe.ema_decay else None
        self.guard = Guard(recipe.on_nonfinite, recipe.on_spike, recipe.spike_z)
        self.flops = self.peak = 0.0  # a token's operations, and this process's peak in a second
        self.replicas = DistributedDataParallel(model) if dist.get_world_size() > 1 else None
        self.step = 0

    def make_optimizer(self) -> optim.Optimizer:
        """AdamW, whose moments the processes share out where the recipe says so."""
        r = self.recipe
        groups = decay_groups(self.model, r.weight_decay)
        options: dict[str, Any] = {"lr": r.learning_rate, "betas": (r.beta1, r.beta2)}
        if r.zero_stage:
            return dist.ZeroRedundancyOptimizer(groups, optim.AdamW, **options)
        return optim.AdamW(groups, **options)

    # ---- steps

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
        """One step, which counts even where the guard skips it.

        FloatingPointError or RollBack, and no weight changed, where the guard says so.
        """
        began, lr = time.perf_counter(), self.schedule.get_last_lr()[0]
        self.optimizer.zero_grad()
        loss, tokens = self.accumulate()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.recipe.grad_clip or math.inf).item()
        norm = agreed(norm)
        verdict = self.guard.look(loss, norm)
        if verdict is None:
            self.optimizer.step()
            if self.ema is not None:
                self.ema.update()
        elif verdict.action != "skip":
            error = RollBack if verdict.action == "rollback" else FloatingPointError
            raise error(f"at step {self.step + 1} {verdict.reason}")
        self.schedule.step()
        self.step += 1
        if tg.device(self.recipe.device).type == "cuda":
            tg.cuda.synchronize(self.recipe.device)
        seconds = time.perf_counter() - began
        skipped = None if verdict is None else verdict.reason
        size = dist.get_world_size()
        mfu = self.flops * tokens / seconds / self.peak / size if self.peak else None
        return Step(self.step, loss, norm, lr, seconds, tokens, skipped=skipped, mfu=mfu)

    def accumulate(self) -> tuple[float, int]:
        """Leave in .grad the gradient of the mean loss over all targets of the step.

        Each batch weighs as many targets as it has, so the gradient does not depend on how the
        step is cut into batches and processes.  Answers that loss and the tokens of the step.
        """
        batches = [self.batches.next() for _ in range(self.accumulation)]
        counts = [int((y != IGNORED).sum()) for _, y in batches]
        total, size = summed(sum(counts)), dist.get_world_size()
        loss: Any = 0.0
        for i, ((x, y), count) in enumerate(zip(batches, counts, strict=True)):
            with self.travelling(i == self.accumulation - 1):
                with autocast_for(self.recipe.device, self.dtype):
                    part = self.loss(x, y, self.recipe.label_smoothing)
                share = count * size / total  # the processes' gradients are averaged
                part = part if share == 1 else part * share
                part.backward()
            loss = loss + part.detach()
        return agreed(loss.item()), self.accumulation * self.batches.tokens * size

    def travelling(self, last: bool) -> AbstractContextManager[None]:
        """Gradients go to the other processes with the last batch of a step, averaged."""
        return nullcontext() if last or self.replicas is None else self.replicas.no_sync()

    def loss(self, x: Any, y: Any, label_smoothing: float = 0.0) -> Tensor:
        """The mean loss of a batch of arrays."""
        return loss_of(self.model, self.placed(x), self.placed(y), label_smoothing)

    def placed(self, ids: Any) -> Tensor:
        """On the recipe's device."""
        tensor: Tensor = tg.from_numpy(ids).to(self.recipe.device)
        return tensor

    @tg.no_grad()
    def estimate_loss(self) -> dict[str, float]:
        """The mean loss of eval_iters batches of each split, the same batches every time.

        Of the averaged weights, where there is an average.  The training stream stays where it is.
        """
        means = {}
        with evaluating(self.model), self.averaged():
            for split in ("train", "val"):
                table = [[0.0, 0.0] for _ in range(self.recipe.eval_iters)]
                for i, (x, y) in self.batches.fixed(split, len(table)):
                    count = int((y != IGNORED).sum())
                    with autocast_for(self.recipe.device, self.dtype):
                        table[i] = [self.loss(x, y).item() * count, count]
                sums, counts = summed(table).T  # each place was filled by one process
                means[split] = math.fsum(sums) / counts.sum()
        return means

    def averaged(self) -> AbstractContextManager[None]:
        """A block in which the model has the average of its weights, where there is one."""
        return nullcontext() if self.ema is None else self.ema.in_place()

    # ---- states

    def state(self) -> dict[str, Any]:
        """What `load_state` needs to go on as if nothing had happened: arrays and numbers.

        Weights, moments, averages, the place in the data, the generators of dropout; whatever the
        number of processes, which all call this.  Rates and betas are not state: the recipe has
        them, and one that has changed is obeyed.
        """
        return {
            "step": self.step,
            "model": arrays(self.model.state_dict()),
            "moments": arrays(self.optimizer.state_dict()["state"]),
            "average": self.ema.state() if self.ema is not None else {},
            "guard": self.guard.state(),
            "batches": self.batches.state(),
            "generators": generator_states(self.recipe.device),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a `state`.  RuntimeError or ValueError where it is another model's."""
        groups = self.optimizer.state_dict()["param_groups"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict({"state": state["moments"], "param_groups": groups})
        if self.ema is not None:
            self.ema.load_state(state["average"])
        self.guard.load_state(state["guard"])
        self.batches.load_state(state["batches"])
        self.step = state["step"]
        seed = self.recipe.seed + self.step + dist.get_rank()
        load_generator_states(state["generators"], self.recipe.device, seed)
        self.schedule.step(self.step)

    def roll_back(self, state: dict[str, Any]) -> None:
        """Go on from a `state`, with the batches that would have come next."""
        place = self.batches.state()
        self.load_state(state)
        self.batches.load_state(place)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases, norms and other vectors do not.  What is frozen is in neither."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def arrays(tree: Any) -> Any:
    """The NumPy arrays in the place of the tensors."""
    return map_tree(lambda tensor: tensor.detach().cpu().array, tree)
