"""The benchmarks measure what they say: both sides run the same programs with equal results, rounds
alternate, means and quartiles are right, and every mistake is told in a sentence.  No time is held.
"""

import gc
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import harness, importtime, ladder, memory, overhead, peak_memory, report
from benchmarks.harness import Pair, Side, check, geometric_mean, interleave
from benchmarks.ours import SIDE as OURS
from benchmarks.programs import (
    MATMUL_SHAPES,
    SHAPES,
    BlockSize,
    Case,
    GPT2Block,
    Makemore,
    gather,
    ops,
)
from benchmarks.rivals import pytorch

TORCH = pytorch()
SMALL = BlockSize(B=2, T=7, C=15, heads=3)


@pytest.fixture(autouse=True)
def one_torch_thread():
    """On a busy machine two threads wait for each other; settle() changes their number, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# -- check ----------------------------------------------------------------------------------------

X = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)


def test_check_passes_equal_and_close_results():
    check(X, X)
    check([X, 2.5], [X + np.float32(1e-6), 2.5])
    check(np.empty((0, 3)), np.empty((0, 3)))
    check([1.0, 2.0], [1.0, 2.0002], rtol=1e-3)


@pytest.mark.parametrize(
    "ours, says",
    [
        (X + np.float32(1e-3), r"op: ours gave 1\.001\S* at index \(0, 0\), the rival 1\.0"),
        (X.astype(np.float64), r"float64 of shape \(2, 3\), the rival float32 of shape \(2, 3\)"),
        (X.T, r"float32 of shape \(3, 2\)"),
        (np.where(X == 5, np.float32("nan"), X), r"nan at index \(1, 1\)"),
        (np.where(X == 6, np.float32("inf"), X), r"inf at index \(1, 2\)"),
    ],
)
def test_check_tells_what_differs(ours, says):
    with pytest.raises(ValueError, match=says):
        check(ours, X, what="op")


def test_check_accepts_no_nan_even_on_both_sides():
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not timed"):
            check(np.array([1.0, bad]), np.array([1.0, bad]))


def test_check_goes_through_lists_item_by_item():
    with pytest.raises(ValueError, match=r"step\[1\]: ours gave 3\.0"):
        check([X, 3.0], [X, 2.0], what="step")
    with pytest.raises(ValueError, match="step: ours gave 2 results, the rival 1"):
        check([X, X], [X], what="step")


# -- means ----------------------------------------------------------------------------------------

ratios = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=11)


@given(ratios, st.floats(1e-3, 1e3))
def test_geometric_mean_is_the_root_of_the_product(rs: list[float], c: float):
    mean = geometric_mean(rs)
    assert mean ** len(rs) == pytest.approx(math.prod(rs), rel=1e-9)
    assert geometric_mean([c * r for r in rs]) == pytest.approx(c * mean)
    assert geometric_mean([1 / r for r in rs]) == pytest.approx(1 / mean)


def test_a_pair_reports_medians_and_quartiles_of_its_rounds():
    pair = Pair(ours=(1e-6, 3e-6, 2e-6), rival=(2e-6, 2e-6, 8e-6), loops=(5, 7))
    assert pair.ratios == pytest.approx([0.5, 1.5, 0.25])
    assert pair.ratio == pytest.approx(0.5)
    found = pair.figures()
    assert found["ours_us"] == pytest.approx(2) and found["rival_us"] == pytest.approx(2)
    assert found["ratio_of_medians"] == pytest.approx(1)
    assert found["ratio_quartiles"] == pytest.approx([0.375, 1.0])
    assert (found["rounds"], found["loops"], found["disturbed"]) == (3, [5, 7], 0)


# -- timing ---------------------------------------------------------------------------------------


def clock_of(costs: dict[str, float], log: list[str]) -> Callable[[object, int], float]:
    """A stand-in for `elapsed` whose blocks are names with a fixed cost per call."""

    def elapsed(block: object, n: int) -> float:
        log.append(str(block))
        return costs[str(block)] * n

    return elapsed


def test_blocks_take_turns_and_are_calibrated_by_side(monkeypatch):
    log: list[str] = []
    clock = clock_of({"ours": 1e-6, "rival": 4e-6}, log)
    monkeypatch.setattr(harness, "elapsed", clock)
    monkeypatch.setattr(harness, "interruptions", lambda: 0)
    pair = interleave("ours", "rival", rounds=5, seconds=1e-3)  # type: ignore[arg-type]
    assert log[-10:] == ["ours", "rival", "rival", "ours"] * 2 + ["ours", "rival"]
    assert pair.loops == (1000, 250)
    assert pair.ratios == pytest.approx([0.25] * 5)


def test_interrupted_rounds_are_repeated_and_in_the_end_accepted(monkeypatch):
    monkeypatch.setattr(harness, "elapsed", clock_of({"a": 1.0, "b": 2.0}, []))
    said = iter([0, 1, 1, 1, 1, 2, 2, 2, *[0, 1] * 100])  # before and after each round
    monkeypatch.setattr(harness, "interruptions", lambda: next(said))
    pair = interleave("a", "b", rounds=2)  # type: ignore[arg-type]
    assert (len(pair.ours), pair.disturbed) == (2, 0)
    pair = interleave("a", "b", rounds=3)  # type: ignore[arg-type]
    assert (len(pair.ours), pair.disturbed) == (3, 3)


def test_the_collector_is_off_inside_a_block_and_as_before_outside():
    seen = []
    for was_on in (True, False):
        (gc.enable if was_on else gc.disable)()
        try:
            harness.elapsed(lambda n: seen.append(gc.isenabled()), 1)
            assert gc.isenabled() == was_on
            with pytest.raises(ZeroDivisionError):
                harness.elapsed(lambda n: 1 / 0, 1)
            assert gc.isenabled() == was_on
        finally:
            gc.enable()
    assert seen == [False, False]


def test_a_looped_block_calls_n_times_with_the_arguments():
    calls = []
    block = harness.looped(lambda *args: calls.append(args), 2, 3)
    block(5)
    assert calls == [(2, 3)] * 5
    pair = interleave(block, harness.looped(int), rounds=3, seconds=1e-5)
    assert len(pair.ours) == len(pair.rival) == 3
    assert min(*pair.ours, *pair.rival) > 0 and min(pair.loops) >= 1


def test_a_side_settles_on_its_fastest_number_of_threads(monkeypatch):
    now: list[int] = []
    side = replace(TORCH, threads=(1, 2, 3), set_threads=now.append)
    cost = {1: 5.0, 2: 3.0, 3: 4.0}
    monkeypatch.setattr(harness, "elapsed", lambda block, n: cost[now[-1]] * n)
    assert harness.settle(side, lambda n: None) == 2 == now[-1]
    assert harness.settle(OURS, lambda n: None) is None


# -- both sides run the same programs -------------------------------------------------------------


def test_both_tables_name_the_ten_ops():
    assert tuple(ops(OURS.lib)) == tuple(ops(TORCH.lib)) == overhead.TEN


@pytest.mark.parametrize("name", [*overhead.TEN, "gather"])
def test_both_sides_give_the_same_values_and_gradients(name: str):
    for shape in (MATMUL_SHAPES if name == "matmul" else SHAPES).values():
        a, b = (Case(side, overhead.named(name, side, shape), shape) for side in (OURS, TORCH))
        ours, rival = a.values(), b.values()
        check(ours, rival, what=name)
        assert len(rival) == 1 + len(b.leaves)
        b.backward = torch.Tensor.backward  # what the shortest way must equal
        check(b.values(), rival, rtol=0, what=name)
        for case in (a, b):
            for block in case.blocks().values():
                block(2)
            assert all(leaf.grad is None for leaf in case.leaves)


def test_the_gather_meets_some_index_twice():
    (index,) = gather(torch, 64).extra
    assert len(set(index.tolist())) < 64  # so its gradient must add


def test_makemore_has_equal_losses_and_learns():
    losses, expected = Makemore(OURS).losses(20), Makemore(TORCH).losses(20)
    check(losses, expected, 1e-4)
    assert losses[0] == pytest.approx(math.log(27), abs=0.1)
    model = Makemore(TORCH)
    first, last = model.losses(20), [model.losses(20) for _ in range(8)][-1]
    assert np.mean(last) < np.mean(first) - 0.5


def test_the_block_is_gpt2s():
    """PyTorch's own encoder layer, pre-norm and causal, has the same output and gradients."""
    block = GPT2Block(TORCH, SMALL)
    found = block.values()
    C, T = SMALL.C, SMALL.T
    gelu = torch.nn.GELU("tanh")
    layer = torch.nn.TransformerEncoderLayer(
        C, SMALL.heads, 4 * C, 0.0, gelu, batch_first=True, norm_first=True
    )
    names = {
        "self_attn.in_proj_": "attn.c_attn.",
        "self_attn.out_proj.": "attn.c_proj.",
        "linear1.": "mlp.c_fc.",
        "linear2.": "mlp.c_proj.",
        "norm1.": "ln_1.",
        "norm2.": "ln_2.",
    }
    pairs = {a + kind: b + kind for a, b in names.items() for kind in ("weight", "bias")}
    layer.load_state_dict({a: block.leaves[b].detach() for a, b in pairs.items()})
    x = block.leaves["x"].detach().clone().requires_grad_()
    out = layer(x, src_mask=torch.full((T, T), -torch.inf).triu(1), is_causal=True)
    out.backward(block.g)
    check(found["out"], out.detach().numpy(), 1e-5)
    check(found["x"], x.grad.numpy(), 1e-5)
    for a, b in pairs.items():
        check(found[b], layer.get_parameter(a).grad.numpy(), 1e-5, b)


def test_both_sides_agree_on_the_block():
    ours, rival = GPT2Block(OURS, SMALL).values(), GPT2Block(TORCH, SMALL).values()
    assert ours.keys() == rival.keys() and len(rival) == 14
    for name in rival:
        check(ours[name], rival[name], 1e-5, name)


# -- memory ---------------------------------------------------------------------------------------

NEEDS_LINUX = pytest.mark.skipif(
    not memory.CLEAR_REFS.exists(), reason="resident peaks are read from Linux's /proc"
)


@NEEDS_LINUX
def test_the_resident_peak_sees_what_is_already_freed():
    memory.trim()
    memory.forget_peak()
    before = memory.resident()
    np.ones(1 << 23)  # 64 MiB, touched, freed
    assert 60 << 20 < memory.resident_peak() - before < 80 << 20
    assert memory.resident() - before < 8 << 20
    memory.trim()
    memory.forget_peak()
    assert memory.resident_peak() - before < 8 << 20


@pytest.mark.parametrize("side", [OURS, TORCH], ids=lambda side: side.name)
def test_the_allocators_peak_counts_what_lives_at_once(side: Side):
    array = np.zeros(1 << 18, np.float32)  # 1 MiB
    x = side.lib.tensor(array)
    kept = []

    def three_in_turn_one_at_a_time():
        for _ in range(3):
            x + x

    def three_at_once():
        kept.extend([x + x, x + x, x + x])

    assert side.allocator_peak(three_in_turn_one_at_a_time) == pytest.approx(1 << 20, rel=0.05)
    assert side.allocator_peak(three_at_once) == pytest.approx(3 << 20, rel=0.05)


@NEEDS_LINUX
def test_one_side_is_measured_and_saved(tmp_path: Path):
    file = tmp_path / "torch.npz"
    found = peak_memory.measure(TORCH, SMALL, "allocator", file)
    weights_and_x = sum(leaf.numel() * 4 for leaf in GPT2Block(TORCH, SMALL).leaves.values())
    assert found["bytes"] > weights_and_x  # every gradient is in it
    larger = peak_memory.measure(TORCH, BlockSize(2, 64, 192, 12), "process")
    assert larger["bytes"] > 192 * 12 * 192 * 4  # the gradients of the four matrices
    assert peak_memory.agree(file, file) == "output and 13 gradients equal within 0.0001"

    other = dict(np.load(file))
    other["ln_1.bias"] = other["ln_1.bias"] + 1
    np.savez(tmp_path / "other.npz", **other)
    with pytest.raises(ValueError, match=r"the block's ln_1\.bias: ours gave"):
        peak_memory.agree(tmp_path / "other.npz", file)


def test_without_proc_there_is_a_sentence(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "no" / "clear_refs")
    with pytest.raises(OSError, match="measuring memory must read"):
        memory.resident()
    with pytest.raises(OSError, match="measuring peak memory must write"):
        memory.forget_peak()


@pytest.mark.slow
@NEEDS_LINUX
def test_peak_memory_from_end_to_end(tmp_path: Path, capsys):
    file = tmp_path / "peak.json"
    peak_memory.main(["--quick", "--json", str(file)])
    found = json.loads(file.read_text())
    for figure in peak_memory.FIGURES:
        sides = found[figure]
        assert sides["ratio"] == pytest.approx(sides["ours_bytes"] / sides["rival_bytes"])
        assert sides["runs"].keys() == set(peak_memory.SIDES)
    assert "gradients equal within" in capsys.readouterr().out


# -- import time ----------------------------------------------------------------------------------

REPORT = """\
import time: self [us] | cumulative | imported package
import time:      9000 |       9000 | site
import time:       120 |        120 |     numpy.version
import time:      1680 |     144983 |   numpy
import time:       500 |        500 |   tensorgrad.node
import time:      2000 |     150000 | tensorgrad
"""


def test_import_times_are_read_in_seconds():
    times = importtime.parse(REPORT)
    assert times["numpy"] == (pytest.approx(0.00168), pytest.approx(0.144983), 3)
    assert list(times) == ["site", "numpy.version", "numpy", "tensorgrad.node", "tensorgrad"]
    assert importtime.below(times, "numpy") == {"numpy", "numpy.version"}
    own = importtime.own_times([times, times])
    assert own == [("tensorgrad", 0.002), ("tensorgrad.node", 0.0005)]


def test_a_fresh_interpreter_is_asked():
    assert "fractions" in importtime.imported_by("fractions")
    assert importtime.import_times("fractions")["fractions"].total > 0
    with pytest.raises(SystemExit, match="No module named 'no_such_module'"):
        importtime.imported_by("no_such_module")


def test_a_heavy_import_fails_the_run(monkeypatch, tmp_path: Path, capsys):
    file = tmp_path / "import.json"
    monkeypatch.setattr(importtime, "import_times", lambda module: importtime.parse(REPORT))
    monkeypatch.setattr(importtime, "imported_by", lambda module: ["re", "scipy.special", "scipy"])
    with pytest.raises(SystemExit, match="must import none of them: scipy"):
        importtime.main(["--quick", "--json", str(file)])
    found = json.loads(file.read_text())
    assert found["heavy"] == ["scipy"]
    assert found["beyond_numpy_s"] == pytest.approx(0.005017)
    assert "beyond NumPy: 0.005 s, target at most 0.15 s, met" in capsys.readouterr().out


def test_tensorgrad_imports_nothing_heavy():
    assert importtime.HEAVY.isdisjoint(
        name.split(".")[0] for name in importtime.imported_by("tensorgrad")
    )


# -- the runner -----------------------------------------------------------------------------------


def test_overhead_from_end_to_end(tmp_path: Path, capsys):
    file = tmp_path / "overhead.json"
    overhead.main(["add", "matmul", "gather", "makemore", "--rounds", "1", "--json", str(file)])
    found = json.loads(file.read_text())
    assert found["benchmark"] == "overhead"
    assert {"cpu", "cores", "numpy", "blas", "thread_pools", "sides"} <= found["environment"].keys()
    assert found["environment"]["sides"].keys() == {"tensorgrad", "PyTorch"}
    rows = {(row["op"], row["size"], row["mode"]): row for row in found["rows"]}
    assert len(rows) == len(found["rows"]) == 3 * (4 + 3 + 4)
    judged = {
        key: row["ratio"]
        for key, row in rows.items()
        if key[0] != "gather" and key[1] in overhead.JUDGED
    }
    assert len(judged) == 2 * 2 * 3
    for mode in overhead.MODES:
        of_mode = [ratio for key, ratio in judged.items() if key[2] == mode]
        assert found["means"][mode] == pytest.approx(geometric_mean(of_mode))
    assert found["means"]["worst"] == max(judged.values())
    assert found["makemore"]["rounds"] == 2
    printed = capsys.readouterr().out
    assert "target at most 0.75" in printed and "20 losses equal within" in printed


@pytest.mark.parametrize("name", ladder.MODELS)
def test_the_ladder_trains_the_same_on_both_sides(name: str):
    """From the same weights, on the same batches, by the same recipe: the same losses."""
    a, b = ladder.text_sides(None) if name == "char-gpt" else ladder.word_sides(name, None)
    n = 3 if name == "char-gpt" else 50
    losses, expected = [a.step() for _ in range(n)], [b.step() for _ in range(n)]
    check(losses, expected, 1e-4)
    assert len(set(losses)) == n and np.mean(losses[-5:]) < losses[0]
    a.block(2)
    b.block(2)
    check(a.step(), b.step(), 1e-4)


def test_the_ladder_from_end_to_end(tmp_path: Path, capsys):
    file = tmp_path / "ladder.json"
    ladder.main(["mlp", "--quick", "--json", str(file)])
    found = json.loads(file.read_text())
    (row,) = found["rows"]
    assert (row["model"], row["rounds"], found["full"]) == ("mlp", 11, None)
    assert "mlp: " in (printed := capsys.readouterr().out) and "target at most 0.75" in printed
    with pytest.raises(SystemExit):
        ladder.main(["mpl"])
    assert "mpl: choose from mlp, wavenet, char-gpt" in capsys.readouterr().err


def test_a_whole_training_is_timed_in_turns(monkeypatch, capsys):
    """Each side takes every step once, a hundred at a time, and is judged by its own model."""
    log: list[tuple[str, int]] = []

    def steps(name: str, val: float) -> ladder.Steps:
        return ladder.Steps(lambda: 0.0, lambda n: log.append((name, n)), lambda: val)

    monkeypatch.setattr(ladder, "text_sides", lambda file: (None, None))
    monkeypatch.setattr(ladder, "settled", lambda *_: "1, 1")
    found = ladder.trained(steps("a", 1.88), steps("b", 1.89), OURS, TORCH, 400)
    assert log == [("a", 100), ("b", 100), ("b", 100), ("a", 100)] * 2
    assert (found["ours_val"], found["rival_val"]) == (1.88, 1.89)
    assert "validation loss 1.8800" in capsys.readouterr().out


def test_the_ladders_rates_are_the_trainers():
    """Warm-up, cosine, end: what the rival is told is what our trainer takes."""
    recipe = ladder.Recipe(max_iters=9, warmup_iters=3, eval_interval=9, eval_iters=1, batch_size=1)
    corpus = ladder.Corpus(ladder.default_text())
    model = ladder.CharGPT(ladder.CharGPTConfig(len(corpus.vocab), 8, 1, 1, 4))
    trainer = ladder.Trainer(model, recipe, corpus.windows(8, 1))
    taken = [step.lr for step in trainer.steps()]
    assert len(set(taken)) > 5 and max(taken) == pytest.approx(recipe.learning_rate)
    assert ladder.schedule(recipe) == pytest.approx(taken)


def test_the_runner_refuses_in_sentences(tmp_path: Path, capsys):
    for arguments, says in (
        (["sine"], "sine: choose from add, mul"),
        (["--rounds", "0"], "0 is not a whole number of at least 1"),
        (["--json", str(tmp_path)], "is a folder; name a file in it"),
        (["--json", str(tmp_path / "no" / "x.json")], "its folder does not exist"),
    ):
        with pytest.raises(SystemExit) as stop:
            overhead.main(arguments)
        assert stop.value.code == 2
        assert says in capsys.readouterr().err


def test_a_missing_rival_is_a_sentence_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "benchmarks.rivals.torch_ops")
    with pytest.raises(SystemExit, match=r"PyTorch, which is not installed: pip install torch"):
        pytorch()


def test_tables_and_verdicts():
    assert [report.digits(x) for x in (0.6129, 1.0749, 12.34, 4567.8)] == [
        "0.613",
        "1.07",
        "12.3",
        "4568",
    ]
    assert report.row(("add", 0.5, "4x4"), (5, 7, 4)) == "add      0.500   4x4"
    assert report.verdict("mean", 0.75, 0.75) == "mean: 0.750, target at most 0.75, met"
    assert report.verdict("mean", 0.76, 0.75) == "mean: 0.760, target at most 0.75, MISSED"


def test_the_heading_names_the_machine_and_warns_where_it_is_busy():
    facts = report.environment(OURS, TORCH) | {"load": 0.0, "cores": 2}
    text = report.heading(facts)
    assert str(np.__version__) in text and torch.__version__ in text and "openblas" in text.lower()
    assert "busy" not in text
    assert "busy" in report.heading(facts | {"load": 1.9})
