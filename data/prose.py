"""The prose of a reference manual as plain text: its sentences, without grammar, code and tables.

Made for `pydoc_data.topics`, which is reStructuredText rendered 70 columns wide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

ASCII = str.maketrans(
    {"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "--", "…": "...", "\xa0": " "}
)
BULLET = re.compile(r"(?:[*+-]|\d+\.|\[\d+\])\s+(?=\S)")
UNDERLINE = re.compile(r"([*=~^-])\1{2,}$")
CODE = re.compile(
    r">>>|\.\.\. |[#@|+<]|File \"|Traceback \(|import |.*(?:::=| # )"
    r"|(?:async|class|def|for|from|if|try|while|with)\b.*(?:\w: |[)\]]:|=|:$)"
)
WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*")
FUNCTION_WORDS = """
a all also an and any are as at be been but by can does each for from has have if in into is it its
may more must no not of on only or other same should such than that the their then there these they
this to used was when where which will with you
"""
FUNCTION = frozenset(FUNCTION_WORDS.split())


def paragraphs(documents: Iterable[str]) -> Iterator[str]:
    """The paragraphs of prose, each on one line, each once, in the order they are first met."""
    seen = set()
    for document in documents:
        for block in re.split(r"\n\s*\n", document):
            for lines in items(block.splitlines()):
                text = " ".join(unwrap(lines).translate(ASCII).split())
                if text not in seen and is_prose(text):
                    yield text
                seen.add(text)


def items(lines: list[str]) -> Iterator[list[str]]:
    """A block's parts: a list's items without their bullets, a term and its indented definition."""
    if lines and CODE.match(lines[0].lstrip()):
        return
    part: list[str] = []
    margin = 0
    for line in lines:
        text = line.lstrip()
        indent = len(line) - len(text)
        bullet = BULLET.match(text)
        if bullet:
            text = text[bullet.end() :]
            indent += bullet.end()
        if part and (bullet or indent > margin):
            yield part
            part = []
        if not part:
            margin = indent
        part.append(text)
    if part:
        yield part


def unwrap(lines: Iterable[str]) -> str:
    """The lines as one; a word broken after its hyphen is joined again."""
    text = ""
    for line in lines:
        text += line if re.search(r"\w-$", text) and line[:1].isalpha() else " " + line
    return text


def is_prose(text: str) -> bool:
    """ASCII, six words or more, three of five plain English, one in eight a "the", "of" or "is"."""
    tokens = text.split()
    if len(tokens) < 6 or not text.isascii() or UNDERLINE.search(text) or CODE.match(text):
        return False
    words = [token.strip("\"'.,;:()[]*!?") for token in tokens]
    plain = sum(WORD.fullmatch(word) is not None for word in words)
    function = sum(word.lower() in FUNCTION for word in words)
    return 5 * plain >= 3 * len(words) and 8 * function >= len(words)
