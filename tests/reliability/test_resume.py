"""Runs that go on from any step, and in other circumstances than those they stopped in."""

import functools
import os
import shutil
import signal
import subprocess
import sys

import pytest

from tensorgrad.models.training import batches, job
from tensorgrad.models.training.folder import RunFolder, entries
from tensorgrad.models.training.progress import Progress
from tensorgrad.models.training.stopping import Stopped
from tensorgrad.serialization import CheckpointError, load_tree
from tests.reliability.runs import CALM, STEPS, data_of, endings, run, temporary

FOUR = {"eval_interval": 3, "keep_last": 4, **CALM}


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    monkeypatch.setattr(job, "plot_losses", lambda *args: None)


@pytest.fixture(scope="module", params=["gpt2", "char-gpt"])
def word(request):
    return request.param


@pytest.fixture(scope="module")
def home(word, tmp_path_factory):
    """A folder with the data and undisturbed runs."""
    return tmp_path_factory.mktemp(word)


@pytest.fixture(scope="module")
def undisturbed(word, home):
    run(word, data_of(word, home), home / "right")
    return endings(home / "right")


def stopped(word, data, out, step, number=signal.SIGTERM, **more):
    """A run that a signal stops at this step."""
    show = Progress.show

    def watched(self, shown):
        show(self, shown)
        if shown.step == step:
            signal.raise_signal(number)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Progress, "show", watched)
        with pytest.raises(Stopped, match=f"after step {step} of") as told:
            run(word, data, out, **more)
    assert told.value.signal == number
    assert load_tree(out / "ckpt.safetensors")["trainer"]["step"] == step


def test_from_the_checkpoint_of_every_step(word, home, tmp_path):
    """0 to 20; what came later in the run that is left is gone, and comes again."""
    every = {"save_interval": 1, "keep_last": STEPS + 1}
    right = tmp_path / "right"
    run(word, data_of(word, home), right, **every)
    files = {path.name: path.read_bytes() for path in right.glob("*.safetensors")}
    assert len(files) == STEPS + 3
    for k in range(STEPS + 1):
        name, out = f"ckpt-{k:08d}.safetensors", tmp_path / f"out-{k}"
        shutil.copytree(right, out)
        if k == STEPS:
            with pytest.raises(ValueError, match="nothing to do: the checkpoint is at step 20"):
                run(word, None, out, name, **every)
            run(word, None, out, "auto", **every)
        else:
            run(word, None, out, name, **every)
        assert {path.name: path.read_bytes() for path in out.glob("*.safetensors")} == files, k
        assert endings(out) == endings(right), k
        shutil.rmtree(out)


@pytest.mark.parametrize(
    "steps",
    [(1, 11, 19), pytest.param(range(1, STEPS), marks=pytest.mark.slow)],
    ids=["few", "all"],
)
def test_stopped_at_a_step(word, home, undisturbed, steps, tmp_path):
    for step in steps:
        out = tmp_path / f"out-{step}"
        stopped(word, data_of(word, home), out, step, (signal.SIGTERM, signal.SIGINT)[step % 2])
        run(word, None, out, True)
        assert endings(out) == undisturbed, step
        assert not temporary(out)


def test_stopped_before_the_first_step(word, home, undisturbed, tmp_path):
    def dies(*args):
        raise SystemError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tensorgrad.models.training.trainer.Trainer.take_step", dies)
        with pytest.raises(SystemError):
            run(word, data_of(word, home), tmp_path / "out")
    run(word, None, tmp_path / "out", True)
    assert endings(tmp_path / "out") == undisturbed


def test_a_longer_run_is_the_run_that_was_longer_at_once(word, home, tmp_path):
    more = {"decay_lr": False, "eval_interval": 5, **CALM}  # the best is the last, at 20 steps
    run(word, data_of(word, home), tmp_path / "right", **more)
    run(word, data_of(word, home), tmp_path / "out", max_iters=10, **more)
    run(word, None, tmp_path / "out", True, **more)
    assert endings(tmp_path / "out") == endings(tmp_path / "right")


@pytest.mark.parametrize("before", [True, False])
def test_reading_ahead_makes_no_difference(before, tmp_path):
    data = data_of("gpt2", tmp_path)
    run("gpt2", data, tmp_path / "right")
    loader = batches.TokenLoader
    with pytest.MonkeyPatch.context() as patched:
        for prefetch, resume in ((before, False), (not before, True)):
            patched.setattr(
                batches, "TokenLoader",
                lambda *a, prefetch=prefetch, **o: loader(*a, **{**o, "prefetch": prefetch}),
            )  # fmt: skip
            if resume:
                run("gpt2", None, tmp_path / "out", True)
            else:
                stopped("gpt2", data, tmp_path / "out", 7)
    assert endings(tmp_path / "out") == endings(tmp_path / "right")


# ---- checkpoints that are gone, damaged or not wanted any more


def steps_kept(out):
    return [step for step, _ in RunFolder(out).numbered()]


@pytest.fixture
def four(tmp_path):
    """A run that was stopped at step 11, with the checkpoints of steps 8 to 11."""
    stopped("gpt2", data_of("gpt2", tmp_path), tmp_path / "out", 11, **FOUR)
    assert steps_kept(tmp_path / "out") == [11, 10, 9, 8]
    assert load_tree(tmp_path / "out" / "best.safetensors")["trainer"]["step"] == 9
    return tmp_path / "out"


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "empty"])
def test_the_newest_checkpoint_is_lost(four, damage, tmp_path):
    """A sentence says which others there are; from one of them the run comes to the same end."""
    newest, data = four / "ckpt.safetensors", data_of("gpt2", tmp_path)
    whole = bytearray(newest.read_bytes())
    if damage == "missing":
        newest.unlink()
    else:
        whole[len(whole) // 2] ^= 8
        newest.write_bytes({"cut": whole[:-9], "flipped": whole, "empty": b""}[damage])
    kind = FileNotFoundError if damage == "missing" else CheckpointError
    others = "--resume --checkpoint NAME takes another: " + (
        "ckpt-00000011.safetensors, " if damage == "missing" else ""
    )
    others += ", ".join(f"ckpt-{step:08d}.safetensors" for step in (10, 9, 8))
    others += ", best.safetensors$"
    with pytest.raises(kind, match=f"ckpt.safetensors.*; {others}"):
        run("gpt2", None, four, True, **FOUR)
    before = {path.name: path.read_bytes() for path in four.iterdir()}
    for name in ("ckpt-00000007.safetensors", "nowhere/ckpt.safetensors"):
        with pytest.raises(FileNotFoundError, match=f"no checkpoint.*{name}"):
            run("gpt2", None, four, name, **FOUR)
    assert {path.name: path.read_bytes() for path in four.iterdir()} == before
    run("gpt2", None, four, "ckpt-00000010.safetensors", **FOUR)
    run("gpt2", data, tmp_path / "right", **FOUR)
    assert endings(four) == endings(tmp_path / "right")


def test_without_its_newest_name_a_restarted_run_takes_the_newest_file(four, tmp_path):
    """It does not begin anew."""
    (four / "ckpt.safetensors").unlink()
    run("gpt2", None, four, "auto", **FOUR)
    run("gpt2", data_of("gpt2", tmp_path), tmp_path / "right", **FOUR)
    assert endings(four) == endings(tmp_path / "right")
    assert not list(four.glob("earlier-*"))


def test_an_abandoned_future_is_gone_at_once(four, monkeypatch):
    """From step 8, killed before the next checkpoint: step 8 is where it goes on."""

    def dies(*args):
        raise SystemError

    with monkeypatch.context() as patched:
        patched.setattr("tensorgrad.models.training.trainer.Trainer.take_step", dies)
        with pytest.raises(SystemError):
            run("gpt2", None, four, "ckpt-00000008.safetensors", **FOUR)
    assert steps_kept(four) == [8]
    assert load_tree(four / "ckpt.safetensors")["trainer"]["step"] == 8
    assert not (four / "best.safetensors").exists()  # it was of step 9
    for path in (four / "losses.jsonl", four / "times.jsonl"):
        assert [entry["step"] for entry in entries(path)] == [*range(1, 9)]
    stop = functools.partial(stopped, "gpt2", None, four, 9)
    stop(resume=True, **FOUR)
    assert load_tree(four / "best.safetensors")["trainer"]["step"] == 9


def test_the_best_of_before_stays(four, tmp_path):
    best = (four / "best.safetensors").read_bytes()  # of step 9
    stopped("gpt2", None, four, 11, resume="ckpt-00000010.safetensors", **FOUR)
    assert (four / "best.safetensors").read_bytes() == best


def test_one_checkpoint_and_the_best(tmp_path):
    """With a single file the best is another name of it, and back to it is a way."""
    out = tmp_path / "out"
    run("char-gpt", data_of("char-gpt", tmp_path), out)
    best = (out / "best.safetensors").read_bytes()
    step = load_tree(out / "best.safetensors")["trainer"]["step"]
    assert step > 0
    right = endings(out)
    if step < STEPS:
        run("char-gpt", None, out, "best.safetensors")
    assert endings(out) == right and (out / "best.safetensors").read_bytes() == best


def test_lines_that_a_crash_of_the_machine_left(four, tmp_path):
    """Blocks of zeros, a line that is cut, bytes that are no text: all after the checkpoint."""
    with open(four / "losses.jsonl", "ab") as file:
        file.write(b'\0\0\0\0\n{"step": 12, "lo\n[3]\n{"step": "x"}\n\xff\xfe\n{"step": 12')
    run("gpt2", None, four, True, **FOUR)
    run("gpt2", data_of("gpt2", tmp_path), tmp_path / "right", **FOUR)
    assert endings(four) == endings(tmp_path / "right")


def test_what_killed_runs_left_of_any_file_is_removed(four):
    """Of other steps' checkpoints, too, and of a process that had the number of this one."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    left = {
        f".ckpt-00000777.safetensors.tmp-{process.pid}-00aa": False,
        f".best.safetensors.tmp-{os.getpid()}-00aa": False,
        f".loss.png.tmp-{process.pid}-00aa": False,
        f".losses.jsonl.tmp-{os.getppid()}-00aa": True,  # of a process that lives
        f".notes.txt.tmp-{process.pid}-00aa": True,  # nobody's
    }
    for name in left:
        (four / name).write_bytes(b"half a fi")
        os.utime(four / name, (1, 1))
    stopped("gpt2", None, four, 12, resume=True, **FOUR)
    assert sorted(temporary(four)) == sorted(name for name, stays in left.items() if stays)
