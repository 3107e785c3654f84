"""Losses that are not finite and losses that are outliers: stop, skip, roll back."""

import math

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.guard import WINDOW, Guard, RollBack
from tensorgrad.models.training.job import train
from tensorgrad.models.training.progress import Progress
from tensorgrad.models.training.recipe import Recipe
from tensorgrad.models.training.token_lm import GPT2
from tensorgrad.models.training.trainer import Trainer
from tests.models.small_gpt2 import TINY, equal, shards, small_trainer, weights


class Detector:
    """llm.c's outlier_detector.h: running sums over a ring of 128, the new value among them."""

    def __init__(self):
        self.ring, self.at, self.total, self.squares = [], 0, 0.0, 0.0

    def update(self, value):
        if len(self.ring) < 128:
            self.ring.append(value)
            self.total += value
            self.squares += value * value
            return math.nan
        old, self.ring[self.at] = self.ring[self.at], value
        self.total += value - old
        self.squares += value * value - old * old
        self.at = (self.at + 1) % 128
        mean = self.total / 128
        std = math.sqrt(self.squares / 128 - mean * mean)
        return 0.0 if std == 0.0 else (value - mean) / std


def values(seed, count=400):
    draws = np.random.default_rng(seed)
    heavy = draws.standard_t(3, count)
    return (4 + 0.3 * heavy).tolist(), np.exp(0.3 * draws.standard_t(3, count)).tolist()


@pytest.mark.parametrize("z", [1.5, 3.0, 6.0])
def test_spikes_are_llm_cs(z):
    """Step by step, of loss and norm, whether they are skipped or not."""
    guard, losses, norms = Guard("stop", "skip", z), Detector(), Detector()
    found = []
    for loss, norm in zip(*values(int(10 * z)), strict=True):
        wanted = any(score > z for score in (losses.update(loss), norms.update(norm)))
        assert (guard.look(loss, norm) is not None) == wanted
        found.append(wanted)
    assert not any(found[:WINDOW])
    assert 0 < sum(found) < len(found) / 4


def test_the_window_must_be_full():
    guard = Guard("stop", "stop", 6.0)
    for i in range(WINDOW):
        assert guard.look(1e9 if i == 100 else 1 + i % 2, 1.0) is None
    guard = Guard("stop", "stop", 6.0)
    for i in range(WINDOW):
        assert guard.look(1 + i % 2, 1.0) is None
    verdict = guard.look(1e9, 1.0)
    assert verdict.action == "stop"
    assert verdict.reason == (
        "the loss is 1e+09, 11.3 standard deviations above the mean of the last 128 steps"
    )


def test_each_of_both_is_watched_and_only_upwards():
    for at, name in ((0, "the loss is 99"), (1, "the gradient's norm is 99")):
        guard = Guard("stop", "rollback", 6.0)
        for i in range(WINDOW):
            guard.look(1 + i % 2, 1 + i % 2)
        low = [1.5, 1.5]
        low[at] = -99.0
        assert guard.look(*low) is None
        for i in range(WINDOW):
            guard.look(1 + i % 2, 1 + i % 2)
        high = [1.5, 1.5]
        high[at] = 99.0
        verdict = guard.look(*high)
        assert verdict.action == "rollback" and verdict.reason.startswith(name)


def test_what_stays_high_is_no_spike_for_long():
    """Skipping must not go on for ever: the new level joins the window."""
    guard = Guard("stop", "skip", 6.0)
    for i in range(WINDOW):
        guard.look(2 + 0.01 * (i % 2), 1.0)
    skipped = [guard.look(3.0, 1.0) is not None for _ in range(20)]
    assert skipped[0] and not any(skipped[5:])


@pytest.mark.parametrize("action", ["stop", "skip", "rollback"])
@pytest.mark.parametrize("pair", [(math.nan, 1.0), (1.0, math.inf), (math.inf, math.nan)])
def test_what_is_not_finite_has_its_own_action(action, pair):
    guard = Guard(action, "none", 6.0)
    assert guard.look(*pair).action == action
    assert guard.look(2.0, 1.0) is None
    assert guard.state() == {"loss": [2.0], "gradient's norm": [1.0]}  # nan is nothing to compare


def test_a_state_goes_there_and_back():
    one, two = Guard("stop", "skip", 3.0), Guard("stop", "skip", 3.0)
    pairs = list(zip(*values(5), strict=True))
    for pair in pairs[:150]:
        one.look(*pair)
    two.load_state(one.state())
    assert [one.look(*p) for p in pairs[150:]] == [two.look(*p) for p in pairs[150:]]


def test_values_that_cannot_be():
    with pytest.raises(ValueError, match="on_spike must be one of none, stop, skip, rollback"):
        Recipe(on_spike="ignore")
    with pytest.raises(ValueError, match="on_nonfinite must be one of stop, skip, rollback"):
        Recipe(on_nonfinite="none")
    with pytest.raises(ValueError, match="spike_z must be less than 11"):  # it could never be
        Recipe(spike_z=12.0)


# ---- by the trainer


def full(trainer, loss=5.6, norm=3.0):
    """As if 128 steps had been."""
    for i in range(WINDOW):
        trainer.guard.look(loss + 0.01 * (i % 2), norm + 0.01 * (i % 2))


def spoilt(trainer, value):
    """The next loss is value times what it was, and so is its gradient."""
    real = trainer.loss

    def loss(*args, **options):
        trainer.loss = real
        return real(*args, **options) * value

    trainer.loss = loss


def test_a_spike_is_skipped_and_counts(tmp_path):
    """The weights, the moments and the average stay; step, rate and place in the data go on."""
    trainer = small_trainer(shards(tmp_path), on_spike="skip", ema_decay=0.9)
    trainer.take_step()
    full(trainer)
    before, state = weights(trainer.model), trainer.state()
    rate = trainer.schedule.get_last_lr()[0]
    spoilt(trainer, 1e3)
    step = trainer.take_step()
    assert "standard deviations above the mean of the last 128 steps" in step.skipped
    assert "the loss is" in step.skipped and " and the gradient's norm is" in step.skipped
    assert (step.step, trainer.step) == (2, 2) and step.lr == rate
    assert equal(weights(trainer.model), before)
    assert trainer.schedule.get_last_lr()[0] > rate
    after = trainer.state()
    assert equal(after["average"], state["average"])
    for number, moments in state["moments"].items():
        assert equal(after["moments"][number], moments)
    assert after["batches"]["position"] == state["batches"]["position"] + 2
    ordinary = trainer.take_step()
    assert ordinary.skipped is None and ordinary.step == 3
    assert not equal(weights(trainer.model), before)


@pytest.mark.parametrize(
    ("changes", "value", "error"),
    [
        ({"on_spike": "stop"}, 1e3, FloatingPointError),
        ({"on_spike": "rollback"}, 1e3, RollBack),
        ({}, math.nan, FloatingPointError),
        ({"on_nonfinite": "rollback"}, math.inf, RollBack),
    ],
)
def test_stop_and_rollback_leave_the_step_undone(tmp_path, changes, value, error):
    trainer = small_trainer(shards(tmp_path), **changes)
    trainer.take_step()
    full(trainer)
    before, rate = weights(trainer.model), trainer.schedule.get_last_lr()[0]
    spoilt(trainer, value)
    with pytest.raises(error, match=r"^at step 2 the loss is"):
        trainer.take_step()
    assert trainer.step == 1 and trainer.schedule.get_last_lr()[0] == rate
    assert equal(weights(trainer.model), before)


def test_a_loss_of_nan_can_be_skipped(tmp_path):
    trainer = small_trainer(shards(tmp_path), on_nonfinite="skip")
    before = weights(trainer.model)
    spoilt(trainer, math.nan)
    step = trainer.take_step()
    assert math.isnan(step.loss) and "autograd.detect_anomaly()" in step.skipped
    assert equal(weights(trainer.model), before)
    assert trainer.take_step().skipped is None


# ---- by a run


def spoil_steps(monkeypatch, steps, times=1):
    """The loss of these steps is nan, `times` times each."""
    real, left = Trainer.loss, dict.fromkeys(steps, times)

    def loss(self, x, y, label_smoothing=0.0):
        value = real(self, x, y, label_smoothing)
        at = self.step + 1
        if self.model.training and left.get(at):
            left[at] -= 1
            return value * math.nan
        return value

    monkeypatch.setattr(Trainer, "loss", loss)


def test_a_run_rolls_back_and_goes_on(tmp_path, monkeypatch, capsys):
    """From the checkpoint of step 3, past the batches since; the steps are told once."""
    spoil_steps(monkeypatch, [5])
    given = {**TINY, "on_nonfinite": "rollback", "max_iters": 7}
    history = train(GPT2, given, shards(tmp_path), tmp_path / "out")
    assert [s["step"] for s in history] == [1, 2, 3, 4, 5, 6, 7]
    assert all(math.isfinite(s["loss"]) for s in history)
    told = capsys.readouterr().out
    assert "at step 5 the loss is nan" in told
    assert "back to step 3, and past these batches" in told
    saved = RunFolder(tmp_path / "out").load()["trainer"]
    # 7 steps counted, and steps 4 and 5, whose batches are not seen again, of 2 windows each
    assert saved["batches"]["position"] == 2 * (7 + 2)


def test_after_rolling_back_the_weights_are_those_of_the_checkpoint(tmp_path, monkeypatch):
    """The losses that follow are those of a trainer put there by hand."""
    folder = shards(tmp_path)
    by_hand = small_trainer(folder, on_nonfinite="rollback", max_iters=7)
    for _ in range(3):
        by_hand.take_step()
    for _ in range(2):
        by_hand.batches.next()
    expected = [by_hand.take_step().loss for _ in range(4)]
    spoil_steps(monkeypatch, [5])
    given = {**TINY, "on_nonfinite": "rollback", "max_iters": 7, "beta2": 0.99}
    seen = []
    monkeypatch.setattr(Progress, "show", lambda self, step: seen.append((step.step, step.loss)))
    monkeypatch.setattr(GPT2.model, "__init__", first_weights(GPT2.model.__init__))
    train(GPT2, given, folder, tmp_path / "out")
    assert [number for number, _ in seen] == [1, 2, 3, 4, 4, 5, 6, 7]
    assert [loss for number, loss in seen[4:]] == expected


def first_weights(real):
    """The weights of small_trainer's model."""

    def init(self, config):
        tg.manual_seed(3)
        real(self, config)

    return init


def test_a_run_that_always_fails_gives_up(tmp_path, monkeypatch):
    spoil_steps(monkeypatch, [5], times=99)
    given = {**TINY, "on_nonfinite": "rollback"}
    with pytest.raises(FloatingPointError, match=r"3 times the run went back to step 3, and it"):
        train(GPT2, given, shards(tmp_path), tmp_path / "out")
    assert RunFolder(tmp_path / "out").load()["trainer"]["step"] == 3


def test_a_run_stops_with_its_checkpoint_whole(tmp_path, monkeypatch):
    spoil_steps(monkeypatch, [5])
    with pytest.raises(FloatingPointError, match=r"^at step 5 the loss is nan"):
        train(GPT2, TINY, shards(tmp_path), tmp_path / "out")
    folder = RunFolder(tmp_path / "out")
    assert folder.load()["trainer"]["step"] == 3
    assert [s["step"] for s in folder.history()] == [1, 2, 3, 4]


def test_a_skipped_step_is_noted_and_told(tmp_path, monkeypatch, capsys):
    """JSON has no nan; the picture leaves the step out."""
    spoil_steps(monkeypatch, [2, 6])
    history = train(GPT2, {**TINY, "on_nonfinite": "skip"}, shards(tmp_path), tmp_path / "out")
    assert [s["step"] for s in history if s.get("skipped")] == [2, 6]
    assert history[1]["loss"] is None and history[0]["loss"] > 5
    lines = [line for line in capsys.readouterr().out.splitlines() if "skipped: " in line]
    assert len(lines) == 2 and lines[0].startswith("step 2/6 | loss nan")
    assert (tmp_path / "out" / "loss.png").stat().st_size > 5000
