"""benchmarks.speed: forty ops, equal on both sides, judged by size and mode."""

import json
import math

import numpy as np
import pytest
import torch

from benchmarks import speed
from benchmarks.harness import Pair, check, geometric_mean
from benchmarks.ours import SIDE as OURS
from benchmarks.rivals import pytorch

TORCH = pytorch()
SHAPE = (7, 11)
NAMES = list(speed.ops(OURS, SHAPE))


@pytest.fixture(autouse=True)
def one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_there_are_forty_and_three_sizes():
    assert len(NAMES) == 40 and list(speed.ops(TORCH, SHAPE)) == NAMES
    for size, wanted in (("1k", 1e3), ("100k", 1e5), ("10M", 1e7)):
        for n in (
            math.prod(speed.SIZES[size]),
            math.prod(speed.attention(math.prod(speed.SIZES[size]))),
        ):
            assert wanted <= n <= 1.03 * wanted


@pytest.mark.parametrize("name", NAMES)
def test_both_sides_compute_the_same(name):
    a, b = (speed.Case(side, speed.ops(side, SHAPE)[name]) for side in (OURS, TORCH))
    found = a.values()
    check(found, b.values(), what=name)
    assert all(x.dtype == np.float32 for x in found) and any(x.any() for x in found[1:])
    assert len(found) == 1 + len(speed.ops(OURS, SHAPE)[name].shapes)
    for case in (a, b):
        for block in case.blocks().values():
            block(2)
        assert all(leaf.grad is None for leaf in case.leaves)


def test_the_runner_writes_every_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speed, "SIZES", {"1k": (3, 5), "100k": (5, 7), "10M": (7, 11)})
    file = tmp_path / "found.json"
    speed.main(["exp", "sum dim", "--rounds", "1", "--json", str(file)])
    found = json.loads(file.read_text())
    rows = {(r["op"], r["size"], r["mode"]): r["ratio"] for r in found["rows"]}
    assert len(rows) == len(found["rows"]) == 2 * 3 * 2
    for size in speed.SIZES:
        for mode in speed.MODES:
            ratios = [ratio for key, ratio in rows.items() if key[1:] == (size, mode)]
            assert found["means"][f"{size}, {mode}"] == pytest.approx(geometric_mean(ratios))
    printed = capsys.readouterr().out
    assert printed.count("geometric mean of 2 ratios") == 6 and "slower than 3 times" in printed
    speed.main(["exp", "--quick", "--rounds", "1"])
    assert "10M elements" not in capsys.readouterr().out


def test_what_is_not_equal_is_not_timed(tmp_path, monkeypatch, capsys):
    right = speed.ops

    def wrong(side, shape):
        table = right(side, shape)
        return table | {"exp": speed.Op(side.lib.exp if side is TORCH else side.lib.sin, [shape])}

    monkeypatch.setattr(speed, "SIZES", {"1k": (3, 5)})
    monkeypatch.setattr(speed, "ops", wrong)
    file = tmp_path / "found.json"
    with pytest.raises(SystemExit, match=r"exp at 1k, result and gradients\[0\]: ours gave"):
        speed.main(["exp", "sum", "--sizes", "1k", "--rounds", "1", "--json", str(file)])
    found = json.loads(file.read_text())
    assert {r["op"] for r in found["rows"]} == {"sum"} and len(found["unequal"]) == 1
    assert "not equal, not timed" in capsys.readouterr().out


def test_the_slow_ones_are_named(capsys):
    slow, fast = Pair((4.0,), (1.0,), (1, 1)), Pair((0.25,), (1.0,), (1, 1))
    means = speed.judge({("a", "1k", "forward"): slow, ("b", "1k", "forward"): fast})
    assert means == {"1k, forward": pytest.approx(1.0)}
    printed = capsys.readouterr().out
    assert "target at most 0.75, MISSED" in printed and "times: a 1k forward 4.0\n" in printed


def test_the_runner_refuses_in_sentences(capsys):
    with pytest.raises(SystemExit) as stop:
        speed.main(["sine"])
    assert stop.value.code == 2 and "sine: choose from add" in capsys.readouterr().err
