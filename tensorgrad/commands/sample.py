"""tensorgrad sample: a trained model writes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorgrad.commands.options import add_out_dir

TEXT_ONLY = ("top_p", "min_p", "typical_p", "repetition_penalty", "presence_penalty",
             "frequency_penalty", "no_repeat_ngram_size", "stop_strings")  # fmt: skip
"""Options of `generate` that models of words do not have."""


def add_options(parser: argparse.ArgumentParser) -> None:
    add_out_dir(parser)
    parser.add_argument("--checkpoint", metavar="NAME",
                        help="of this folder, another than ckpt.safetensors: best.safetensors"
                        )  # fmt: skip
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--start", metavar="TEXT",
                       help="the text, or the word, to continue (default: a new one)")  # fmt: skip
    start.add_argument("--prompt_file", metavar="FILE",
                       help="a file in UTF-8 whose text to continue")  # fmt: skip
    parser.add_argument("--interactive", action="store_true",
                        help="continue what is typed, line after line, until the end of input"
                        )  # fmt: skip
    parser.add_argument("--num_samples", type=int, metavar="INT",
                        help="how many texts (default: 1), or words (20)")  # fmt: skip
    parser.add_argument("--max_new_tokens", type=int, metavar="INT",
                        help="characters or tokens to write (default: 500), at most in a word (100)"
                        )  # fmt: skip
    parser.add_argument("--temperature", type=float, metavar="FLOAT",
                        help="lower is more careful, 0 greedy (default: 0.8, of words 1)"
                        )  # fmt: skip
    parser.add_argument("--top_k", type=int, metavar="INT",
                        help="draw from the k likeliest (default: from all)")  # fmt: skip
    parser.add_argument("--top_p", type=float, metavar="FLOAT",
                        help="draw from the likeliest that together have this share")  # fmt: skip
    parser.add_argument("--min_p", type=float, metavar="FLOAT",
                        help="leave out what is rarer than this share of the best")  # fmt: skip
    parser.add_argument("--typical_p", type=float, metavar="FLOAT",
                        help="draw from the most typical that together have this share"
                        )  # fmt: skip
    parser.add_argument("--repetition_penalty", type=float, metavar="FLOAT",
                        help="above 1: what the text has comes again more rarely")  # fmt: skip
    parser.add_argument("--presence_penalty", type=float, metavar="FLOAT",
                        help="above 0: the same for what was written")  # fmt: skip
    parser.add_argument("--frequency_penalty", type=float, metavar="FLOAT",
                        help="above 0: the same, for each time that it was")  # fmt: skip
    parser.add_argument("--no_repeat_ngram_size", type=int, metavar="INT",
                        help="no so many characters twice in the same order")  # fmt: skip
    parser.add_argument("--stop", dest="stop_strings", action="append", metavar="TEXT",
                        help="end where this is written; may be given several times")  # fmt: skip
    parser.add_argument("--score", metavar="WORD",
                        help="tell how likely a model of words finds this one, and write none"
                        )  # fmt: skip
    parser.add_argument("--seed", type=int, default=1337, metavar="INT",
                        help="seed of the draws (default: 1337)")  # fmt: skip
    parser.add_argument("--device", default="cpu", metavar="STR",
                        help="cpu or cuda (default: cpu)")  # fmt: skip


def run(options: argparse.Namespace) -> None:
    from tensorgrad.models.training.ladder import revived
    from tensorgrad.rng import Generator

    if options.num_samples is not None and options.num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, it is {options.num_samples}")
    generator = Generator(options.device).manual_seed(options.seed)
    start = options.start
    if options.prompt_file is not None:
        start = Path(options.prompt_file).read_text(encoding="utf-8")
    job, model, vocab = revived(options.out_dir, options.device, options.checkpoint)
    if options.score is not None:
        print(job.scored(model, vocab, options.score))
        return
    choices = {name: getattr(options, name) for name in TEXT_ONLY}
    choices = {name: value for name, value in choices.items() if value is not None}
    if job.writes_text:
        choices |= {"top_k": options.top_k, "generator": generator}
        choices["temperature"] = 0.8 if options.temperature is None else options.temperature
        length = 500 if options.max_new_tokens is None else options.max_new_tokens
        if options.interactive:
            converse(model, vocab, start or "", length, choices)
            return
        for i in range(options.num_samples or 1):
            print("-" * 40 + "\n" if i else "", end="")
            continue_text(model, vocab, start, length, choices)
        return
    if choices or options.interactive:
        name = next(iter(choices), "interactive").removesuffix("_strings")
        raise ValueError(f"a {job.kind} writes words, and --{name} is for models of text")
    text = job.write(
        model, vocab, generator, start, options.num_samples, options.max_new_tokens,
        options.temperature, options.top_k,
    )  # fmt: skip
    print(text)


def continue_text(
    model: Any, vocab: Any, text: str | None, length: int, choices: Mapping[str, Any],
    echo: bool = True,
) -> str:  # fmt: skip
    """Print the text, and what follows as it is written; answers all of it.  None begins anew."""
    from tensorgrad.models.generation.text import write

    following = write(model, vocab, vocab.opening if text is None else text, length, **choices)
    text = vocab.opening.removeprefix("<|endoftext|>") if text is None else text
    if echo:
        print(text, end="", flush=True)
    for piece in following:
        print(piece, end="", flush=True)
        text += piece
    print()
    return text


def converse(model: Any, vocab: Any, text: str, length: int, choices: Mapping[str, Any]) -> None:
    """Each line that is typed goes on with the text, and then the model does, until input ends.

    A line with a character that the model has never seen is told, and left out.
    """
    while True:
        try:
            line = input("> ")
        except EOFError:
            print()
            return
        try:
            line += "\n" if vocab.has_lines else ""
            text = continue_text(model, vocab, text + line, length, choices, echo=False)
        except ValueError as error:
            print(error)
