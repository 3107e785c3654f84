"""The command `tensorgrad`: train, sample, env.  What a command needs is imported when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple


class Command(NamedTuple):
    """A word after `tensorgrad`: what it does, its options, and the function that does it."""

    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    0; 1 with a sentence about what went wrong; 2 for a command line that is none; 130 or 143 after
    Ctrl-C or SIGTERM.
    """
    try:
        return dispatch(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return 130


def dispatch(argv: Sequence[str]) -> int:
    """Read the command line, with the options of its command alone, and run it."""
    arguments = [with_underscores(argument) for argument in argv]
    parser = Parser(prog="tensorgrad", description="A deep-learning framework to read on a weekend")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.help, description=command.help)
        if name in arguments[:1]:  # the options of the others stay unread, and --help quick
            command.add_options(sub)
    if arguments and arguments[0][:1] != "-" and arguments[0] not in COMMANDS:
        parser.error(f"there is no command {arguments[0]!r}" + nearest(arguments[0], COMMANDS))
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        COMMANDS[options.command].run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # `tensorgrad sample | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return explained(options.command, error)
    return 0


def explained(command: str, error: Exception) -> int:
    """The exit status, and a sentence for errors that users can mend; others are raised."""
    from tensorgrad.models.training.stopping import Stopped

    if isinstance(error, Stopped):
        print(error, file=sys.stderr)
        return 128 + error.signal
    if not isinstance(error, OSError | ValueError | RuntimeError | ArithmeticError | MemoryError):
        raise error
    print(f"tensorgrad {command}: {error}", file=sys.stderr)
    return 1


class Parser(argparse.ArgumentParser):
    """Options are never abbreviated; for a wrong one the nearest right one is named."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            wrong = unknown[0].partition("=")[0]
            known = [name for action in self._actions for name in action.option_strings]
            self.error(f"there is no option {wrong!r}" + nearest(wrong, known))
        return options, unknown


def nearest(wrong: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(wrong, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def with_underscores(argument: str) -> str:
    """--batch-size=5 as --batch_size=5: both are right."""
    name, equals, value = argument.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value if name[:2] == "--" else argument


def add_settings(parser: Any, options: Iterable[Any]) -> None:
    """One option for each setting; those not given are not in the namespace."""
    kinds: dict[str, Any] = {"int": int, "float": float, "bool": truth, "str": str}
    for o in options:
        parser.add_argument(
            f"--{o.name}", type=kinds[o.type], metavar=o.type.upper(), default=argparse.SUPPRESS,
            help=f"{o.meaning} (default: {o.default})",
        )  # fmt: skip


def truth(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise argparse.ArgumentTypeError(f"expected True or False, not {text!r}")
    return text.lower() in ("true", "1", "yes")


# ---- train


RUN = ("data", "out_dir", "resume")  # the options of `train` that are no settings


def add_train_options(parser: argparse.ArgumentParser) -> None:
    from tensorgrad.models.settings import options
    from tensorgrad.models.training.char_lm import SETTINGS

    parser.add_argument("--data", metavar="FILE",
                        help="a text in UTF-8 (default: the help topics of Python)")  # fmt: skip
    add_out_dir(parser)
    parser.add_argument("--resume", action="store_true",
                        help="go on, exactly, from the checkpoint in --out_dir")  # fmt: skip
    add_settings(parser.add_argument_group("settings"), options(*SETTINGS))


def add_out_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out_dir", default="out", metavar="DIR",
                        help="the folder of the run (default: out)")  # fmt: skip


def train(options: argparse.Namespace) -> None:
    from tensorgrad.models.training import char_lm

    given = {name: v for name, v in vars(options).items() if name not in ("command", *RUN)}
    char_lm.train(given, options.data, options.out_dir, options.resume)


# ---- sample


def add_sample_options(parser: argparse.ArgumentParser) -> None:
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


def sample(options: argparse.Namespace) -> None:
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


# ---- env


def add_no_options(parser: argparse.ArgumentParser) -> None:
    pass


def env(options: argparse.Namespace) -> None:
    from tensorgrad.environment import report

    print(report())


COMMANDS = {
    "train": Command("train a character-level GPT on a text", add_train_options, train),
    "sample": Command("let a trained model write", add_sample_options, sample),
    "env": Command("versions, BLAS, threads, GPU, and why there is none", add_no_options, env),
}


if __name__ == "__main__":
    sys.exit(main())
