"""Words: contexts as the lectures' loops make them, the seeded split, vocabularies, bad files."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgrad.data import Text, WordVocab, contexts, names, split_words, words_of
from tests.tree import ROOT

NAMES = ROOT.parent / "shared/data/names.txt"

letters = st.text("abcé\U0001f600 -", min_size=1, max_size=7).map(str.strip).filter(bool)
word_lists = st.lists(letters, min_size=1, max_size=11)


def build_dataset(words, stoi, block_size):
    """The loop of the lectures."""
    X, Y = [], []
    for w in words:
        context = [0] * block_size
        for ch in [*w, "."]:
            ix = stoi[ch]
            X.append(context)
            Y.append(ix)
            context = [*context[1:], ix]
    return X, Y


@given(word_lists, st.integers(1, 9))
def test_contexts_are_the_lectures(words, block_size):
    """G2.c1."""
    vocab = WordVocab(words)
    stoi = {symbol: i for i, symbol in enumerate(vocab.symbols)}
    x, y = contexts(words, vocab, block_size)
    X, Y = build_dataset(words, stoi, block_size)
    assert x.dtype == y.dtype == np.int64 and x.flags.c_contiguous
    assert x.tolist() == X and y.tolist() == Y


@given(word_lists)
def test_a_vocabulary_there_and_back(words):
    vocab = WordVocab(words)
    assert vocab.symbols[0] == "." and list(vocab.symbols[1:]) == sorted(set("".join(words)))
    for word in words:
        ids = vocab.encode(word)
        assert ids.min() >= 1 and vocab.decode(ids) == word
    again = WordVocab.from_dict(vocab.to_dict())
    assert again == vocab and hash(again) == hash(vocab) and len(again) == len(vocab)


def test_an_unknown_character_is_explained():
    """B2.36: not a KeyError."""
    with pytest.raises(ValueError, match=r"'é' \(U\+00E9\) at position 2 is not among the 3 char"):
        WordVocab(["abc"]).encode("abé")


@given(st.lists(letters, min_size=10, max_size=60), st.integers(0, 99))
def test_the_split_is_that_of_the_random_module(words, seed):
    expected = list(words)
    random.seed(seed)
    random.shuffle(expected)
    state = random.getstate()
    n1, n2 = int(0.8 * len(words)), int(0.9 * len(words))
    parts = split_words(words, seed)
    assert parts == {"train": expected[:n1], "val": expected[n1:n2], "test": expected[n2:]}
    assert all(parts.values()) and random.getstate() == state, "the global stream stays put"


@pytest.mark.skipif(not NAMES.exists(), reason="makemore's names are not here")
def test_the_lectures_numbers():
    """B2.15: what the notes call a trigram sees three characters before the next: a 4-gram."""
    words = words_of(names(NAMES))
    vocab = WordVocab(words)
    assert len(words) == 32_033 and vocab.symbols == ".abcdefghijklmnopqrstuvwxyz"
    parts = {part: contexts(w, vocab, 3) for part, w in split_words(words).items()}
    sizes = {part: (x.shape, y.shape) for part, (x, y) in parts.items()}
    assert sizes == {
        "train": ((182_625, 3), (182_625,)),
        "val": ((22_655, 3), (22_655,)),
        "test": ((22_866, 3), (22_866,)),
    }


def test_the_embedded_words_are_the_same_in_every_python():
    text = names()
    words = words_of(text)
    assert text.sha256.startswith("d3b2d871425474b4")
    assert len(words) == len(set(words)) == 3854 and words == sorted(words)
    assert {"omega", "alef", "dagaz"} <= set(words)
    assert all(3 <= len(word) <= 12 and word.isalpha() for word in words)


def test_lines_are_words(tmp_path: Path):
    file = tmp_path / "words.txt"
    file.write_bytes("emma\r\n\r\n  olivia \nJosé María".encode())
    assert words_of(names(file)) == ["emma", "olivia", "José María"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("\n \r\n\t\n", "'w.txt' has no words; write one a line"),
        ("emma\nSt. Ives\n", r"'w.txt': 'St. Ives' has a '\.', which marks where words begin"),
    ],
)
def test_files_without_words(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        words_of(Text("w.txt", text))


def test_too_few_words():
    with pytest.raises(ValueError, match="9 words, one a line, are too few for a tenth"):
        split_words(["a"] * 9)
    assert [len(part) for part in split_words(["a"] * 10).values()] == [8, 1, 1]


def test_no_context():
    with pytest.raises(ValueError, match="block_size must be at least 1, it is 0"):
        contexts(["a"], WordVocab(["a"]), 0)


def test_what_is_no_vocabulary():
    with pytest.raises(ValueError, match=r'WordVocab.from_dict: wants \{"kind": "words"'):
        WordVocab.from_dict({"kind": "characters", "symbols": "ab"})
