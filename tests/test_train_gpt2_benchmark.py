"""The benchmark of GPT-2's training steps, on a tiny one: it compares before it times, by turns."""

import json

import pytest

from benchmarks import train_gpt2
from benchmarks.rivals import transformers_gpt2
from tensorgrad.models.gpt2 import GPT2Config

TINY = {"vocab_size": 53, "n_positions": 41, "n_embd": 24, "n_layer": 2, "n_head": 3}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(train_gpt2, "GPT2Config", lambda **sizes: GPT2Config(**TINY, dropout=0.0))
    monkeypatch.setattr(train_gpt2, "SHAPES", ((2, 7), (3, 5)))
    monkeypatch.setattr(train_gpt2, "PAUSE", 0.0)


def test_from_end_to_end(tmp_path, capsys):
    file = tmp_path / "train.json"
    train_gpt2.main(["--rounds=2", "--json", str(file)])
    out = capsys.readouterr().out
    assert "2 interleaved steps" in out and "largest ratio" in out
    found = json.loads(file.read_text())
    shapes = [(row["B"], row["T"]) for row in found["rows"] if row["dtype"] == "float32"]
    assert shapes == [(2, 7), (3, 5)]
    assert all(row["rounds"] == 2 for row in found["rows"])


def test_other_losses_are_not_timed(monkeypatch):
    make = transformers_gpt2.training

    def wrong(*args):
        step = make(*args)
        return lambda *given: step(*given) * 1.01

    monkeypatch.setattr(transformers_gpt2, "training", wrong)
    with pytest.raises(ValueError, match="the loss of step 1, float32, 2 x 7"):
        train_gpt2.race(GPT2Config(**TINY, dropout=0.0), "float32", 2, 7, 1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_as_many_of_either_side(dtype):
    """Three steps are compared, then three are timed, on either side."""
    pair = train_gpt2.race(GPT2Config(**TINY, dropout=0.0), dtype, 2, 7, 3)
    assert len(pair.ours) == len(pair.rival) == 3
