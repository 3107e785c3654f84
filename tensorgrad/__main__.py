"""The command `tensorgrad`: train, sample, env.  What a command needs is imported when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0, or 1 with a sentence on what went wrong, 2 for a command line that is none, 130 if stopped."""
    parser = _parser()
    arguments = _with_underscores(list(sys.argv[1:] if argv is None else argv))
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        run: Any = {"train": _train, "sample": _sample, "env": _env}[options.command]
        run(options)
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError, RuntimeError, FloatingPointError) as error:
        print(f"tensorgrad {options.command}: {error}", file=sys.stderr)
        return 1
    return 0


def _with_underscores(arguments: list[str]) -> list[str]:
    """--batch-size and --batch_size are the same option."""
    fixed = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        fixed.append(name[:2] + name[2:].replace("-", "_") + equals + value if name.startswith("--") else argument)
    return fixed


class _Parser(argparse.ArgumentParser):
    """Says which option was probably meant."""

    def error(self, message: str) -> Any:
        if message.startswith("unrecognized arguments:"):
            import difflib

            wrong = message.split(":", 1)[1].split()[0].partition("=")[0]
            near = difflib.get_close_matches(wrong, [o for a in self.all_options() for o in a.option_strings], 1)
            message += f"; did you mean {near[0]}?" if near else ""
        super().error(message)

    def all_options(self) -> list[argparse.Action]:
        nested = [p for a in self._actions if isinstance(a, argparse._SubParsersAction) for p in a.choices.values()]
        return [*self._actions, *(a for p in nested for a in p._actions)]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="tensorgrad", description="A deep-learning framework that can be read in a weekend.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    train = commands.add_parser(
        "train", help="train a character-level GPT on a text", allow_abbrev=False,
        description="Trains a character-level GPT on a text file, or on Python's own help where none is named.",
    )  # fmt: skip
    train.add_argument("--data", metavar="FILE", help="a UTF-8 text file (default: the help topics of this Python)")
    train.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out_dir")
    _add_out(train)
    _add_recipe(train)
    sample = commands.add_parser(
        "sample", help="let a trained model write", allow_abbrev=False,
        description="Continues a text with the model that `tensorgrad train` left in --out_dir.",
    )  # fmt: skip
    _add_out(sample)
    sample.add_argument("--start", default="\n", help="the text to continue (default: a new line)")
    sample.add_argument("--num_samples", type=int, default=1, help="how many (default: 1)")
    sample.add_argument("--max_new_tokens", type=int, default=500, help="characters to write (default: 500)")
    sample.add_argument("--temperature", type=float, default=0.8, help="below 1 more careful, 0 the likeliest (default: 0.8)")
    sample.add_argument("--top_k", type=int, default=None, help="draw only from the k likeliest")
    sample.add_argument("--seed", type=int, default=1337, help="seed of the draws (default: 1337)")
    sample.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    commands.add_parser("env", help="versions, BLAS, threads, GPU, and why there is none where there is none")
    return parser


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out_dir", default="out", metavar="DIR", help="folder of the checkpoint (default: out)")


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    """One option per field of the recipe, which needs no heavy import to be read."""
    from dataclasses import fields

    from tensorgrad.models.training.recipe import Recipe

    for f in fields(Recipe):
        kind: Any = {"int": int, "float": float, "bool": _flag}.get(str(f.type), str)
        default = "" if f.default is None else f" (default: {f.default})"
        parser.add_argument(f"--{f.name}", type=kind, default=f.default, metavar=str(f.type).upper(),
                            help=f.metadata["help"] + default)  # fmt: skip


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise argparse.ArgumentTypeError(f"expected True or False, not {text!r}")
    return text.lower() in ("true", "1", "yes")


def _train(options: argparse.Namespace) -> None:
    from dataclasses import fields

    from tensorgrad.models.training.recipe import Recipe
    from tensorgrad.models.training.run import train

    recipe = Recipe(**{f.name: getattr(options, f.name) for f in fields(Recipe)})
    train(recipe, options.data, options.out_dir, options.resume)


def _sample(options: argparse.Namespace) -> None:
    from pathlib import Path

    from tensorgrad.models.training.run import continuation, restored
    from tensorgrad.random import manual_seed

    model, vocab = restored(Path(options.out_dir), options.device)
    manual_seed(options.seed)
    for i in range(options.num_samples):
        if i:
            print("-" * 40)
        print(continuation(model, vocab, options.start, options.max_new_tokens, options.temperature, options.top_k))


def _env(options: argparse.Namespace) -> None:
    from tensorgrad.environment import report

    print(report())


if __name__ == "__main__":
    sys.exit(main())
