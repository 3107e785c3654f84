"""The reckoning of docs/scaling.md: rows by hand, what is measured against arithmetic, and that the
page shows what the script prints.
"""

import json
import math
from pathlib import Path

import pytest

pytest.importorskip("mpi4py")

from benchmarks import scaling, scaling_measured
from benchmarks.scaling import Measured, plan, table

PAGE = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text()
MEASURED = Measured(
    weights=4, gradients=4, moments=8, dispatch=0.0055,
    activations={
        "float32": [64, 4, 16, 8, 4, 12],
        "bf16": [36, 4, 16, 6, 2, 12],
        "bf16, checkpointed": [4, 0, 0, 6, 2, 12],
    },
)  # fmt: skip
N, LATE = 124_439_808, (50257 + 1024) * 768  # parameters of 124M, those of its embeddings


def test_one_card_by_hand():
    p = plan("gpt2", 1, False, MEASURED)
    assert (p.rows, p.micro, p.batch) == (32, 16, 524_288)
    kept = 36 * 12 * 768 + 4 * 12 * 12 + 16 * 12 + 6 * 768 + 2 * 50257 + 12
    assert p.memory == pytest.approx(18 * N + 32 * 1024 * (kept + 2 * 50257))
    assert p.arithmetic == pytest.approx(524_288 / 202_600) and p.network == p.dispatch == 0
    assert p.optimiser == pytest.approx(28 * N / (0.8 * 2.039e12))


def test_64_cards_by_hand():
    """8 nodes: 8 cards x 25 GB/s x 0.8; a bucket of all but the embeddings hides in backward."""
    p = plan("gpt2", 64, False, MEASURED)
    arithmetic = 8 * 1024 / 202_600
    late = 2 * 63 / 64 * 4 * LATE / 160e9 + 2 * 6 * 5e-6
    assert (p.rows, p.micro) == (8, 1) and p.arithmetic == pytest.approx(arithmetic)
    assert 2 / 3 * arithmetic > 2 * 63 / 64 * 4 * (N - LATE) / 160e9
    assert p.network == pytest.approx(late)
    step = arithmetic + late + 28 * N / (0.8 * 2.039e12)
    assert p.seconds == pytest.approx(step)
    assert p.efficiency == pytest.approx(arithmetic / step)


def test_1024_cards_with_zero_by_hand():
    """The batch grows to a row each; the backward is too short for the all-reduce."""
    p = plan("gpt2-xl", 1024, True, MEASURED)
    n, late = 1_557_611_200, (50257 + 1024) * 1600
    assert (p.batch, p.rows, p.micro) == (1_048_576, 1, 1)
    ring, hops = 2 * 1023 / 1024 / 160e9, 2 * 10 * 5e-6
    early = ring * 4 * (n - late) + hops - 2 / 3 * p.arithmetic
    assert early > 0
    handed = 1023 / 1024 * 4 * n / 160e9 + 1024 * 5e-6
    assert p.network == pytest.approx(ring * 4 * late + hops + early + handed)
    assert p.optimiser == pytest.approx(28 * n / 1024 / (0.8 * 2.039e12))
    kept = 36 * 48 * 1600 + 4 * 48 * 25 + 16 * 48 + 6 * 1600 + 2 * 50257 + 12 + 2 * 50257
    assert p.memory == pytest.approx(n * (10 + 8 / 1024) + 1024 * kept)


def test_recomputation_and_memory_where_nothing_else_fits(monkeypatch):
    monkeypatch.setattr(scaling, "HBM", 34e9)
    p = plan("gpt2-xl", 1, False, MEASURED)
    assert p.checkpointed and p.fits and p.limit == "recomputation"
    assert p.arithmetic == pytest.approx(4 / 3 * 524_288 / scaling.speed("gpt2-xl"))
    again = 4 * 48 * 1600 + 6 * 1600 + 4 * 50257 + 12 + 36 * 1600 + 4 * 25 + 16
    assert p.memory == pytest.approx(18 * 1_557_611_200 + p.rows * 1024 * again)
    monkeypatch.setattr(scaling, "HBM", 24e9)
    assert plan("gpt2-xl", 1, False, MEASURED).limit == "memory"


def test_dispatch_limits_where_micro_batches_are_short():
    slow = Measured(**{**vars(MEASURED), "dispatch": 0.05})
    p = plan("gpt2", 256, False, slow)
    assert p.limit == "dispatch" and p.arithmetic + p.dispatch == pytest.approx(0.05)


@pytest.mark.parametrize("gpus, hops, speed", [(2, 1, 240e9), (8, 3, 240e9), (16, 4, 160e9)])
def test_an_all_reduce(gpus, hops, speed):
    expected = 2 * (gpus - 1) / gpus * 1e9 / speed + 2 * hops * 5e-6
    assert scaling.all_reduce(1e9, gpus) == pytest.approx(expected)
    assert scaling.all_reduce(1e9, 1) == 0


def test_the_page_shows_what_the_script_prints():
    for size in ("gpt2", "gpt2-xl"):
        plans = [plan(size, n, zero, MEASURED) for zero in (False, True) for n in scaling.GPUS]
        assert table(plans).strip() in PAGE
    other = {
        "all_reduce": [[1000, 7e-6], [64e6, 0.05]], "ranks": 2, "early_share": 0.8, "hidden": -1,
        "backward": {"alone": 1, "averaging": 2, "reduce": 3}, "loader": 1e6, "checkpoint": 2.0,
    }  # fmt: skip
    kept = {mode: {"bytes": of, "missed_by": 0.0} for mode, of in MEASURED.activations.items()}
    for line in scaling.measured_lines(MEASURED, kept, other)[:4]:
        assert line.partition(";")[0] in PAGE
    assert "0 % of it hidden" in "".join(scaling.measured_lines(MEASURED, kept, other))


def test_what_is_measured_is_what_the_engine_keeps():
    found = scaling_measured.activations()
    for mode, of in found.items():
        assert abs(of["missed_by"]) < 1e-3, mode
    per_layer = [of["bytes"][0] for of in found.values()]
    assert per_layer[0] > per_layer[1] > per_layer[2] > 0
    assert scaling_measured.bytes_per_parameter() == {"weights": 4, "gradients": 4, "moments": 8}
    layers, width, vocabulary, T = 4, 64, 503, 64
    late = (vocabulary + T) * width
    whole = late + layers * (12 * width**2 + 13 * width) + 2 * width
    assert scaling_measured.early_share() == pytest.approx(1 - late / whole)


@pytest.mark.slow
def test_from_end_to_end(tmp_path, capsys):
    file = tmp_path / "scaling.json"
    scaling.main(["--quick", "--json", str(file)])
    found = json.loads(file.read_text())
    assert len(found["plans"]) == 4 * 2 * 5 and found["other"]["ranks"] == 2
    assert all(math.isfinite(p["seconds"]) and p["seconds"] > 0 for p in found["plans"])
    assert "124M on 8 cards: 327 ms a step here; llm.c published 300 ms" in capsys.readouterr().out
