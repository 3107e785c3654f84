"""A step cut into batches is the step of the joint batch: accumulation, and its arithmetic."""

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad.models.training.objective import IGNORED
from tensorgrad.models.training.recipe import Recipe
from tests.models.small_gpt2 import V, gradients, shards, small_trainer
from tests.models.torch_gpt2 import turned


def accumulated(folder, batch_size, times, at, smoothing=0.0):
    trainer = small_trainer(
        folder, "float64", batch_size=batch_size, gradient_accumulation_steps=times,
        label_smoothing=smoothing,
    )  # fmt: skip
    trainer.batches.loader.position = at  # in windows
    loss, tokens = trainer.accumulate()
    assert tokens == batch_size * times * 7
    return loss, gradients(trainer.model), trainer


def targets_of(trainer, at, count):
    trainer.batches.loader.position = at
    return [int((trainer.batches.next()[1] != IGNORED).sum()) for _ in range(count)]


# 25 windows, the last with 4 targets of 7: from 0 all are whole; from 20 the third batch of two is
# the tail and the next epoch's first; from 24 the tail is a batch of its own where batch_size is 1.
@pytest.mark.parametrize(("batch_size", "times", "at"), [(2, 3, 0), (2, 3, 20), (1, 6, 24)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_gradient_is_the_joint_batchs(tmp_path, batch_size, times, at, smoothing):
    folder = shards(tmp_path)
    loss, cut, trainer = accumulated(folder, batch_size, times, at, smoothing)
    joint_loss, joint, _ = accumulated(folder, batch_size * times, 1, at, smoothing)
    assert loss == pytest.approx(joint_loss, rel=1e-14)
    for name, g in joint.items():
        np.testing.assert_allclose(cut[name], g, rtol=1e-12, atol=1e-15, err_msg=name)
    counts = targets_of(trainer, at, times)
    assert (len(set(counts)) > 1) == (at > 0)  # the batches differ where they are said to


def test_unequal_batches_are_pytorchs_mean_over_all_targets(tmp_path):
    """The oracle: one mean over every target of the step, by transformers' own GPT-2."""
    from transformers import GPT2LMHeadModel as TheirModel

    from tests.models.torch_gpt2 import their_config

    loss, ours, trainer = accumulated(shards(tmp_path), 2, 3, 20)
    theirs = TheirModel(their_config(trainer.model.config)).double()
    state = {k: torch.from_numpy(turned(k, v.array).copy())
             for k, v in trainer.model.state_dict().items()}  # fmt: skip
    theirs.load_state_dict(state)
    trainer.batches.loader.position = 20
    x, y = (torch.from_numpy(np.concatenate(part)) for part in
            zip(*(trainer.batches.next() for _ in range(3))))  # fmt: skip
    assert (y == IGNORED).sum() == 3
    logits = theirs(x).logits
    expected = torch.nn.functional.cross_entropy(logits.view(-1, V), y.view(-1))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    for name, p in theirs.named_parameters():
        np.testing.assert_allclose(
            ours[name], turned(name, p.grad.numpy()), rtol=1e-8, atol=1e-12, err_msg=name
        )


def test_a_step_is_the_same_however_it_is_cut(tmp_path):
    """Whole runs of 5 steps over an epoch's end, in float64."""
    runs = []
    for batch_size, times in ((6, 1), (3, 2), (1, 6)):
        trainer = small_trainer(
            shards(tmp_path / str(times)), "float64", batch_size=batch_size,
            gradient_accumulation_steps=times, max_iters=5,
        )  # fmt: skip
        runs.append([(s.loss, s.grad_norm, s.tokens) for s in trainer.steps()])
    for run in runs[1:]:
        np.testing.assert_allclose(run, runs[0], rtol=1e-11)


def test_the_gradient_is_clipped_after_it_is_whole(tmp_path):
    trainer = small_trainer(
        shards(tmp_path), "float64", gradient_accumulation_steps=3, grad_clip=1e-3
    )
    _, whole, _ = accumulated(shards(tmp_path / "again"), 2, 3, 0)
    step = trainer.take_step()
    total = np.sqrt(sum((g**2).sum() for g in whole.values()))
    assert step.grad_norm == pytest.approx(total, rel=1e-12) and total > 1e-2
    clipped = np.sqrt(sum((g**2).sum() for g in gradients(trainer.model).values()))
    assert clipped == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("total", "tokens", "processes", "times"),
    [(0, 84, 3, 5), (84, 84, 1, 1), (504, 84, 1, 6), (504, 84, 3, 2), (524_288, 16_384, 8, 4)],
)
def test_total_batch_size_sets_how_many(total, tokens, processes, times):
    """total = times x tokens of a batch x processes; 0 leaves gradient_accumulation_steps."""
    given = {"total_batch_size": total} if total else {"gradient_accumulation_steps": 5}
    assert Recipe(**given).accumulation(tokens, processes) == times


def test_a_total_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must be a multiple of the 252 tokens that 3 processes "
                                         r"take at once \(84 each\); it is 500"):  # fmt: skip
        Recipe(total_batch_size=500).accumulation(84, 3)
    with pytest.raises(ValueError, match="give one of the two"):
        Recipe(total_batch_size=504, gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="total_batch_size must be at least 0"):
        Recipe(total_batch_size=-1)
    with pytest.raises(ValueError, match="a multiple of the 14 tokens"):
        small_trainer(shards(tmp_path), total_batch_size=15)


def test_total_batch_size_is_what_a_step_takes(tmp_path):
    trainer = small_trainer(shards(tmp_path), total_batch_size=42)
    assert trainer.accumulation == 3 and trainer.take_step().tokens == 42
    assert trainer.batches.loader.position == 6
    assert not any(p.grad is None for p in trainer.model.parameters())
    assert tg.is_grad_enabled()
