"""Texts that the library datasets streams: parquet, compressed JSONL, data sets of the hub."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tensorgrad.data.sources import PIECE, Source, Task

State = dict[str, Any]
SUBSETS = {"HuggingFaceFW/fineweb": "sample-10BT", "HuggingFaceFW/fineweb-edu": "sample-10BT"}


def batches(
    source: Source, text_key: str, rank: int, world_size: int, state: State | None
) -> Iterator[tuple[Task, State]]:
    """(task of about a megabyte of texts, where the stream then stands), from `state` on.

    The states are small and fit JSON.  Opens sockets for a hub source alone.
    """
    stream = open_stream(source, text_key)
    if world_size > 1:
        from datasets.distributed import split_dataset_by_node

        stream = split_dataset_by_node(stream, rank, world_size)
    if state is not None:
        stream.load_state_dict(state)
    texts: list[bytes] = []
    size = 0
    for row in stream:
        text = row[text_key]
        if not isinstance(text, str):
            raise ValueError(f"{source.path!r} has a row whose {text_key!r} is {text!r}, no text")
        texts.append(text.encode("utf-8", "surrogatepass"))
        size += len(texts[-1])
        if size >= PIECE:
            yield Task("texts", source.path, texts=tuple(texts)), stream.state_dict()
            texts, size = [], 0
    if texts:
        yield Task("texts", source.path, texts=tuple(texts)), stream.state_dict()


def open_stream(source: Source, text_key: str) -> Any:
    """The source as an IterableDataset of one column; nothing is read yet but its description."""
    with no_network(source.kind != "hub"):
        try:
            import datasets
        except ImportError as error:
            raise ImportError(
                f"prepare reads {source.path!r} through the library datasets: "
                "pip install datasets, or give JSONL or text"
            ) from error
        if source.kind == "hub":
            name, _, subset = source.path.partition(":")
            how: dict[str, Any] = {"path": name, "name": subset or SUBSETS.get(name)}
        else:
            how = {"path": source.kind, "data_files": source.path}
        try:
            stream = datasets.load_dataset(**how, split="train", streaming=True)
        except Exception as error:  # the library's own, fsspec's and pyarrow's
            raise OSError(f"{source.path!r} cannot be streamed: {error}") from error
    columns = stream.column_names
    if columns is not None and text_key not in columns:
        raise ValueError(
            f"{source.path!r} has no column {text_key!r} (it has {', '.join(columns)[:200]}); "
            "name it with --text_key"
        )
    return stream.select_columns([text_key])


@contextmanager
def no_network(closed: bool) -> Iterator[None]:
    """Import and use datasets without its look-ups at the hub, which it makes for local files too.

    It reads the environment once, when it is imported.
    """
    names = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_UPDATE_DOWNLOAD_COUNTS")
    before = {name: os.environ.get(name) for name in names}
    if "datasets" not in sys.modules:
        os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"
        if closed:
            os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
