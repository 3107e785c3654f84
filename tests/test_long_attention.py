"""The benchmark of long texts measures what it says, and says it; no time is held."""

import json

import pytest

from benchmarks import long_attention


@pytest.fixture
def report(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(long_attention, "QUICK", (257, 514))
    monkeypatch.setattr(long_attention, "MASKED", 300)
    file = tmp_path / "found.json"
    long_attention.main(["--quick", "--rounds", "1", "--window", "37", "--json", str(file)])
    return capsys.readouterr().out, json.loads(file.read_text())


def test_what_is_printed_and_written(report):
    text, found = report
    ways = ("window, by blocks", "all, by blocks", "all, causal kernel", "window, masked")
    for name in ways:
        assert text.count(f"\n{name} ") == 2, "a line of milliseconds, and one of MiB"
        assert found["tokens"]["257"][name]["ms"] > 0 and found["tokens"]["257"][name]["mib"] > 0
    assert "window, masked" not in found["tokens"]["514"], "T x T scores of long texts are left out"
    assert found["window"] == 37 and found["rounds"] == 1
    ours, dense = (found["tokens"]["257"][ways[i]]["mib"] for i in (0, 3))
    assert ours < dense, "the scores of a window are fewer than all"
    last, before = (found["tokens"][T][ways[0]]["mib"] for T in ("514", "257"))
    assert found["growth"]["mib"] == pytest.approx(last / before)
    assert text.count("target at most") == 3


def test_ways_that_disagree_are_not_timed(monkeypatch):
    wrong = {"all, by blocks": lambda q, k, v: q + 0 * (k + v), "all, causal kernel": None}
    real = long_attention.ways(64, 7)
    monkeypatch.setattr(
        long_attention, "ways", lambda T, window: {n: wrong.get(n) or f for n, f in real.items()}
    )
    with pytest.raises(ValueError, match="all tokens: ours gave"):
        long_attention.measure(64, 7, 1)
