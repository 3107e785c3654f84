"""A run that is killed at any moment, and started again, comes to the same bytes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tensorgrad
from tensorgrad.serialization import load_tree
from tests.reliability.runs import data_of, endings, options, temporary

ROOT = Path(tensorgrad.__file__).parent.parent
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def killed(word, folder, kills, seed):
    """What killer.py says of so many kills."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.reliability.killer", word, folder, str(kills), str(seed)],
        cwd=ROOT, env=ENV, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads(done.stdout.splitlines()[-1])
    print(word, report)
    assert report["kills"] == sum(report["where"].values()) == kills
    return report


@pytest.mark.parametrize(("word", "kills"), [("gpt2", 9), ("char-gpt", 4)])
def test_a_killed_run_comes_to_the_same_bytes(word, kills, tmp_path):
    """Weights, moments, average, generators, place in the data, best checkpoint, losses."""
    killed(word, tmp_path, kills, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("word", "kills"), [("gpt2", 120), ("char-gpt", 80)])
def test_two_hundred_kills(word, kills, tmp_path):
    where = killed(word, tmp_path, kills, 7)["where"]
    assert all(where.get(phase, 0) >= 2 for phase in ("start", "step", "save", "between")), where


def by_the_command_line(word, tmp_path, kills, seed):
    """Kill at some line of output, or soon after; then look; then let it go on."""
    draws, data, out = random.Random(seed), data_of(word, tmp_path), tmp_path / "out"
    words = [sys.executable, "-m", "tensorgrad", "train", *options(word), "--auto_resume"]
    words += [f"--data={data}", f"--out_dir={out}"]
    env = {**ENV, "PYTHONUNBUFFERED": "1"}
    begun = False
    while kills:
        with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True) as process:
            lines = draws.randrange(8)
            for line in process.stdout:
                lines -= "training:" in line or "step" in line
                if lines <= 0:
                    break
            time.sleep(draws.uniform(0, 0.02))
            process.kill()
        kills -= process.returncode == -signal.SIGKILL
        if begun or (out / "losses.jsonl").exists():
            load_tree(out / "ckpt.safetensors")
            begun = True
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("kills", [1, pytest.param(12, marks=pytest.mark.slow)])
@pytest.mark.parametrize("word", ["gpt2", "char-gpt"])
def test_the_command_line_is_killed(word, kills, tmp_path):
    out = by_the_command_line(word, tmp_path, kills, kills)
    right = subprocess.run(
        [sys.executable, "-m", "tensorgrad", "train", *options(word),
         f"--data={data_of(word, tmp_path)}", f"--out_dir={tmp_path / 'right'}"],
        env=ENV, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert right.returncode == 0, right.stderr
    assert endings(out) == endings(tmp_path / "right") and not temporary(out)
