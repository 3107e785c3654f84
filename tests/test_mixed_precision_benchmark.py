"""The benchmark of mixed precision, on a tiny GPT-2: it compares before it times, and by turns."""

import json

import pytest

from benchmarks import mixed_precision
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel

SIZES = {"vocab_size": 53, "n_positions": 41, "n_embd": 24, "n_layer": 2, "n_head": 3}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    def make(name, dropout):
        return GPT2LMHeadModel(GPT2Config(**SIZES, dropout=dropout))

    monkeypatch.setattr(mixed_precision.GPT2LMHeadModel, "from_config", make)
    monkeypatch.setattr(mixed_precision, "SHAPES", ((2, 7), (3, 5)))
    return make("gpt2", 0.0)


def test_from_end_to_end(tmp_path, capsys):
    file = tmp_path / "mixed.json"
    mixed_precision.main(["--rounds=3", "--json", str(file)])
    out = capsys.readouterr().out
    assert "3 interleaved rounds" in out and "2 x 7" in out and "3 x 5" in out
    found = json.loads(file.read_text())
    assert [(row["B"], row["T"], row["rounds"]) for row in found["rows"]] == [(2, 7, 3), (3, 5, 3)]
    for row in found["rows"]:
        assert row["times_faster"] == pytest.approx(1 / row["ratio"])


def test_where_there_are_no_such_products_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(mixed_precision, "preferred_dtype", lambda device: "float32")
    mixed_precision.main(["--rounds=1"])
    assert "pip install mkl" in capsys.readouterr().out


def test_other_losses_are_not_timed(tiny, monkeypatch):
    calls = []

    def forward(x, y, return_logits):
        calls.append(x)
        _, loss = GPT2LMHeadModel.forward(tiny, x, y, return_logits)
        return None, loss * len(calls)

    monkeypatch.setattr(tiny, "forward", forward)
    with pytest.raises(ValueError, match="the loss of 2 x 7 tokens"):
        mixed_precision.race(tiny, 2, 7, 1)
    assert len(calls) == 2


def test_turns(tiny, monkeypatch):
    seen = []
    autocast_for = mixed_precision.autocast_for

    def noted(device, dtype):
        seen.append((device, dtype))
        return autocast_for(device, dtype)

    monkeypatch.setattr(mixed_precision, "autocast_for", noted)
    pair = mixed_precision.race(tiny, 2, 7, 3)
    order = [dtype for _, dtype in seen[2:]]
    b, f = "bfloat16", "float32"
    assert order == [b, f, f, b, b, f] and {device for device, _ in seen} == {"cpu"}
    assert len(pair.ours) == len(pair.rival) == 3
