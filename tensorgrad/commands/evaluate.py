"""tensorgrad evaluate: how well a model reads: perplexity, bits a byte, HellaSwag, LAMBADA."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from shutil import get_terminal_size
from typing import Any

from tensorgrad.commands.options import add_out_dir

TASKS = {"hellaswag": "HellaSwag", "lambada": "LAMBADA"}


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", metavar="PATH",
        help="a folder of GPT-2 in Hugging Face's form, or a name on its hub (default: the model "
        "of --out_dir)")  # fmt: skip
    add_out_dir(parser)
    add("--tokenizer", metavar="STR",
        help="gpt2, or a tokenizer.json (default: the model's own, or gpt2)")  # fmt: skip
    add("--download", action="store_true", help="fetch gpt2's vocabulary if it is not here")
    add("--data", metavar="PATH",
        help="a text in UTF-8, or a folder of token shards: perplexity, bits a byte")  # fmt: skip
    add("--split", default="val", metavar="STR", help="of the shards (default: val)")
    add("--name", metavar="STR", help="of the shards, where a folder has several")
    add("--length", type=int, metavar="INT",
        help="tokens in a window (default: as many as the model sees)")  # fmt: skip
    add("--stride", type=int, metavar="INT",
        help="tokens from one window to the next (default: half a window)")  # fmt: skip
    add("--hellaswag", metavar="FILE", help="JSON lines of ctx, endings, label")
    add("--lambada", metavar="FILE", help="JSON lines of text, whose last word is to be guessed")
    add("--limit", type=int, metavar="INT",
        help="the first so many tokens of --data, examples of a task (default: all)")  # fmt: skip
    add("--json", action="store_true", help="one line of JSON in the place of sentences")
    add("--device", default="cpu", metavar="STR", help="cpu or cuda (default: cpu)")


def run(options: argparse.Namespace) -> None:
    from tensorgrad.distributed import init_process_group
    from tensorgrad.models.training.together import device_here

    if not (options.data or options.hellaswag or options.lambada):
        raise ValueError("nothing to evaluate; give --data, --hellaswag or --lambada, or several")
    world = init_process_group()
    options.device = device_here(options.device)
    report = measured(options, world.size)
    if world.rank == 0:
        print(as_json(report) if options.json else "\n".join(sentences(report)))


def measured(options: argparse.Namespace, ranks: int) -> dict[str, Any]:
    """All figures, the same on each rank."""
    from tensorgrad.models import evaluation
    from tensorgrad.models.evaluation_data import Reader, bits_per_byte

    reader = Reader(
        options.model, options.out_dir, options.tokenizer, options.device, options.download
    )
    model = reader.model
    report: dict[str, Any] = {
        "model": options.model or options.out_dir,
        "class": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "device": options.device,
        "ranks": ranks,
    }
    if options.data:
        length, stride = evaluation.window_sizes(model, options.length, options.stride)
        read = reader.read(options.data, options.split, options.limit, options.name)
        found = evaluation.perplexity(model, read.ids, stride, length, bar(options.data))
        report["data"] = {
            "source": options.data,
            "tokens": found.tokens,
            "length": length,
            "stride": stride,
            "perplexity": found.perplexity,
            "nats_per_token": found.loss,
            "bits_per_byte": bits_per_byte(found, read.bytes),
        }
    for task in TASKS:
        if path := getattr(options, task):
            score = getattr(evaluation, task)(
                model, path, reader.vocab.encode, options.limit, bar(task)
            )
            report[task] = {"source": path, "examples": score.examples, **score.figures}
    return report


def bar(what: str) -> Any:
    """What shows how far a list is, on a terminal, once for all ranks; elsewhere nothing."""
    from tensorgrad.distributed import get_rank

    def shown(items: list[Any]) -> Any:
        if get_rank() or not sys.stderr.isatty():
            return items
        from tqdm import tqdm

        columns, lines = get_terminal_size()  # 80 and 24 where a terminal says 0 and 0
        return tqdm(items, desc=os.path.basename(what)[:30], ncols=min(columns, 100), nrows=lines)

    return shown


def sentences(report: dict[str, Any]) -> list[str]:
    by = f", by {report['ranks']} ranks" if report["ranks"] > 1 else ""
    lines = [
        f"{report['class']} of {report['parameters']:,} parameters from {report['model']}, "
        f"on {report['device']}{by}"
    ]
    if data := report.get("data"):
        bits = data["bits_per_byte"]
        lines.append(
            f"{data['source']}: {data['tokens']:,} tokens, perplexity {data['perplexity']:.4f}, "
            f"{data['nats_per_token']:.4f} nats a token"
            + (f", {bits:.4f} bits a byte" if bits is not None else "")
            + f" (windows of {data['length']:,}, every {data['stride']:,})"
        )
    for task, name in TASKS.items():
        if score := report.get(task):
            figures = [f"{key} {value:.4f}" for key, value in score.items()
                       if key not in ("source", "examples")]  # fmt: skip
            lines.append(f"{name}, {score['examples']:,} examples: {', '.join(figures)}")
    return lines


def as_json(report: dict[str, Any]) -> str:
    """JSON has no infinity: null."""
    sound = {
        key: {k: None if v == math.inf else v for k, v in part.items()}
        if isinstance(part, dict) else part for key, part in report.items()
    }  # fmt: skip
    return json.dumps(sound)
