"""Texts: read exactly, cleaned to prose, the same names in every Python; errors are sentences."""

import builtins
import hashlib
import os
import subprocess
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgrad.data import Text, default_text, names_text, read_text
from tensorgrad.data.prose import is_prose, items, paragraphs, unwrap
from tensorgrad.data.text import help_topics
from tests.tree import ROOT

MANUAL = """\
The "assert" statement
**********************

Assert statements are a convenient way to insert debugging asser-
tions into a program, and some say that they’re used to say “never”:

   assert_stmt ::= "assert" expression ["," expression]

The simple form of the statement is equivalent to the following one:

   if __debug__:
       if not expression: raise AssertionError

   >>> # If the class of this is the one
   >>> is_not_prose("at all in the text of the manual")

* If the target list is a single target,
  it is assigned to that target.

  * Otherwise the object has to be an iterable.

1. The first of the steps is the one that is taken before the others.

Term of the list
   The definition of the term is a sentence on its own.

+----------------------+----------------+
| Operator of the kind | What is it for |
+----------------------+----------------+

-[ Footnotes ]-

[1] The footnote of the page is here to be read by all.
"""


def test_prose_of_a_manual():
    assert list(paragraphs([MANUAL, MANUAL])) == [
        "Assert statements are a convenient way to insert debugging asser-tions into a program, "
        'and some say that they\'re used to say "never":',
        "The simple form of the statement is equivalent to the following one:",
        "If the target list is a single target, it is assigned to that target.",
        "Otherwise the object has to be an iterable.",
        "The first of the steps is the one that is taken before the others.",
        "The definition of the term is a sentence on its own.",
        "The footnote of the page is here to be read by all.",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "too few words in it",
        "The lowercase letter of the word is ß in German.",
        "Heading of the chapter in the book *****************",
        "def subscribe(obj, x): the result of the expression is not in the text",
        "x = y + z - a * b / c",
        "Zinc yellow grape apple lemon melon cherry plum",
    ],
)
def test_not_prose(text: str):
    assert not is_prose(text)


def test_lines_are_joined_at_hyphens_only_inside_words():
    assert unwrap(["left-", "hand side -", "or so --", "yes"]) == " left-hand side - or so -- yes"


@given(st.lists(st.text(alphabet=" *-1.[]ab:=>|\t", max_size=12), max_size=6))
def test_items_keep_every_letter_of_prose(lines: list[str]):
    parts = list(items(lines))
    assert all(parts)
    if parts:
        kept = "".join("".join(part) for part in parts)
        assert kept.count("a") == "".join(lines).count("a")


def test_default_text_is_clean_prose():
    topics = help_topics()
    text = default_text()
    if not topics:
        assert text == names_text()
        return
    assert 200_000 < text.n_chars < 400_000
    assert text.text.isascii() and text.text.endswith("\n") and not text.text.startswith("\n")
    assert 80 < text.n_symbols <= 96
    parts = text.text[:-1].split("\n\n")
    assert len(parts) == len(set(parts)) > 1000
    assert all("\n" not in part and "  " not in part and part == part.strip() for part in parts)
    assert not any("::=" in part or ">>>" in part[:3] for part in parts)
    assert sys.version.split()[0] in text.name
    assert default_text() == text


@pytest.mark.parametrize("found", [None, {}, ["assert"]])
def test_without_help_topics_the_names(monkeypatch: pytest.MonkeyPatch, found: object):
    module = types.ModuleType("pydoc_data.topics")
    if found is not None:
        module.topics = found  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", module)
    package = types.ModuleType("pydoc_data")
    package.topics = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pydoc_data", package)
    assert default_text() == names_text()


def test_without_the_package_the_names(monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("pydoc_data"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert default_text() == names_text()


def test_names_are_the_same_everywhere():
    text = names_text()
    assert (text.n_chars, text.n_symbols, text.text.count("\n")) == (385_085, 39, 13_789)
    assert text.sha256.startswith("a1fcf0d774e6ecc5")
    assert text.text.startswith("space\nexclamation mark\n")
    assert str(text) == (
        "names of Unicode 3.2: 385,085 characters, 39 of them different, sha256 a1fcf0d774e6ecc5"
    )


def test_a_text_shows_its_name_not_itself():
    assert repr(Text("short", "the text")) == "Text(name='short')"


@given(raw=st.text(st.characters(codec="utf-8"), min_size=1))
def test_a_file_is_read_exactly(tmp_path_factory: pytest.TempPathFactory, raw: str):
    """B1.1."""
    path = tmp_path_factory.mktemp("text") / "any.txt"
    data = raw.encode()
    path.write_bytes(data)
    text = read_text(path)
    assert text.text == raw
    assert text.name == str(path)
    assert text.sha256 == hashlib.sha256(data).hexdigest()
    assert read_text(str(path)) == text


def test_line_ends_and_marks_stay(tmp_path):
    path = tmp_path / "dos.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert read_text(path).text == "\ufeffone\r\ntwo\rthree\n"


def test_missing_file(tmp_path):
    path = tmp_path / "none.txt"
    with pytest.raises(FileNotFoundError, match=r"^read_text: there is no file .*none\.txt'$"):
        read_text(path)


def test_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder; name one text file"):
        read_text(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_unreadable_file(tmp_path):
    path = tmp_path / "secret.txt"
    path.write_text("x")
    path.chmod(0)
    with pytest.raises(PermissionError, match=r"secret\.txt' may not be read by this user"):
        read_text(path)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(13, "Permission denied"), "'a.txt' may not be read by this user"),
        (OSError(5, "Input/output error"), "'a.txt' cannot be read: Input/output error"),
    ],
)
def test_refused_by_the_system(monkeypatch: pytest.MonkeyPatch, error: OSError, sentence: str):
    def refuse(path):
        raise error

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(type(error), match=sentence):
        read_text("a.txt")


def test_not_utf8(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"a" * 1234 + "é".encode("latin-1") + b"!")
    sentence = r"not UTF-8: .* at byte 1,234 \(0xe9\); convert it"
    with pytest.raises(ValueError, match=sentence) as caught:
        read_text(path)
    assert not isinstance(caught.value, UnicodeError)


def test_empty_file(tmp_path):
    path = tmp_path / "empty.txt"
    path.touch()
    with pytest.raises(ValueError, match=r"empty\.txt' is empty"):
        read_text(path)


def test_the_short_name_is_refused():
    run = subprocess.run(
        [sys.executable, "-c", "import data"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "write `from tensorgrad.data import ...`" in run.stderr
