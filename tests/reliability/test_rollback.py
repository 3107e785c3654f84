"""Steps that must not be: skipped, or gone back from; what is on the disk is always sound."""

import math

import numpy as np
import pytest

from tensorgrad import optim
from tensorgrad.models.training import guard, job
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.trainer import Trainer
from tensorgrad.packing import flatten
from tensorgrad.serialization import load_tree
from tests.reliability.runs import STEPS, data_of, endings, run

WINDOWS = 4  # that a step takes: 2 batches of 2


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    monkeypatch.setattr(job, "plot_losses", lambda *args: None)
    monkeypatch.setattr(guard, "WINDOW", 5)


@pytest.fixture
def data(tmp_path):
    return data_of("gpt2", tmp_path)


class Watch:
    """The places in the data that steps began at; losses of some places are bad."""

    def __init__(self, monkeypatch, bad, value=math.nan):
        self.seen, self.bad, self.value = [], bad, value
        self.states = []  # what the trainer was before each step and after it
        self.dies_at = None
        accumulate, take_step = Trainer.accumulate, Trainer.take_step

        def accumulated(trainer):
            place = trainer.batches.state()["position"]
            self.seen.append(place)
            loss, tokens = accumulate(trainer)
            return self.value if place in self.bad else loss, tokens

        def taken(trainer):
            if len(self.seen) == self.dies_at:
                raise SystemError
            before = learnt(trainer)
            step = take_step(trainer)
            self.states.append((before, learnt(trainer), step))
            return step

        monkeypatch.setattr(Trainer, "accumulate", accumulated)
        monkeypatch.setattr(Trainer, "take_step", taken)


def learnt(trainer):
    state = trainer.state()
    arrays = flatten({part: state[part] for part in ("model", "moments", "average")})[0]
    return {name: array.copy() for name, array in arrays.items()}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def places(steps):
    return [WINDOWS * step for step in steps]


SPIKE = {"on_spike": "rollback", "spike_z": 1.999}  # 2 is the most that one of five can have


@pytest.mark.parametrize(
    ("value", "settings"), [(math.nan, {"on_nonfinite": "rollback"}), (1e9, SPIKE)]
)
def test_back_to_the_checkpoint_and_past_the_batches(value, settings, data, tmp_path, monkeypatch):
    """Step 8 is bad: from the checkpoint of step 6, steps 7 and 8 take the batches that follow."""
    watch = Watch(monkeypatch, places([7]), value)
    watch_kept = []
    roll_back = Trainer.roll_back

    def rolled(trainer, state):
        roll_back(trainer, state)
        kept = load_tree(tmp_path / "out" / "ckpt.safetensors")["trainer"]
        arrays = flatten({part: kept[part] for part in ("model", "moments", "average")})[0]
        watch_kept.append((trainer.step, same(learnt(trainer), arrays)))

    monkeypatch.setattr(Trainer, "roll_back", rolled)
    run("gpt2", data, tmp_path / "out", **settings)
    assert watch_kept == [(6, True)]
    assert watch.seen == places(range(STEPS + 2)), "no batch comes twice"
    history = RunFolder(tmp_path / "out").history()
    assert [entry["step"] for entry in history] == [*range(1, STEPS + 1)]
    assert not any(entry.get("skipped") for entry in history)


def test_three_times_to_one_checkpoint_and_no_more(data, tmp_path, monkeypatch):
    watch = Watch(monkeypatch, places(range(7, 99)))
    with pytest.raises(FloatingPointError, match=r"at step 7 the loss is nan.*3 times .* step 6"):
        run("gpt2", data, tmp_path / "out", on_nonfinite="rollback")
    assert watch.seen == places(range(8 + 3))
    assert load_tree(tmp_path / "out" / "ckpt.safetensors")["trainer"]["step"] == 6
    watch.bad = []
    run("gpt2", None, tmp_path / "out", True)  # from step 6, with the batches that follow it
    assert watch.seen[11:] == places(range(6, STEPS))


@pytest.mark.parametrize("dies_at", [9, 10, 11])
def test_killed_after_going_back(dies_at, data, tmp_path, monkeypatch):
    """Before the next checkpoint all comes again, the bad step too; after it nothing of it."""
    watch = Watch(monkeypatch, places([7]))
    run("gpt2", data, tmp_path / "right", on_nonfinite="rollback")
    watch.seen.clear()
    watch.dies_at = dies_at
    with pytest.raises(SystemError):
        run("gpt2", data, tmp_path / "out", on_nonfinite="rollback")
    watch.dies_at = None
    watch.seen.clear()
    run("gpt2", data, tmp_path / "out", "auto", on_nonfinite="rollback")
    assert watch.seen[0] == places([6 if dies_at < 10 else 10])[0]
    assert endings(tmp_path / "out") == endings(tmp_path / "right")


@pytest.mark.parametrize("settings", [{"on_nonfinite": "skip"}, {**SPIKE, "on_spike": "skip"}])
def test_a_skipped_step_counts_and_changes_nothing(settings, data, tmp_path, monkeypatch):
    watch = Watch(monkeypatch, places([7]), 1e9 if "on_spike" in settings else math.nan)
    run("gpt2", data, tmp_path / "out", **settings)
    assert watch.seen == places(range(STEPS))
    for i, (before, after, step) in enumerate(watch.states):
        assert step.step == i + 1
        assert same(before, after) == (step.skipped is not None)
    skipped = [step.step for _, _, step in watch.states if step.skipped]
    assert skipped == [8]
    noted = [e["step"] for e in RunFolder(tmp_path / "out").history() if e.get("skipped")]
    assert noted == skipped
    state = load_tree(tmp_path / "out" / "ckpt.safetensors")["trainer"]
    assert state["batches"]["position"] == WINDOWS * STEPS


def test_a_run_that_stops_keeps_the_checkpoint_before(data, tmp_path, monkeypatch):
    Watch(monkeypatch, places([7]))
    with pytest.raises(FloatingPointError, match="at step 8 the loss is nan"):
        run("gpt2", data, tmp_path / "out")
    assert load_tree(tmp_path / "out" / "ckpt.safetensors")["trainer"]["step"] == 6


def breaks(monkeypatch, times):
    """The update of step 8 leaves an inf among the weights, though loss and norm were finite."""
    update, left = optim.AdamW.step, [times]

    def step(self, *args):
        answer = update(self, *args)
        p = self.param_groups[0]["params"][0]
        count = int(next(iter(self.state_dict()["state"].values()))["step"].item())
        if count == 8 and left[0]:
            left[0] -= 1
            p.array[0, 0] = math.inf
        return answer

    monkeypatch.setattr(optim.AdamW, "step", step)


@pytest.mark.parametrize("action", ["stop", "skip", "rollback"])
def test_no_checkpoint_has_weights_that_are_not_finite(action, data, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        breaks(patched, 1 if action == "rollback" else 99)
        if action == "rollback":
            run("gpt2", data, out, on_nonfinite=action)
        else:
            with pytest.raises(FloatingPointError, match=r"after step 8 the weight .* not finite"):
                run("gpt2", data, out, on_nonfinite=action)
            assert load_tree(out / "ckpt.safetensors")["trainer"]["step"] == 6
    if action != "rollback":
        run("gpt2", None, out, True)
    for path in out.glob("*.safetensors"):
        state = load_tree(path)["trainer"]
        for array in (*state["model"].values(), *state["average"].values()):
            assert np.isfinite(array).all()
    assert [e["step"] for e in RunFolder(out).history()] == [*range(1, STEPS + 1)]


def test_weights_that_break_again_and_again(data, tmp_path, monkeypatch):
    breaks(monkeypatch, 99)
    with pytest.raises(FloatingPointError, match=r"after step 8 the weight .* 3 times .* step 6"):
        run("gpt2", data, tmp_path / "out", on_nonfinite="rollback")
    assert load_tree(tmp_path / "out" / "ckpt.safetensors")["trainer"]["step"] == 6
