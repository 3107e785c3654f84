"""SIGTERM and Ctrl-C: the first stops a run after its step, saved; the second ends it at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tensorgrad
from tensorgrad.serialization import load_tree
from tests.reliability.runs import data_of, options, temporary

ROOT = Path(tensorgrad.__file__).parent.parent


def started(folder, act, step):
    """A process that trains; something happens to it before a step."""
    line = [sys.executable, "-m", "tests.reliability.rank_job", act, "0", str(step)]
    line += [*options("gpt2", max_iters=1000), f"--data={data_of('gpt2', folder)}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*line, f"--out_dir={folder / 'out'}"], cwd=ROOT, env=env,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def until(file, begin):
    for line in file:
        if line.startswith(begin):
            return
    pytest.fail(f"no line began with {begin!r}")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_one_signal(number, status, tmp_path):
    with started(tmp_path, "slow", 0) as process:
        until(process.stdout, "step 3/")
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    step = load_tree(tmp_path / "out" / "ckpt.safetensors")["trainer"]["step"]
    assert process.returncode == status and 3 <= step < 1000
    assert errors == (
        "\nstopping after this step; once more to stop at once\n"
        f"stopped after step {step} of 1000, and saved; go on with: "
        f"tensorgrad train gpt2 --resume --out_dir {tmp_path / 'out'}\n"
    )


@pytest.mark.parametrize(
    ("second", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)]
)
def test_the_second_signal(second, status, tmp_path):
    """In the midst of a step that would last long: at once, and the checkpoint is that before."""
    with started(tmp_path, "stuck", 5) as process:
        until(process.stdout, "a long step")
        process.send_signal(signal.SIGTERM)
        until(process.stderr, "stopping after this step")
        process.send_signal(second)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status and "Traceback" not in errors
    out = tmp_path / "out"
    assert load_tree(out / "ckpt.safetensors")["trainer"]["step"] == 4 and not temporary(out)
