"""One token after another, each chosen given all before it: greedy or drawn, for rows at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import Tensor
from tensorgrad.models.generation.config import GenerationConfig
from tensorgrad.models.generation.filters import banned, filtered, penalised
from tensorgrad.models.generation.reader import Reader
from tensorgrad.models.generation.stopping import Stopping
from tensorgrad.models.modes import evaluating

Processor = Callable[[Tensor, Tensor], Tensor]
"""A user's own step between the model and the draw: (ids (R, T), logits (R, V)) -> (R, V)."""


@dataclass
class Task:
    """All that a way of generating needs to know, checked against the model and the prompt."""

    model: Any
    idx: Tensor  # (B, T), on the model's device
    config: GenerationConfig
    mask: Tensor | None  # (B, T), 0 where a row is padded; None if no row is
    ends: tuple[int, ...]
    pad: int
    new: int  # tokens to write, at most
    stopping: Stopping
    generator: Any = None
    processors: Sequence[Processor] = ()
    draft: Any = None

    @property
    def prompt(self) -> int:
        """The length of the prompt."""
        return self.idx.shape[1]

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The models in evaluation mode, for the length of a with-block."""
        with ExitStack() as modes:
            for model in (self.model, self.draft):
                if model is not None:
                    modes.enter_context(evaluating(model))
            yield

    def reader(self, model: Any) -> Reader:
        """A reader of rows like the prompt's, with room for all of the text."""
        B, T = self.idx.shape
        return Reader(model, B, self.mask, T + self.new, self.config.use_cache)

    def processed(self, logits: Tensor, ids: Tensor, real: Tensor | None) -> Tensor:
        """The logits (R, V) after ids (R, T), penalised, and filtered if they are drawn from."""
        if self.config.num_beams > 1:
            logits = F.log_softmax(logits, -1)
        logits = penalised(logits, ids, self.prompt, self.config, real)
        if self.ends and ids.shape[1] - self.prompt < self.config.least(self.prompt):
            logits = banned(logits, self.ends)
        for processor in self.processors:
            logits = processor(ids, logits)
        return filtered(logits, self.config) if self.config.draws else logits

    def choose(self, processed: Tensor) -> Tensor:
        """A token for each row of processed logits, (R, V) -> (R, 1)."""
        if self.config.draws:
            return chosen(processed, self.generator)
        likeliest: Tensor = processed.argmax(-1, keepdim=True)
        return likeliest


class Step(NamedTuple):
    """What a step writes: a token for each row, and what it was chosen from."""

    tokens: Tensor  # (R, 1); pad in rows that have ended
    logits: Tensor  # (R, V), the model's own
    scores: Tensor  # (R, V), after penalties and filters


def chosen(logits: Tensor, generator: Any = None) -> Tensor:
    """A draw from softmax(logits) in each row, (R, V) -> (R, 1): PyTorch's, for the same seed."""
    drawn: Tensor = tg.multinomial(F.softmax(logits, -1), 1, generator=generator)
    return drawn


def steps(task: Task) -> Iterator[Step]:
    """The steps of greedy search or sampling, until every row has ended."""
    stopping, reader = task.stopping, task.reader(task.model)
    many = task.config.num_return_sequences
    tokens = task.idx
    for i in range(task.new):
        if i and task.config.past_window == "stop" and reader.beyond(reader.ids.shape[1] + 1):
            stopping.close("window")
            return
        logits = reader.read(tokens)[:, -1]  # (R, V)
        if i == 0 and many > 1:  # they share the reading of the prompt
            rows = [row for row in range(len(task.idx)) for _ in range(many)]
            reader.reorder(rows)
            logits = logits[rows]
        scores = task.processed(logits, reader.ids, reader.real)
        tokens = task.choose(scores)
        going = stopping.going()
        if not all(going):
            open_rows = tg.tensor(going, device=tokens.device)[:, None]
            tokens = tg.where(open_rows, tokens, tg.full_like(tokens, task.pad))
        stopping.see(tokens[:, 0])
        yield Step(tokens, logits, scores)
        if not stopping.open:
            return
    stopping.close("length")
