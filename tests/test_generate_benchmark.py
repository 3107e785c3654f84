"""The benchmark of generation, on a tiny GPT-2: it compares before it times, and times by turns."""

import json

import numpy as np
import pytest

from benchmarks import generate
from benchmarks.rivals import transformers_gpt2 as rival
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel

SIZES = {"vocab_size": 53, "n_positions": 41, "n_embd": 24, "n_layer": 2, "n_head": 3}


def tiny(*_):
    return GPT2LMHeadModel(GPT2Config(**SIZES, initializer_range=0.5))


def test_from_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(generate.GPT2LMHeadModel, "from_config", tiny)
    file = tmp_path / "generate.json"
    generate.main(["--prompt=7", "--new=9", "--rounds=3", "--json", str(file)])
    out = capsys.readouterr().out
    assert "9 tokens after 7, 3 interleaved rounds" in out and "int8 weights write" in out
    found = json.loads(file.read_text())
    assert [row["weights"] for row in found["rows"]] == ["float32", "int8"]
    for row in found["rows"]:
        assert row["rounds"] == 3
        assert row["tokens_per_second"] == pytest.approx(9e6 / row["ours_us"])
        assert row["times_faster"] == pytest.approx(1 / row["ratio"])


def test_the_rival_has_our_weights():
    model = tiny().eval()
    theirs = rival.greedy({k: np.asarray(w) for k, w in model.state_dict().items()}, SIZES)
    idx = np.random.default_rng(1).integers(0, 53, (1, 7))
    np.testing.assert_array_equal(theirs(idx, 11), generate.ours(model)(idx, 11))


def test_other_tokens_are_not_timed():
    with pytest.raises(ValueError, match=r"token 2: ours gave 5, the rival 6"):
        generate.compare(
            lambda ids, n: np.array([[1, 2, 5]]), lambda ids, n: np.array([[1, 2, 6]]), None, 1
        )


def test_turns():
    log = []
    pair = generate.race(
        lambda ids, n: log.append(("a", n)), lambda ids, n: log.append(("b", n)), None, 5, 3
    )
    assert log == [(side, 5) for side in "abbaab"]
    assert len(pair.ours) == len(pair.rival) == 3
