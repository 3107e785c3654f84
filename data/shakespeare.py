"""Tiny Shakespeare, the text of the char GPTs: 1,115,394 characters, 65 of them different."""

from __future__ import annotations

from os import PathLike

from tensorgrad.data.fetch import Source, cache_folder, fetch
from tensorgrad.data.text import Text, read_text

SHAKESPEARE = Source(
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    1_115_394,
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)
NAMES = Source(
    "https://raw.githubusercontent.com/karpathy/makemore/master/names.txt",
    228_145,
    "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
)
"""makemore's 32,033 names."""

SOURCES = {"shakespeare": SHAKESPEARE, "names": NAMES}
"""What `--data` may name besides a file."""


def shakespeare(path: str | PathLike[str] | None = None) -> Text:
    """Tiny Shakespeare from `path`, where it is downloaded to if it is not there.

    By default in the cache folder.  ConnectionError without a network, ValueError for another file.
    """
    return read_text(
        fetch(SHAKESPEARE, cache_folder() / "shakespeare.txt" if path is None else path)
    )
