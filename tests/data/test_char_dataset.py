"""CharDataset: every window with its successor, and the errors of windows that are not there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgrad.data import CharDataset, CharVocab, Text


@given(st.text(min_size=2, max_size=40), st.data())
def test_every_window(text, data):
    """F1.4."""
    text = text.encode("utf-8", "replace").decode()
    T = data.draw(st.integers(1, len(text) - 1))
    dataset = CharDataset(text, T)
    assert len(dataset) == len(text) - T
    for i, (x, y) in enumerate(dataset):
        assert x.dtype == y.dtype == np.int64 and x.shape == y.shape == (T,)
        assert dataset.decode(x) == text[i : i + T] and dataset.decode(y) == text[i + 1 : i + T + 1]
    x, y = dataset[-1]
    assert dataset.decode(y) == text[-T:]


def test_alphabet_and_size():
    dataset = CharDataset(Text("greeting", "hello"), 3)
    assert dataset.vocab_size == 4 and dataset.encode("hole").tolist() == [1, 3, 2, 0]
    assert dataset.stoi == {"e": 0, "h": 1, "l": 2, "o": 3}
    assert dataset.itos == {i: symbol for symbol, i in dataset.stoi.items()}
    assert repr(dataset) == "CharDataset(2 windows of 3, 4 symbols)"


def test_a_validation_text_has_the_training_texts_alphabet():
    vocab = CharVocab("helo ")
    assert CharDataset("hole", 2, vocab)[0][0].tolist() == vocab.encode("ho").tolist()
    with pytest.raises(ValueError, match=r"'x'.* at position 2 is not among the 5 characters"):
        CharDataset("hoxe", 2, vocab)


def test_what_is_not_there():
    dataset = CharDataset("hello", 3)
    for i in (2, -3):
        with pytest.raises(IndexError, match=f"window {i} of 2 windows"):
            dataset[i]
    with pytest.raises(ValueError, match="5 ids are too few for one block of 5 and the id after"):
        CharDataset("hello", 5)
