"""tensorgrad prepare: texts in; token shards and a manifest out."""

from __future__ import annotations

import argparse
import os

RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("sources", nargs="+", metavar="SOURCE",
        help="a text, JSONL or parquet file, a folder of them, or a data set of the hub such as "
        "HuggingFaceFW/fineweb:sample-10BT")  # fmt: skip
    add("--out", "--out_dir", required=True, metavar="DIR", help="the folder of the shards")
    add("--name", metavar="STR", help="how the shards' names begin (default: the source's stem)")
    add("--tokenizer", default="gpt2", metavar="STR",
        help="gpt2, bpe (trained on the sources), or a tokenizer.json (default: gpt2)")  # fmt: skip
    add("--vocab_size", type=count, default=8192, metavar="INT",
        help="ids of a vocabulary that is trained (default: 8192)")  # fmt: skip
    add("--download", action="store_true", help="fetch gpt2's vocabulary if it is not here")
    add("--text_key", default="text", metavar="STR",
        help="the key or column of the text (default: text)")  # fmt: skip
    add("--shard_size", type=count, default=100_000_000, metavar="INT",
        help="tokens in a shard (default: 1e8)")  # fmt: skip
    add("--total_tokens", type=count, metavar="INT", help="stop after so many (default: all)")
    add("--val_tokens", type=count, metavar="INT",
        help="of these, the last for validation (default: one in a hundred)")  # fmt: skip
    add("--workers", type=count, metavar="INT", help="processes (default: one for each core)")
    add("--rank", type=int, default=environment(*RANKS, "0"), metavar="INT",
        help="this machine's number of world_size (default: $RANK, mpirun's, or 0)")  # fmt: skip
    add("--world_size", type=int, default=environment(*SIZES, "1"), metavar="INT",
        help="the machines that share the work (default: $WORLD_SIZE, mpirun's, or 1)")  # fmt: skip


def environment(*names: str) -> str:
    """The first of these variables that is set, or the last word as it is."""
    return next((os.environ[name] for name in names if os.environ.get(name)), names[-1])


def count(text: str) -> int:
    """2000000, 2_000_000, 2e6 and 2M are the same."""
    factors = {"k": 10**3, "m": 10**6, "b": 10**9}
    factor = factors.get(text[-1:].lower(), 1)
    try:
        value = float(text[:-1] if factor > 1 else text) * factor
        if value != int(value):
            raise ValueError
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"expected a whole number, not {text!r}") from None
    return int(value)


def run(options: argparse.Namespace) -> None:
    from tensorgrad.data.prepare import prepare

    given = {key: value for key, value in vars(options).items() if key != "command"}
    try:
        manifest = prepare(given.pop("sources"), given.pop("out"), progress=True, **given)
    except ImportError as error:  # of an optional library; the sentence says which
        raise RuntimeError(error) from error
    sizes = {split: [s["tokens"] for s in manifest["shards"] if s["split"] == split]
             for split in ("train", "val")}  # fmt: skip
    print(f"{manifest['documents']:,} documents, {manifest['tokens']:,} tokens of "
          f"{manifest['tokenizer']['name']}: {sum(sizes['train']):,} to train on in "
          f"{len(sizes['train'])} shards, {sum(sizes['val']):,} to validate; "
          f"see {os.path.join(options.out, 'manifest*.json')}")  # fmt: skip
