"""Text to train on: a file of your own, or what every Python brings along: nothing to download."""

from __future__ import annotations

import platform
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from itertools import chain
from os import PathLike, fspath
from pathlib import Path

from tensorgrad.data.prose import paragraphs


@dataclass(frozen=True)
class Text:
    """A text and where it comes from; two runs read the same one if `sha256` is the same."""

    name: str
    text: str = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """The hexadecimal SHA-256 of the text in UTF-8; of a file, what `sha256sum` prints."""
        return sha256(self.text.encode()).hexdigest()

    @property
    def n_chars(self) -> int:
        return len(self.text)

    @cached_property
    def n_symbols(self) -> int:
        return len(set(self.text))

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.n_chars:,} characters, {self.n_symbols} of them different, "
            f"sha256 {self.sha256[:16]}"
        )


def read_text(path: str | PathLike[str]) -> Text:
    """The file's characters, exactly: UTF-8, strictly; line ends and a byte-order mark stay.

    A file written with "\\r\\n" therefore has the symbol "\\r", and `sha256` is that of the file.
    Raises FileNotFoundError, IsADirectoryError, PermissionError or another OSError where it cannot
    be read, and ValueError where it is empty or not UTF-8.
    """
    name = fspath(path)
    try:
        raw = Path(name).read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"read_text: there is no file {name!r}") from error
    except IsADirectoryError as error:
        raise IsADirectoryError(
            f"read_text: {name!r} is a folder; name one text file, such as one joined by "
            "`cat folder/*.txt > all.txt`"
        ) from error
    except PermissionError as error:
        raise PermissionError(
            f"read_text: {name!r} may not be read by this user; see `ls -l` and `chmod +r`"
        ) from error
    except OSError as error:
        raise OSError(f"read_text: {name!r} cannot be read: {error.strerror}") from error
    if not raw:
        raise ValueError(f"read_text: {name!r} is empty")
    try:
        return Text(name, raw.decode())
    except UnicodeDecodeError as error:
        raise ValueError(
            f"read_text: {name!r} is not UTF-8: {error.reason} at byte {error.start:,} "
            f"(0x{raw[error.start]:02x}); convert it, as in `iconv -f LATIN1 -t UTF-8`"
        ) from None


def default_text() -> Text:
    """English prose about Python from Python itself: the help topics of this interpreter, cleaned.

    About 280,000 characters that differ between Python releases (`name` says which one it is).
    Where a Python comes without `pydoc_data.topics`, `names_text()`.
    """
    topics = help_topics()
    if not topics:
        return names_text()
    python = platform.python_version()
    return Text(f"help topics of Python {python}", "\n\n".join(paragraphs(topics)) + "\n")


def help_topics() -> list[str]:
    """What `help("assert")` and its like print, in alphabetical order; [] where it is missing."""
    try:
        from pydoc_data import topics as module
    except ImportError:  # Debian's python3-minimal, the embeddable Python for Windows
        return []
    topics = getattr(module, "topics", None)
    if not isinstance(topics, dict):
        return []
    return [topic for _, topic in sorted(topics.items()) if isinstance(topic, str)]


NAMED = (range(0x30000), range(0xE0000, 0xE1000))  # where Unicode 3.2 has characters
COMPUTED = ("CJK UNIFIED IDEOGRAPH-", "HANGUL SYLLABLE ")  # 80,000 names that a formula gives


def names_text() -> Text:
    """The names of Unicode 3.2's characters, one a line, lower case: the same in every Python.

    385,085 characters, 39 of them different, 13,789 lines, SHA-256 a1fcf0d774e6ecc5...
    """
    return Text("names of Unicode 3.2", "".join(f"{name}\n" for name in character_names()).lower())


def character_names() -> Iterator[str]:
    for code in chain(*NAMED):
        name = unicodedata.ucd_3_2_0.name(chr(code), "")
        if name and not name.startswith(COMPUTED):
            yield name
