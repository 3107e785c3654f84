"""tensorgrad sample: a trained model writes."""

from __future__ import annotations

import argparse

from tensorgrad.commands.options import add_out_dir


def add_options(parser: argparse.ArgumentParser) -> None:
    add_out_dir(parser)
    parser.add_argument("--start", metavar="TEXT",
                        help="the text to continue (default: a new line)")  # fmt: skip
    parser.add_argument("--num_samples", type=int, default=1, metavar="INT",
                        help="how many texts (default: 1)")  # fmt: skip
    parser.add_argument("--max_new_tokens", type=int, default=500, metavar="INT",
                        help="characters to write (default: 500)")  # fmt: skip
    parser.add_argument("--temperature", type=float, default=0.8, metavar="FLOAT",
                        help="lower is more careful, 0 greedy (default: 0.8)")  # fmt: skip
    parser.add_argument("--top_k", type=int, metavar="INT",
                        help="draw from the k likeliest (default: from all)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=1337, metavar="INT",
                        help="seed of the draws (default: 1337)")  # fmt: skip
    parser.add_argument("--device", default="cpu", metavar="STR",
                        help="cpu or cuda (default: cpu)")  # fmt: skip


def run(options: argparse.Namespace) -> None:
    from tensorgrad.models.training.char_lm import continuation, restored
    from tensorgrad.rng import Generator

    if options.num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, it is {options.num_samples}")
    generator = Generator(options.device).manual_seed(options.seed)
    model, vocab = restored(options.out_dir, options.device)
    for i in range(options.num_samples):
        text = continuation(
            model, vocab, options.start, options.max_new_tokens, options.temperature,
            options.top_k, generator,
        )  # fmt: skip
        print(("-" * 40 + "\n" if i else "") + text)
