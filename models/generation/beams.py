"""Beam search: the likeliest texts, of which several are followed at once.  As in transformers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import Tensor
from tensorgrad.models.generation.config import GenerationConfig
from tensorgrad.models.generation.sampling import Task

NEVER = -1e9
"""The score of what is not there; finite, so that it can still be ordered."""


@dataclass(frozen=True)
class Hypothesis:
    """New tokens and the sum of their log-probabilities or, once they have ended, their score."""

    score: float
    tokens: tuple[int, ...] = ()
    reason: str | None = None  # why it ended


@dataclass
class Beams:
    """The hypotheses of one prompt: those that go on, and the best of those that have ended."""

    config: GenerationConfig
    running: list[Hypothesis] = field(init=False)
    ended: list[Hypothesis] = field(default_factory=list)
    done: bool = False

    def __post_init__(self) -> None:
        """At first all are the prompt itself, so only one of them may go on."""
        k = self.config.num_beams
        self.running = [Hypothesis(0.0)] + [Hypothesis(NEVER)] * (k - 1)

    def advance(self, candidates: list[tuple[Hypothesis, int]], most: int) -> list[int]:
        """One step: candidates with the beams that they continue, best first -> those that go on.

        Only the first num_beams may end; the others are there so that num_beams can go on.  `most`
        is the number of new tokens that ends the search.
        """
        k, penalty = self.config.num_beams, self.config.length_penalty
        length = len(candidates[0][0].tokens)
        if not self.done:
            self.ended += [
                Hypothesis(c.score / length**penalty, c.tokens, c.reason)
                for c, _ in candidates[:k]
                if c.reason
            ]
            self.ended = sorted(self.ended, key=lambda c: -c.score)[:k]
        going = sorted(
            ((c.score + (NEVER if c.reason else 0), c, beam) for c, beam in candidates),
            key=lambda entry: -entry[0],
        )[:k]
        self.running = [Hypothesis(score, c.tokens) for score, c, _ in going]
        self.done = self.done or self.settled(length, most)
        return [beam for *_, beam in going]

    def settled(self, length: int, most: int) -> bool:
        """Whether what goes on cannot, or need not, become better than what has ended.

        With early_stopping=False the best running text is judged at its present length, although a
        longer one may score higher; 'never' judges it at the length that suits it best.
        """
        if len(self.ended) < self.config.num_beams:
            return False
        if self.config.early_stopping is True:
            return True
        longest = self.config.early_stopping == "never" and self.config.length_penalty > 0
        best = self.running[0].score / (most if longest else length) ** self.config.length_penalty
        return not best > self.ended[-1].score


def beam_search(task: Task) -> list[list[Hypothesis]]:
    """The num_return_sequences best hypotheses of each prompt, best first."""
    B, k = len(task.idx), task.config.num_beams
    wide = max(2, 1 + len(task.ends)) * k  # enough for k to go on, whatever ends
    beams = [Beams(task.config) for _ in range(B)]
    reader, tokens = task.reader(task.model), task.idx
    for i in range(task.new):
        logits = reader.read(tokens)[:, -1]
        if i == 0:  # all beams of a prompt share its reading
            rows = [b for b in range(B) for _ in range(k)]
            reader.reorder(rows)
            logits = logits[rows]
        full = task.config.past_window == "stop" and reader.beyond(reader.ids.shape[1] + 1)
        limit = "length" if i + 1 == task.new else "window" if full else None
        scores = task.processed(logits, reader.ids, reader.real)  # (B k, V)
        sums = np.array([[h.score for h in beam.running] for beam in beams], scores.dtype)
        sums = tg.tensor(sums, device=scores.device)[:, :, None]  # (B, k, 1)
        scores = (scores.reshape(B, k, -1) + sums).flatten(1)  # (B, k V)
        ranked, chosen = (np.asarray(x.cpu()) for x in best(task, scores, wide))
        rows, last = [], []
        for b, beam in enumerate(beams):
            candidates = []
            for score, at in zip(ranked[b].tolist(), chosen[b].tolist(), strict=True):
                parent, token = divmod(at, scores.shape[1] // k)
                text = (*beam.running[parent].tokens, token)
                reason = task.stopping.reason(list(text)) or limit
                candidates.append((Hypothesis(score, text, reason), parent))
            rows += [b * k + parent for parent in beam.advance(candidates, task.new)]
            last += [h.tokens[-1] for h in beam.running]
        if limit or all(beam.done for beam in beams):
            break
        reader.reorder(rows)
        tokens = tg.tensor(last, device=task.idx.device)[:, None]  # (B k, 1)
    return [beam.ended[: task.config.num_return_sequences] for beam in beams]


def best(task: Task, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`count` continuations of each row, the best or drawn without replacement; best first."""
    count = min(count, scores.shape[1])
    if not task.config.draws:
        top: Any = scores.topk(count)
        return top.values, top.indices
    drawn = tg.multinomial(F.softmax(scores, -1), count, generator=task.generator)
    found: Any = scores.gather(-1, drawn).sort(-1, descending=True)
    return found.values, drawn.gather(-1, found.indices)
