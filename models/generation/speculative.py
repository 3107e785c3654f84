"""A small model drafts; the large one reads the draft at once and keeps what it might have written.

Leviathan et al. 2023: the text is distributed as if the large model had written it alone."""

from __future__ import annotations

from collections.abc import Iterator

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import Tensor
from tensorgrad.models.generation.reader import Reader
from tensorgrad.models.generation.sampling import Step, Task


def speculative_steps(task: Task) -> Iterator[Step]:
    """The steps of `sampling.steps` for one row, several for each pass of the large model."""
    reader, draft = task.reader(task.model), task.reader(task.draft)
    text = task.idx
    unread = text  # by the large model
    written = 0
    while written < task.new:
        room = [r.window - text.shape[1] for r in (reader, draft) if r.window is not None]
        if written and task.config.past_window == "stop" and reader.beyond(text.shape[1]):
            task.stopping.close("window")
            return
        count = max(0, min([task.config.num_assistant_tokens, task.new - written - 1, *room]))
        guesses, chances = drafted(task, draft, text, count)
        logits = reader.read(tg.cat([unread, guesses], dim=1), guesses.shape[1] + 1)[0]
        for i, (token, scores) in enumerate(verdicts(task, text, logits, guesses, chances)):
            text = tg.cat([text, token], dim=1)
            written += 1
            task.stopping.see(token[:, 0])
            yield Step(token, logits[i, None], scores)
            if not task.stopping.open:
                return
        kept = text.shape[1] - 1  # all but the last token, which neither has read
        reader.crop(min(kept, reader.ids.shape[1]))
        draft.crop(min(kept, draft.ids.shape[1]))
        unread = text[:, reader.ids.shape[1] :]
    task.stopping.close("length")


def drafted(task: Task, draft: Reader, text: Tensor, count: int) -> tuple[Tensor, list[Tensor]]:
    """Up to `count` tokens that the draft model would write, (1, n), and its scores for each."""
    tokens, scores = text[:, draft.ids.shape[1] :], []
    ids = text
    for _ in range(count):
        logits = draft.read(tokens)[:, -1]
        scores.append(task.processed(logits, ids, None))
        tokens = task.choose(scores[-1])
        ids = tg.cat([ids, tokens], dim=1)
    return ids[:, text.shape[1] :], scores


def verdicts(
    task: Task, text: Tensor, logits: Tensor, guesses: Tensor, drafts: list[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """The guesses that the large model keeps, then a token of its own; with its scores for each.

    A guess that the draft draws with probability q and the large model with p is kept with
    probability min(1, p / q); what takes its place is drawn in proportion to max(p - q, 0).
    """
    for i, draft in enumerate(drafts):
        guess = guesses[:, i, None]  # (1, 1)
        scores = task.processed(logits[i, None], text, None)
        if not task.config.draws:
            token = task.choose(scores)
            yield token, scores
            if token.item() != guess.item():
                return
        else:
            p, q = F.softmax(scores, -1), F.softmax(draft, -1)
            u = tg.rand(1, dtype=p.dtype, device=p.device, generator=task.generator)
            if (u * q.gather(-1, guess) >= p.gather(-1, guess)).item():
                rest = (p - q).clamp(min=0)
                rest = rest if rest.sum().item() > 0 else p  # where they differ by rounding alone
                yield tg.multinomial(rest, 1, generator=task.generator), scores
                return
            yield guess, scores
        text = tg.cat([text, guess], dim=1)
    scores = task.processed(logits[-1, None], text, None)
    yield task.choose(scores), scores


def check(task: Task) -> None:
    """ValueError for what drafting cannot do."""
    B, config = len(task.idx), task.config
    if B > 1 or config.num_beams > 1 or config.num_return_sequences > 1:
        raise ValueError(
            f"generate: a draft model helps to write one text, not {B} rows with num_beams="
            f"{config.num_beams} and num_return_sequences={config.num_return_sequences}"
        )
    sizes = [model.config.vocab_size for model in (task.model, task.draft)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"generate: the draft model's vocabulary of {sizes[1]} is not the model's of {sizes[0]}"
        )
