"""The benchmark of many ranks: one training on one and two, end to end; the gaps that count."""

import json

import numpy as np
import pytest

pytest.importorskip("mpi4py")

from benchmarks import distributed


def test_from_end_to_end(tmp_path, capsys):
    file, picture = tmp_path / "found.json", tmp_path / "curves.png"
    distributed.main(["--quick", "--json", str(file), "--picture", str(picture)])
    found = json.loads(file.read_text())
    rows = {(r["ranks"], r["dtype"]): r for r in found["rows"]}
    assert rows.keys() == {(n, dtype) for n in (1, 2) for dtype in distributed.DTYPES}
    double = rows[2, "float64"]
    assert max(double["gradient_worst_tensor"], double["curve"], double["zero_curve"]) < 1e-12
    assert 0 < rows[2, "float32"]["gradient"] < 1e-5
    assert rows[2, "float32"]["zero_weights"] == 0
    assert rows[2, "float32"]["zero_bytes"] == rows[1, "float32"]["adamw_bytes"] / 2
    assert len(found["curves"]["2 ranks, ZeRO"]) == distributed.QUICK.steps
    assert "float64, gradient, in millionths: 0.000, target at most 1.0, met" in (
        capsys.readouterr().out
    )
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_gaps_are_relative_to_the_largest_number():
    base = {"g/a": np.array([100.0, -200.0]), "g/b": np.array([1.0]), "other": np.array([1.0])}
    found = {"g/a": np.array([100.0, -200.2]), "g/b": np.array([1.1]), "other": np.array([9.0])}
    together, worst = distributed.apart(found, base, "g/")
    assert together == pytest.approx(0.2 / 200) and worst == pytest.approx(0.1)


def test_without_a_launcher_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(distributed.shutil, "which", lambda *_, **__: None)
    with pytest.raises(SystemExit, match=r"pip install mpi4py mpich"):
        distributed.launch(2, "benchmarks.distributed")
