"""What can be asked of generation, under Hugging Face's names, and what it may be."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from tensorgrad import Tensor

MODEL = "model"
"""Take the id from the model's configuration, if it has one."""


def option(default: Any, meaning: str, least: Any = None, most: Any = None) -> Any:
    """A field of GenerationConfig: None, or a number of which least <= value <= most."""
    limits = {"meaning": meaning, "least": least, "most": most}
    return field(default=default, metadata=limits)


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """How to continue a text.  ValueError for a value that cannot be, TypeError for a wrong type.

    The next token is chosen thus: penalties, bans, temperature, top_k, top_p, min_p, typical_p,
    then a draw; without a draw, the likeliest after penalties and bans.
    """

    max_new_tokens: int | None = option(None, "tokens to write (20, if no max_length)", 0)
    max_length: int | None = option(None, "tokens in all, those of the prompt included", 1)
    min_new_tokens: int | None = option(None, "tokens to write before eos is allowed", 0)
    min_length: int | None = option(None, "tokens in all before eos is allowed", 0)
    past_window: str = option("crop", "'stop' at the model's window, or 'crop' and read it anew")

    do_sample: bool | None = option(None, "draw, unless temperature is 0 (None: without beams)")
    temperature: float = option(1.0, "lower is more careful, 0 takes the likeliest", 0)
    top_k: int | None = option(None, "draw from the k likeliest, and what ties with the k-th", 1)
    top_p: float | None = option(None, "draw from the likeliest that together have this share")
    min_p: float | None = option(
        None, "leave out what is this many times rarer than the best", 0, 1
    )
    typical_p: float | None = option(None, "draw from the most typical of this share together")

    repetition_penalty: float = option(1.0, "divides the logits of what the text has, if positive")
    presence_penalty: float = option(0.0, "taken from the logits of tokens written before")
    frequency_penalty: float = option(0.0, "the same, for each time that they were written")
    no_repeat_ngram_size: int = option(0, "no n tokens twice in the same order; 0: allowed", 0)
    suppress_tokens: Sequence[int] = option((), "ids that are never written")

    eos_token_id: int | Sequence[int] | str | None = option(MODEL, "ids that end a row")
    pad_token_id: int | str | None = option(MODEL, "fills rows that ended (else the first eos)")
    stop_strings: str | Sequence[str] = option((), "texts that end a row; they need a tokenizer")

    num_return_sequences: int = option(1, "continuations of each prompt", 1)
    num_beams: int = option(1, "hypotheses that a beam search keeps", 1)
    length_penalty: float = option(1.0, "a hypothesis scores log p / length ** penalty")
    early_stopping: bool | str = option(False, "True: stop at num_beams ends; 'never': prove it")

    num_assistant_tokens: int = option(5, "tokens that the draft model proposes at a time", 1)
    use_cache: bool = option(True, "keep keys and values, so that a token costs one token's work")
    output_scores: bool = option(False, "answer the processed logits of each step, too")

    @classmethod
    def of(cls, options: Mapping[str, Any], base: Self | None = None) -> Self:
        """These options on top of `base`; TypeError with the nearest name for one unknown."""
        names = [f.name for f in fields(cls)]
        for name in options:
            if name not in names:
                near = difflib.get_close_matches(name, names, 1)
                meant = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(names)}"
                raise TypeError(f"generate: there is no option '{name}'; {meant}")
        return cls(**options) if base is None else replace(base, **options)

    def __post_init__(self) -> None:
        for f in fields(self):
            whole = str(f.type) in ("int", "int | None")
            _check(f.name, getattr(self, f.name), whole, f.metadata["least"], f.metadata["most"])
        for name in ("top_p", "typical_p"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"generate: {name} must be in (0, 1], it is {share}")
        if not self.repetition_penalty > 0:
            raise ValueError(
                f"generate: repetition_penalty must be greater than 0 (1 changes nothing), it is "
                f"{self.repetition_penalty}"
            )
        _one_of("past_window", self.past_window, ("stop", "crop"))
        _one_of("early_stopping", self.early_stopping, (True, False, "never"))
        if self.max_new_tokens is not None and self.max_length is not None:
            raise ValueError(
                f"generate: max_new_tokens={self.max_new_tokens} and max_length={self.max_length} "
                "say the same thing twice; max_length counts the prompt, max_new_tokens does not"
            )
        if self.num_beams > 1 and self.num_return_sequences > self.num_beams:
            raise ValueError(
                f"generate: num_return_sequences={self.num_return_sequences} is more than the "
                f"{self.num_beams} hypotheses of num_beams"
            )
        if not self.draws and self.num_beams == 1 and self.num_return_sequences > 1:
            raise ValueError(
                f"generate: num_return_sequences={self.num_return_sequences} would be one text "
                "many times: greedy search knows one; draw, or set num_beams"
            )

    @property
    def draws(self) -> bool:
        """Whether the next token is drawn at random."""
        asked = self.num_beams == 1 if self.do_sample is None else self.do_sample
        return asked and self.temperature > 0

    def length(self, prompt: int) -> int:
        """How many new tokens a prompt of this length asks for."""
        if self.max_length is None:
            return 20 if self.max_new_tokens is None else self.max_new_tokens
        if self.max_length < prompt:
            raise ValueError(
                f"generate: the prompt has {prompt} tokens, more than max_length="
                f"{self.max_length}, which counts them; use max_new_tokens"
            )
        return self.max_length - prompt

    def least(self, prompt: int) -> int:
        """How many new tokens must come before eos."""
        return max(self.min_new_tokens or 0, (self.min_length or 0) - prompt)

    def ends(self, model: Any, vocab_size: int) -> tuple[int, ...]:
        """The ids of eos; ValueError for one that the vocabulary does not have."""
        given: Any = self.eos_token_id
        if given == MODEL:
            given = getattr(model.config, "eos_token_id", None)
        ids = () if given is None else (given,) if isinstance(given, int) else tuple(given)
        for i in ids:
            _known("eos_token_id", i, vocab_size)
        return ids

    def pad(self, model: Any, vocab_size: int, ends: tuple[int, ...]) -> int:
        """The id that fills a row after its end."""
        given: Any = self.pad_token_id
        if given == MODEL:
            given = getattr(model.config, "pad_token_id", None)
        if given is None:
            return ends[0] if ends else 0  # rows that nothing ends are all of one length
        _known("pad_token_id", given, vocab_size)
        return int(given)


def _check(name: str, value: Any, whole: bool, least: Any, most: Any) -> None:
    """Refuse a number out of range, and numbers of the wrong type."""
    if isinstance(value, Tensor):
        raise TypeError(f"generate: {name} must be a plain number, not a Tensor")
    if whole and value is not None and not isinstance(value, int):
        raise TypeError(f"generate: {name} must be a whole number, it is {value!r}")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if least is not None and not value >= least:
        raise ValueError(f"generate: {name} must be at least {least}, it is {value}")
    if (most is not None and not value <= most) or not math.isfinite(value):
        raise ValueError(
            f"generate: {name} must be " + ("finite" if most is None else f"at most {most}")
            + f", it is {value}"
        )  # fmt: skip


def _one_of(name: str, value: Any, values: tuple[Any, ...]) -> None:
    if value not in values:
        raise ValueError(
            f"generate: {name} must be {' or '.join(map(repr, values))}, it is {value!r}"
        )


def _known(name: str, i: Any, vocab_size: int) -> None:
    if not isinstance(i, int) or not 0 <= i < vocab_size:
        raise ValueError(
            f"generate: {name} {i!r} is no id of the model's vocabulary of {vocab_size}, so it "
            "can never be written"
        )
