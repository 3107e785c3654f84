"""Text from a language model: one token after another, each chosen given the last ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import Tensor
from tensorgrad.models.generation import filters
from tensorgrad.models.generation.beams import beam_search
from tensorgrad.models.generation.config import GenerationConfig
from tensorgrad.models.generation.reader import Reader, window
from tensorgrad.models.generation.sampling import Processor, Step, Task, chosen, steps
from tensorgrad.models.generation.speculative import check as check_draft
from tensorgrad.models.generation.speculative import speculative_steps
from tensorgrad.models.generation.stopping import Stopping

__all__ = [
    "GenerationConfig",
    "GenerationOutput",
    "Reader",
    "draw",
    "filters",
    "generate",
    "stream",
]


@dataclass
class GenerationOutput:
    """What `generate(..., return_dict_in_generate=True)` answers; R rows, N new tokens.

    sequences (R, T + N): the prompt and what follows.  finish_reasons: for each row "eos", "stop"
    (a stop string), "length" or "window".  logprobs (R, N): log p of each token under the model
    itself, 0 after a row's end; None from beam search.  sequences_scores (R): of beam search, what
    it ranks by.  scores: with output_scores, the logits (R, V) of each step after penalties and
    filters.
    """

    sequences: Tensor
    finish_reasons: list[str]
    logprobs: Tensor | None = None
    sequences_scores: Tensor | None = None
    scores: tuple[Tensor, ...] = ()


@tg.no_grad()
def generate(
    model: Any,
    idx: Tensor | None = None,
    max_new_tokens: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: Any = None,
    *,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    streamer: Any = None,
    tokenizer: Any = None,
    assistant_model: Any = None,
    logits_processor: Processor | Sequence[Processor] = (),
    generation_config: GenerationConfig | None = None,
    return_dict_in_generate: bool = False,
    **options: Any,
) -> Any:
    """idx (B, T) -> (B num_return_sequences, T + n), where p(next) = softmax(logits / temperature).

    The model runs in evaluation mode and is left as it was.  options: any of GenerationConfig's;
    unlike transformers, it draws unless told otherwise (do_sample=False, temperature=0 or beams).

    attention_mask (B, T): 0 where a prompt is padded, on its left, to the longest one's length.
    Rows that end before others are filled with pad_token_id.  Past the model's window the text's
    last tokens are read anew for each token (past_window="crop"), or it ends there ("stop").
    streamer: called with the tokens (R,) of each step as they come, or an object with put() and
    end(), as transformers has them: put() receives the prompt first.
    tokenizer: for stop_strings, an object with decode(ids) or such a function.
    assistant_model: a smaller model of the same vocabulary that drafts; the distribution stays.
    logits_processor: functions (ids (R, T), logits (R, V)) -> (R, V), before the temperature.
    """
    idx = input_ids if idx is None else idx
    given = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k}
    task = prepared(
        model, idx, _given(given, generation_config) | options, generation_config, attention_mask,
        tokenizer, assistant_model, logits_processor, generator,
    )  # fmt: skip
    if streamer is not None and task.config.num_beams > 1:
        raise ValueError("generate: beam search decides at the end, it has nothing to stream")
    put, end = _receiver(streamer)
    if hasattr(streamer, "put"):
        put(task.idx)
    with task.reading():
        if task.config.num_beams > 1:
            answer = _of_beams(task)
        else:
            answer = _of_steps(task, put, return_dict_in_generate)
    end()
    return answer if return_dict_in_generate else answer.sequences


def stream(
    model: Any, idx: Tensor, max_new_tokens: int | None = None, temperature: float = 1.0,
    top_k: int | None = None, generator: Any = None, *, attention_mask: Tensor | None = None,
    tokenizer: Any = None, assistant_model: Any = None,
    logits_processor: Processor | Sequence[Processor] = (),
    generation_config: GenerationConfig | None = None, **options: Any,
) -> Iterator[Tensor]:  # fmt: skip
    """The tokens of `generate` as they are written: (R,) at a time, for each step.

    What cannot be raises at once.  Between two steps the model is in the mode that it was found in.
    """
    given = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k}
    task = prepared(
        model, idx, _given(given, generation_config) | options, generation_config, attention_mask,
        tokenizer, assistant_model, logits_processor, generator,
    )  # fmt: skip
    if task.config.num_beams > 1:
        raise ValueError("generate: beam search decides at the end, it has nothing to stream")
    return _streamed(task)


@tg.no_grad()
def _streamed(task: Task) -> Iterator[Tensor]:
    coming = _steps(task)
    while True:
        with task.reading():
            step = next(coming, None)
        if step is None:
            return
        yield step.tokens[:, 0]


def prepared(
    model: Any, idx: Tensor | None, options: dict[str, Any], base: GenerationConfig | None,
    mask: Tensor | None, tokenizer: Any, draft: Any, processors: Any, generator: Any,
) -> Task:  # fmt: skip
    """The task, checked.  ValueError for an empty idx, or settings that the model cannot fulfil."""
    if idx is None or idx.ndim != 2 or 0 in idx.shape:
        shape = None if idx is None else tuple(idx.shape)
        raise ValueError(f"generate: idx must be (B, T) with at least one token, it is {shape}")
    config = GenerationConfig.of(options, base)
    B, T = idx.shape
    new, size = config.length(T), model.config.vocab_size
    ends = config.ends(model, size)
    room = window(model)
    if room is not None and room < T and config.past_window == "stop":
        raise ValueError(
            f"generate: the prompt of {T} tokens is longer than the model's window of {room}; "
            "shorten it, or let past_window='crop' read its end"
        )
    task = Task(
        model, idx.long(), config, _padding(mask, idx), ends, config.pad(model, size, ends), new,
        Stopping(B * config.num_return_sequences, ends, config.stop_strings, tokenizer), generator,
        (processors,) if callable(processors) else tuple(processors), draft,
    )  # fmt: skip
    if draft is not None:
        check_draft(task)
    return task


def draw(
    logits: Tensor, temperature: float = 1.0, top_k: int | None = None, generator: Any = None
) -> Tensor:
    """One index for each row of logits: (B, V) -> (B, 1).  What ties with the k-th is kept."""
    if temperature == 0:
        likeliest: Tensor = logits.argmax(-1, keepdim=True)
        return likeliest
    config = GenerationConfig(temperature=temperature, top_k=top_k)
    return chosen(filters.filtered(logits, config), generator)


def _given(options: dict[str, Any], base: GenerationConfig | None) -> dict[str, Any]:
    """Positional options; where there is a base, only those other than the defaults."""
    if base is None:
        return options
    plain = GenerationConfig()
    return {name: x for name, x in options.items() if x != getattr(plain, name)}


def _padding(mask: Tensor | None, idx: Tensor) -> Tensor | None:
    """The mask where it hides something, else None; ValueError if it is not for left padding."""
    if mask is None:
        return None
    if tuple(mask.shape) != tuple(idx.shape):
        raise ValueError(
            f"generate: attention_mask must be of idx's shape {tuple(idx.shape)}, it is "
            f"{tuple(mask.shape)}"
        )
    real = np.asarray(mask.cpu()) != 0
    for i in np.flatnonzero(~real[:, -1]):
        raise ValueError(
            f"generate: row {i} is padded on its right, where its next token must stand; pad it on "
            "its left"
        )
    return None if real.all() else mask


def _receiver(streamer: Any) -> Any:
    """What to call with each step's tokens, and at the end."""
    if hasattr(streamer, "put"):
        return streamer.put, streamer.end
    return streamer or (lambda tokens: None), lambda: None


def _steps(task: Task) -> Iterator[Step]:
    return steps(task) if task.draft is None else speculative_steps(task)


def _of_steps(task: Task, put: Any, whole: bool) -> GenerationOutput:
    """The answer of greedy search and sampling; its probabilities only where `whole` asks."""
    many = task.config.num_return_sequences
    parts = [task.idx.repeat_interleave(many, 0) if many > 1 else task.idx]
    logprobs, scores = [], []
    for step in _steps(task):
        put(step.tokens[:, 0])
        parts.append(step.tokens)
        if whole:
            logprobs.append(F.log_softmax(step.logits, -1).gather(-1, step.tokens))
            if task.config.output_scores:
                scores.append(step.scores)
    sequences = tg.cat(parts, dim=1)
    answer = GenerationOutput(sequences, task.stopping.answer(), scores=tuple(scores))
    if logprobs:
        lengths = tg.tensor([len(text) for text in task.stopping.texts], device=sequences.device)
        after = tg.arange(len(logprobs), device=sequences.device) >= lengths[:, None]
        answer.logprobs = tg.cat(logprobs, dim=1).masked_fill(after, 0.0)
    return answer


def _of_beams(task: Task) -> GenerationOutput:
    """The answer of beam search."""
    found = [h for hypotheses in beam_search(task) for h in hypotheses]
    longest = max((len(h.tokens) for h in found), default=0)
    filled = [[*h.tokens, *[task.pad] * (longest - len(h.tokens))] for h in found]
    prompts = task.idx.repeat_interleave(task.config.num_return_sequences, 0)
    new = tg.tensor(filled, dtype=tg.int64, device=prompts.device).reshape(len(prompts), longest)
    return GenerationOutput(
        tg.cat([prompts, new], dim=1),
        [h.reason or "length" for h in found],
        sequences_scores=tg.tensor([h.score for h in found], device=prompts.device),
    )
