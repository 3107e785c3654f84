"""tensorgrad inspect: attention, the logit lens and losses of a text; what a model costs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from tensorgrad.commands.options import add_out_dir

ASPECTS = {
    "attention": "who looks at whom in a text: a picture, and a page to click through",
    "lens": "which token each layer expects next",
    "losses": "how much each token of a text surprises the model",
    "budget": "parameters, operations and memory, module by module",
    "latency": "how long a forward pass takes",
}
"""What can be looked at."""


def add_options(parser: argparse.ArgumentParser) -> None:
    aspects = parser.add_subparsers(
        dest="aspect", metavar="ASPECT", title="aspects", required=True, parser_class=type(parser)
    )
    sub = {word: aspects.add_parser(word, help=meaning, description=meaning)
           for word, meaning in ASPECTS.items()}  # fmt: skip
    for word in ("attention", "lens", "losses"):
        sub[word].add_argument("text", metavar="TEXT", help="what the model shall read")
        add_model(sub[word], "a folder of GPT-2 in Hugging Face's form, or a name on its hub "
                  "(default: the model of --out_dir)")  # fmt: skip
        add_out_dir(sub[word])
        sub[word].add_argument("--tokenizer", metavar="STR",
            help="gpt2, or a tokenizer.json (default: the model's own, or gpt2)")  # fmt: skip
        sub[word].add_argument("--download", action="store_true",
                               help="fetch gpt2's vocabulary if it is not here")  # fmt: skip
    attention, lens, budget, latency = (
        sub[word] for word in ("attention", "lens", "budget", "latency")
    )
    number(attention, "layer", "from 0, or from the end below 0 (default: each layer's mean)")
    number(attention, "head", "of the layer, from 0 (default: all)")
    attention.add_argument("--out", default="attention", metavar="FILE",
                           help="what to write, FILE.png and FILE.html (default: attention)"
                           )  # fmt: skip
    number(lens, "position", "the token after which to look, from 0 (default: all)")
    number(lens, "top", "so many of the likeliest tokens (default: 5)", 5)

    sizes = "gpt2, gpt2-medium, gpt2-large, gpt2-xl"
    add_model(budget, f"{sizes}, a folder, or a name on the hub (default: gpt2)")
    add_model(latency, f"{sizes} with fresh weights, a folder, or a name on the hub "
              "(default: the model of --out_dir)")  # fmt: skip
    number(budget, "tokens", "the length of the text (default: the most that the model sees)")
    add_out_dir(latency)
    number(latency, "tokens", "the length of the text (default: 128, or the most)")
    number(latency, "batch_size", "texts at once (default: 1)", 1)
    number(latency, "repeats", "passes to measure (default: 10)", 10)
    number(latency, "warmup", "passes before them (default: 3)", 3)
    for word in ("attention", "lens", "losses", "latency"):
        sub[word].add_argument("--device", default="cpu", metavar="STR",
                               help="cpu or cuda (default: cpu)")  # fmt: skip


def add_model(parser: argparse.ArgumentParser, meaning: str) -> None:
    parser.add_argument("--model", metavar="PATH", help=meaning)


def number(
    parser: argparse.ArgumentParser, name: str, meaning: str, default: int | None = None
) -> None:
    parser.add_argument(f"--{name}", type=int, metavar="INT", help=meaning, default=default)


def run(options: argparse.Namespace) -> None:
    {"attention": attention, "lens": lens, "losses": losses, "budget": budget,
     "latency": latency}[options.aspect](options)  # fmt: skip


def look(options: argparse.Namespace, top: int = 5) -> Any:
    from tensorgrad.models.inspection import Inspection, opened

    model, vocab = opened(
        options.model, options.out_dir, options.tokenizer, options.device, options.download
    )
    return Inspection(model, vocab, options.text, top)


def attention(options: argparse.Namespace) -> None:
    from tensorgrad.models.inspection import html_page, write_page, write_picture

    found = look(options)
    stem = options.out
    if Path(stem).suffix.lower() in (".png", ".html"):
        stem = os.path.splitext(stem)[0]
    html_page(found, options.layer, options.head)  # refuses what cannot be: no file is written
    write_picture(found, f"{stem}.png", options.layer, options.head)
    write_page(found, f"{stem}.html", options.layer, options.head)
    print(f"wrote {stem}.png and {stem}.html: open the page in a browser and click through")


def lens(options: argparse.Namespace) -> None:
    from tensorgrad.models.inspection.tables import lens_table, position_table

    found = look(options, options.top)
    one = options.position is not None
    for line in position_table(found, options.position) if one else lens_table(found):
        print(line)


def losses(options: argparse.Namespace) -> None:
    from tensorgrad.models.inspection.tables import losses_table

    for line in losses_table(look(options)):
        print(line)


def budget(options: argparse.Namespace) -> None:
    from tensorgrad.models.budget import budget as budget_of
    from tensorgrad.models.gpt2 import SIZES
    from tensorgrad.models.inspection.opening import weights

    if options.tokens is not None and options.tokens < 1:
        raise ValueError(f"tokens must be at least 1, it is {options.tokens}")
    name = options.model or "gpt2"
    print(budget_of(name if name in SIZES else weights(name), options.tokens))


def latency(options: argparse.Namespace) -> None:
    from tensorgrad.models.budget import latency as latency_of
    from tensorgrad.models.evaluation import window_of
    from tensorgrad.models.gpt2 import SIZES, GPT2LMHeadModel
    from tensorgrad.models.inspection.opening import weights

    if options.model in SIZES:
        model: Any = GPT2LMHeadModel.from_config(options.model).to(options.device)
    elif options.model is not None:
        model = weights(options.model, options.device)
    else:
        from tensorgrad.models.training.ladder import revived

        _, model, _ = revived(options.out_dir, options.device)
    tokens = min(128, window_of(model)) if options.tokens is None else options.tokens
    for name, value in (("tokens", tokens), ("batch_size", options.batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, it is {value}")
    count = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"{type(model).__name__}, {count:,} parameters, {trainable:,} of them trainable, "
          f"on {options.device}")  # fmt: skip
    print(latency_of(model, tokens, options.batch_size, options.repeats, options.warmup))
