"""Jobs of two processes under mpiexec: signals, deaths and errors of one, other numbers of them."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tensorgrad
from tensorgrad.models.training import job
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.serialization import load_tree
from tests.reliability.runs import CALM, data_of, endings, options, run, temporary

pytest.importorskip("mpi4py")
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
pytestmark = pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec")

ROOT = Path(tensorgrad.__file__).parent.parent
ENV = {
    **os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
    "PYTHONUNBUFFERED": "1",
}  # fmt: skip
SAME_STEPS = {"gradient_accumulation_steps": 1, "total_batch_size": 64}  # 2 x 16 on each of two


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    data_of("gpt2", folder)
    return folder


def words(home, out, act="nothing", rank=0, step=0, resume=None, ranks=2, **more):
    """The command line of rank_job.py."""
    begin = [MPIEXEC, "-n", str(ranks)] if ranks > 1 else []
    line = [*begin, sys.executable, "-m", "tests.reliability.rank_job", act, str(rank), str(step)]
    line += options("gpt2", **SAME_STEPS, **more)
    line += [f"--data={data_of('gpt2', home)}", f"--out_dir={out}"]
    return [*line, f"--{resume}"] if resume else line


def done(*args, **more):
    """A job that has ended, which it does within a minute."""
    return subprocess.run(
        words(*args, **more), cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


def step_of(out):
    return load_tree(out / "ckpt.safetensors")["trainer"]["step"]


@pytest.fixture(scope="module")
def undisturbed(home):
    """The end of a job of two that nothing happens to; dropout is on, and differs by rank."""
    job_of_two = done(home, home / "right")
    assert job_of_two.returncode == 0, job_of_two.stderr
    states = load_tree(home / "right" / "ckpt.safetensors")["trainer"]["generators"]
    assert len(states) == 2 and any((states[0][k] != states[1][k]).any() for k in states[0])
    return endings(home / "right")


@pytest.mark.parametrize(
    ("rank", "name"), [(1, "SIGTERM"), pytest.param(0, "SIGINT", marks=pytest.mark.slow)]
)
def test_a_signal_to_one_rank_stops_all_with_a_checkpoint(rank, name, home, undisturbed, tmp_path):
    out = tmp_path / "out"
    stopped = done(home, out, name, rank, 5)
    assert stopped.returncode == 128 + getattr(signal, name)
    assert stopped.stderr.count("stopped after step 5 of 20, and saved; go on with") == 1
    assert step_of(out) == 5
    assert done(home, out, resume="resume").returncode == 0
    assert endings(out) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_mpiexec_stops_all_with_a_checkpoint(number, home, tmp_path):
    out = tmp_path / "out"
    line = words(home, out, "slow", max_iters=1000)
    with subprocess.Popen(line, cwd=ROOT, env=ENV, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:  # fmt: skip
        for told in process.stdout:
            if told.startswith("step 3/"):
                break
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"stopped after step {step_of(out)} of 1000" in errors


def test_the_second_signal_ends_all_at_once(home, tmp_path):
    twice = done(home, tmp_path / "out", "twice", 1, 5)
    assert twice.returncode == 130 and "rank 1 of 2 ended the job: Ctrl-C" in twice.stderr
    assert step_of(tmp_path / "out") <= 4


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_rank_ends_the_job_which_goes_on_later(rank, home, undisturbed, tmp_path):
    out = tmp_path / "out"
    killed = done(home, out, "killed", rank, 7)
    assert killed.returncode != 0 and "ignal 9" in killed.stdout + killed.stderr
    assert step_of(out) <= 6
    assert done(home, out, resume="auto_resume").returncode == 0
    assert endings(out) == undisturbed and not temporary(out)


@pytest.mark.parametrize(
    ("act", "rank", "sentence"),
    [
        ("full", 0, "tensorgrad train: cannot write .*no space is left on the disk"),
        ("raises", 1, "tensorgrad train: the shard of this rank is gone"),
        ("bug", 1, "TypeError: a mistake"),
    ],
)
def test_a_rank_that_fails_ends_the_job_with_its_sentence(act, rank, sentence, home, tmp_path):
    began = time.monotonic()
    failed = done(home, tmp_path / "out", act, rank, 5)
    assert failed.returncode == 1 and time.monotonic() - began < 60
    lines = failed.stderr.splitlines()
    told = [i for i, line in enumerate(lines) if re.search(sentence, line)]
    ended = [i for i, line in enumerate(lines) if f"rank {rank} of 2 ended the job" in line]
    assert told and ended and told[0] < ended[0], failed.stderr
    assert step_of(tmp_path / "out") <= 4


def test_two_then_one_then_two(home, tmp_path, monkeypatch):
    """The same steps whatever the number of processes, and whoever has the optimiser's memory."""
    monkeypatch.setattr(job, "plot_losses", lambda *args: None)
    plain = {"dropout": 0.0, **CALM, **SAME_STEPS}
    run("gpt2", data_of("gpt2", home), tmp_path / "right", **plain)
    out, settings = tmp_path / "out", {"dropout": 0.0, **CALM}
    first = done(home, out, "SIGTERM", 1, 6, zero_stage=1, **settings)
    assert first.returncode == 143, first.stderr
    then = done(home, out, "SIGTERM", 0, 13, "resume", ranks=1, zero_stage=0, **settings)
    assert then.returncode == 143, then.stderr
    last = done(home, out, resume="resume", zero_stage=1, **settings)
    assert last.returncode == 0, last.stderr
    ours, theirs = RunFolder(out).history(), RunFolder(tmp_path / "right").history()
    assert len(ours) == len(theirs) == 20
    numbers = {"step", "loss", "grad_norm", "train_loss", "val_loss"}
    for mine, right in zip(ours, theirs, strict=True):
        assert {n: mine[n] for n in numbers & mine.keys()} == pytest.approx(
            {n: right[n] for n in numbers & right.keys()}, rel=1e-6
        )
    assert sum("val_loss" in entry for entry in ours) == 5
