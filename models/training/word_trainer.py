"""The training loops of models of words: plain gradient descent, and counting."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from itertools import repeat
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import Tensor, nn
from tensorgrad.models.count_bigram import CountBigram
from tensorgrad.models.modes import evaluating
from tensorgrad.models.training.recipe import CountRecipe, WordRecipe
from tensorgrad.models.training.together import generator_states, load_generator_states
from tensorgrad.models.training.trainer import Step, arrays
from tensorgrad.rng import Generator

Ids = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Examples = Mapping[str, tuple[Ids, Ids]]
"""For "train", "val" and "test": contexts x (N, T) and the characters y (N) that follow."""

ROWS, DRAWS = 4096, 8192
"""Examples that an evaluation takes at once, and that are drawn at once."""


class WordTrainer:
    """p <- p - lr p.grad, on batch_size examples drawn from the training set, or on all of it.

    The draws are `randint(0, N, (batch_size,))` of a generator of their own: PyTorch's of the same
    seed.  A step of so small a net lasts less than what is told about it would, so steps are told
    log_interval at a time.
    """

    def __init__(self, model: nn.Module, recipe: WordRecipe, examples: Examples) -> None:
        self.model, self.recipe, self.examples = model, recipe, examples
        self.parameters = list(model.parameters())
        self.batches = Generator("cpu").manual_seed(recipe.seed)
        self.step = 0
        x, y = examples["train"]
        self.all = (self.placed(x), self.placed(y)) if not recipe.batch_size else None

    def steps(self) -> Iterator[Step]:
        """Told log_interval steps at a time; every eval_interval-th, and the last, is evaluated."""
        last = self.recipe.max_iters
        while self.step < last:
            to_line, to_evaluation = (
                every - self.step % every
                for every in (self.recipe.log_interval, self.recipe.eval_interval)
            )
            step = self.take_steps(min(to_line, to_evaluation, last - self.step))
            if self.step % self.recipe.eval_interval == 0 or self.step == last:
                losses = self.estimate_loss()
                step.train_loss, step.val_loss = losses["train"], losses["val"]
            yield step

    def take_steps(self, count: int) -> Step:
        """`count` steps and their mean loss; FloatingPointError where it ceases to be finite."""
        began, first, total, seen = time.perf_counter(), self.step, 0.0, 0
        model, parameters, rate = self.model, self.parameters, self.recipe.rate
        for x, y in self.draw(count):
            loss = model(x, y)[1]
            for p in parameters:
                p.grad = None
            loss.backward()
            descend(parameters, rate(self.step))
            total += loss.item()
            seen += len(y)
            self.step += 1
        if not math.isfinite(total):
            raise FloatingPointError(
                f"between steps {first + 1} and {self.step} the loss ceased to be finite; take a "
                "lower learning_rate"
            )
        seconds = time.perf_counter() - began
        return Step(self.step, total / count, None, rate(self.step - 1), seconds, seen)

    def draw(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The next batches.  Many draws at once are the same numbers, and cheaper."""
        if self.all is not None:
            yield from repeat(self.all, count)
            return
        (x, y), size = self.examples["train"], self.recipe.batch_size
        most = max(1, DRAWS // size)
        for done in range(0, count, most):
            at = self.batches.randint(0, len(x), (min(most, count - done), size))
            for a, b in zip(x[at], y[at], strict=True):
                yield self.placed(a), self.placed(b)

    def placed(self, ids: Ids) -> Tensor:
        """On the recipe's device."""
        tensor = tg.from_numpy(ids)
        return tensor if self.recipe.device == "cpu" else tensor.to(self.recipe.device)

    def estimate_loss(self) -> dict[str, float]:
        """The mean loss of the validation set, and of as many examples of the training set."""
        (x, y), (a, b) = self.examples["train"], self.examples["val"]
        n = len(b)
        return {"train": evaluate(self.model, x[:n], y[:n]), "val": evaluate(self.model, a, b)}

    def state(self) -> dict[str, Any]:
        """What `load_state` needs to go on as if nothing had happened: arrays and numbers."""
        return {
            "step": self.step,
            "model": arrays(self.model.state_dict()),
            "batches": self.batches.get_state(),
            "generators": generator_states(self.recipe.device),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a `state`.  RuntimeError where it is another model's."""
        self.model.load_state_dict(state["model"])
        self.batches.set_state(state["batches"])
        load_generator_states(state["generators"], self.recipe.device, self.recipe.seed)
        self.step = state["step"]


def descend(parameters: list[Any], lr: float) -> None:
    """p <- p - lr p.grad, in place; the gradients are used up."""
    for p in parameters:
        g = p.grad.array
        g *= lr
        a = p.array
        a -= g


class CountTrainer:
    """Counts every bigram of the training set, in the one step there is."""

    def __init__(self, model: CountBigram, recipe: CountRecipe, examples: Examples) -> None:
        self.model, self.recipe, self.examples, self.step = model, recipe, examples, 0

    def steps(self) -> Iterator[Step]:
        """One, evaluated."""
        if not self.step:
            began, (x, y) = time.perf_counter(), self.examples["train"]
            self.model.count(x, y)
            self.step = 1
            train, val = (evaluate(self.model, *self.examples[part]) for part in ("train", "val"))
            seconds = time.perf_counter() - began
            yield Step(1, train, None, 0.0, seconds, len(y), train, val)

    def state(self) -> dict[str, Any]:
        """The counts."""
        return {"step": self.step, "model": arrays(self.model.state_dict())}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.model.load_state_dict(state["model"])
        self.step = state["step"]


@tg.no_grad()
def evaluate(model: nn.Module, x: Ids, y: Ids, rows: int = ROWS) -> float:
    """The mean of -ln p(y | x) over all examples in nats, in evaluation mode and without a graph.

    Summed in float64: float32 loses the fourth digit of a mean over 200,000.
    """
    device = next(iter((*model.parameters(), *model.buffers()))).device
    sums = []
    with evaluating(model):
        for i in range(0, len(y), rows):
            a, b = (tg.from_numpy(ids[i : i + rows]).to(device) for ids in (x, y))
            sums.append(model(a, b)[1].item() * len(b))
    return math.fsum(sums) / len(y)
