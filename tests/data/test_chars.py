"""Characters to ids and back: any text, unknown characters named, the description exact."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgrad.data import CharVocab

# Any character at all, lone surrogates too.
TEXT = st.text(st.characters(exclude_categories=()), min_size=1, max_size=60)


@given(TEXT)
def test_decode_undoes_encode(text: str):
    vocab = CharVocab.from_text(text)
    ids = vocab.encode(text)
    assert ids.dtype == np.int64 and ids.shape == (len(text),)
    assert vocab.decode(ids) == vocab.decode(list(ids)) == text
    assert vocab.decode(ids.astype(np.uint32)) == text


@given(TEXT)
def test_ids_are_places_in_the_sorted_alphabet(text: str):
    vocab = CharVocab.from_text(text)
    alphabet = sorted(set(text))
    assert list(vocab.symbols) == alphabet and len(vocab) == len(alphabet)
    assert vocab.encode(text).tolist() == [alphabet.index(c) for c in text]


@given(known=TEXT, text=TEXT)
def test_the_first_unknown_character_is_named(known: str, text: str):
    vocab = CharVocab.from_text(known)
    unknown = [(at, c) for at, c in enumerate(text) if c not in known]
    if not unknown:
        vocab.encode(text)
        return
    at, c = unknown[0]
    with pytest.raises(ValueError) as caught:
        vocab.encode(text)
    assert f"{c!r} (U+{ord(c):04X}) at position {at} is not among" in str(caught.value)


def test_the_sentence_for_an_unknown_character():
    with pytest.raises(ValueError) as caught:
        CharVocab("abc").encode("cab é")
    assert str(caught.value) == (
        "encode: ' ' (U+0020) at position 3 is not among the 3 characters of this vocabulary, "
        "'abc'; leave it out, or make the vocabulary from a text that has it"
    )
    many = CharVocab(map(chr, range(0x4E00, 0x5E00)))
    with pytest.raises(ValueError, match=r"4096 characters of this vocabulary, '一.* \.\.\. .*';"):
        many.encode("x")


def test_no_characters():
    assert CharVocab("ab").encode("").shape == (0,)
    assert CharVocab("ab").decode([]) == ""
    with pytest.raises(ValueError, match="at least one character"):
        CharVocab("")


@pytest.mark.parametrize(
    ("ids", "error", "sentence"),
    [
        ([0, 1, 3], IndexError, r"id 3 at position 2 is outside this vocabulary of 3 .*\(0 to 2\)"),
        ([0, -1], IndexError, "id -1 at position 1"),
        ([0.0], TypeError, "ids are integers, not float64"),
        ([[0, 1], [1, 2]], ValueError, r"one sequence of ids at a time, not an array of \(2, 2\)"),
        (1, ValueError, r"not an array of \(\)"),
    ],
)
def test_what_cannot_be_decoded(ids: object, error: type[Exception], sentence: str):
    with pytest.raises(error, match=sentence):
        CharVocab("abc").decode(ids)


@given(TEXT)
def test_the_description_goes_through_json(text: str):
    vocab = CharVocab.from_text(text)
    again = CharVocab.from_dict(json.loads(json.dumps(vocab.to_dict())))
    assert again == vocab and hash(again) == hash(vocab)
    assert again.encode(text).tolist() == vocab.encode(text).tolist()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({}, "wants"),
        ({"kind": "bpe", "symbols": "ab"}, "not .*bpe"),
        ({"kind": "characters", "symbols": ["a"]}, "wants"),
        ({"kind": "characters", "symbols": "ba"}, "not sorted"),
        ({"kind": "characters", "symbols": "aa"}, "not sorted"),
        ({"kind": "characters", "symbols": ""}, "at least one character"),
    ],
)
def test_other_descriptions_are_refused(data: dict[str, object], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        CharVocab.from_dict(data)


def test_how_it_looks():
    assert repr(CharVocab("hello")) == "CharVocab('ehlo')"
    assert CharVocab("ab") != CharVocab("abc") and CharVocab("ab") != "ab"
