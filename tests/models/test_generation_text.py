"""Text in pieces: what a vocabulary spells, character by character, and bytes that make one."""

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.data import CharVocab
from tensorgrad.models.generation.text import pieces, write
from tests.models.test_char_gpt import twins

VOCAB = CharVocab("abcdefghijklmnopqrs .,\n")


def test_pieces_are_the_text():
    model, _ = twins()
    assert len(VOCAB) == model.config.vocab_size
    tg.manual_seed(3)
    written = list(write(model, VOCAB, "a bad cab", 17, top_k=9))
    tg.manual_seed(3)
    whole = model.generate(tg.tensor(VOCAB.encode("a bad cab")[None]), 17, top_k=9)
    assert len(written) == 17
    assert "".join(written) == VOCAB.decode(np.asarray(whole[0, 9:]))


def test_it_stops_at_a_string():
    model, _ = twins()
    free = "".join(write(model, VOCAB, "a", 40, temperature=0))
    piece = free[5:7]
    text = "".join(write(model, VOCAB, "a", 40, temperature=0, stop_strings=piece))
    assert text == free[: free.index(piece) + 2]


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("wxyz", {}, "'w' .* is not among the 23 characters"),
        ("", {}, "at least one token"),
        ("a", {"temperature": -1.0}, "temperature must be at least 0, it is -1.0"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_written(text, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        write(twins()[0], VOCAB, text, 5, **options)


def test_characters_of_several_tokens_come_whole():
    tokens = list("aé€𝛿b".encode())
    seen = list(pieces(tokens, lambda ids: bytes(ids).decode(errors="replace")))
    assert seen == ["a", "é", "€", "𝛿", "b"]
    cut = list(pieces(tokens[:5], lambda ids: bytes(ids).decode(errors="replace")))
    assert cut == ["a", "é", "\N{REPLACEMENT CHARACTER}"]
