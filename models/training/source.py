"""What `--data` means: a file, or a text of the network by name."""

from __future__ import annotations

import os

from tensorgrad.data.fetch import cache_folder, fetch
from tensorgrad.data.shakespeare import SOURCES


def located(data: str | os.PathLike[str] | None) -> str | os.PathLike[str] | None:
    """The file: `data` itself, or where the text of that name is kept, downloaded if need be.

    A file of that name goes first.  ConnectionError where there is no network.
    """
    if data in SOURCES and not os.path.exists(data):
        return fetch(SOURCES[str(data)], cache_folder() / f"{data}.txt")
    return data
