"""The command `tensorgrad`.  Each of its words is a file of tensorgrad/commands."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

COMMANDS = {
    "prepare": "turn texts into token shards",
    "train": "train a model of the ladder, by default a character-level GPT on a text",
    "sample": "let a trained model write",
    "evaluate": "how well a model reads: perplexity, bits a byte, HellaSwag, LAMBADA",
    "inspect": "attention, logit lens and losses of a text; what a model costs",
    "diagnose": "what goes on inside a model while it trains, in words and pictures",
    "demo": "a GPT-2 learns five sentences, is saved, read back, and writes them",
    "verify": "the ladder on real data beside the published numbers",
    "env": "versions, BLAS, threads, GPU, and why there is none",
}
"""The words, each with what it does; commands/WORD.py has add_options(parser) and run(options)."""


def command(word: str) -> Any:
    """The module of a command."""
    return import_module(f"tensorgrad.commands.{word.replace('-', '_')}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    0; 1 with a sentence about what went wrong; 2 for a command line that is none; 130 or 143 after
    Ctrl-C or SIGTERM.
    """
    try:
        return dispatch(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return left("Ctrl-C", 130)


def dispatch(argv: Sequence[str]) -> int:
    """Read the command line, with the options of its command alone, and run it."""
    arguments = [with_underscores(argument) for argument in argv]
    parser = Parser(prog="tensorgrad", description="A deep-learning framework to read on a weekend")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for word, meaning in COMMANDS.items():
        sub = commands.add_parser(word, help=meaning, description=meaning)
        if word in arguments[:1]:  # the options of the others stay unread, and --help quick
            command(word).add_options(sub)
    if arguments and arguments[0][:1] != "-" and arguments[0] not in COMMANDS:
        parser.error(f"there is no command {arguments[0]!r}" + nearest(arguments[0], COMMANDS))
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        command(options.command).run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # `tensorgrad sample | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return explained(options.command, error)
    return 0


def explained(word: str, error: Exception) -> int:
    """The exit status, and a sentence for errors that users can mend; others are raised."""
    from tensorgrad.distributed import get_rank
    from tensorgrad.models.training.stopping import Stopped

    if isinstance(error, Stopped):  # which all processes of a job do together
        if get_rank() == 0:
            print(error, file=sys.stderr)
        return 128 + error.signal
    kinds = OSError | ValueError | RuntimeError | ArithmeticError | MemoryError
    missing = isinstance(error, ImportError) and error.name is None  # a library, in our own words
    if not isinstance(error, kinds) and not missing:
        raise error
    print(f"tensorgrad {word}: {error}", file=sys.stderr)
    return left("it cannot go on without this", 1)


def left(why: str, status: int) -> int:
    """The exit status; of a process that others would wait for, the end of all of them."""
    world = sys.modules.get("tensorgrad.distributed.world")
    if world is not None and world.get_world_size() > 1:
        world.abort(why, status)
    return status


SUBPARSERS = argparse._SubParsersAction


class Parser(argparse.ArgumentParser):
    """Options are never abbreviated; for a wrong one the nearest right one is named."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        known = [name for action in self._actions for name in action.option_strings]
        subs = [a.choices or () for a in self._actions if isinstance(a, SUBPARSERS)]
        for argument in args or ():
            if any(argument in names for names in subs):
                break  # what follows is its own
            wrong = argument.partition("=")[0]
            if wrong[:2] == "--" and wrong[2:] and wrong not in known:
                self.error(f"there is no option {wrong!r}" + nearest(wrong, known))
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"there is no option {unknown[0].partition('=')[0]!r}")
        return options, unknown


def nearest(wrong: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(wrong, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def with_underscores(argument: str) -> str:
    """--batch-size=5 as --batch_size=5: both are right."""
    name, equals, value = argument.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value if name[:2] == "--" else argument


if __name__ == "__main__":
    sys.exit(main())
