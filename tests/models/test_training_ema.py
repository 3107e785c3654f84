"""The average of the weights, beside torch.optim.swa_utils, and who uses it."""

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.models.training.ema import EMA
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.job import restored, train
from tensorgrad.models.training.ladder import revived
from tensorgrad.models.training.token_lm import GPT2, TokenJob
from tensorgrad.serialization import load_tree, save_tree
from tests.models.small_gpt2 import TINY, equal, shards, small_model, small_trainer, weights


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_average_is_pytorchs(decay):
    """The first update copies; then e <- decay e + (1 - decay) p."""
    ours, theirs = nn.Linear(5, 3).to("float64"), torch.nn.Linear(5, 3).double()
    ema, average = EMA(ours, decay), AveragedModel(theirs, multi_avg_fn=get_ema_multi_avg_fn(decay))
    draws = np.random.default_rng(4)
    for _ in range(7):
        for name, p in theirs.named_parameters():
            value = draws.normal(size=p.shape)
            p.data.copy_(torch.from_numpy(value))
            getattr(ours, name).data[...] = tg.tensor(value)
        ema.update()
        average.update_parameters(theirs)
        for name, p in average.module.named_parameters():
            np.testing.assert_allclose(ema.average[name], p.detach().numpy(), rtol=1e-13)
    assert equal(weights(ours), {n: p.detach().numpy() for n, p in theirs.named_parameters()})


def test_of_a_trainers_steps(tmp_path):
    """The same with a tied embedding, along the weights that the steps leave."""
    trainer = small_trainer(shards(tmp_path), "float64", ema_decay=0.8)
    assert trainer.model.lm_head.weight is trainer.model.transformer.wte.weight
    holder = torch.nn.ParameterDict()  # a module of the same weights
    names = {name: name.replace(".", "-") for name in weights(trainer.model)}
    for name, w in weights(trainer.model).items():
        holder[names[name]] = torch.nn.Parameter(torch.from_numpy(w))
    average = AveragedModel(holder, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    for _ in range(5):
        trainer.take_step()
        for name, w in weights(trainer.model).items():
            holder[names[name]].data.copy_(torch.from_numpy(w))
        average.update_parameters(holder)
    assert trainer.ema.average.keys() == names.keys()  # what is tied is there once
    for name, e in trainer.ema.average.items():
        np.testing.assert_allclose(e, average.module[names[name]].detach().numpy(), rtol=1e-12)


def test_evaluations_are_the_averages_and_leave_the_weights(tmp_path):
    trainer = small_trainer(shards(tmp_path), ema_decay=0.9)
    for _ in range(4):
        trainer.take_step()
    before = weights(trainer.model)
    found = trainer.estimate_loss()
    assert equal(weights(trainer.model), before)
    other = small_trainer(shards(tmp_path / "other"))  # no average: what it holds is evaluated
    assert other.estimate_loss() != found
    for name, p in other.model.named_parameters():
        p.data[...] = tg.tensor(trainer.ema.average[name])
    assert other.estimate_loss() == found
    other.model.load_state_dict(trainer.model.state_dict())
    assert other.estimate_loss() != found


def test_weights_come_back_after_an_error():
    model = small_model()
    ema = EMA(model, 0.9)
    ema.update()
    with tg.no_grad():
        model.transformer.wpe.weight += 1
    before = weights(model)
    with pytest.raises(KeyError), ema.in_place():
        assert not equal(weights(model), before)
        raise KeyError
    assert equal(weights(model), before)


def test_before_the_first_step_there_is_no_average():
    """And evaluation is of the weights."""
    model = small_model()
    ema = EMA(model, 0.9)
    before = weights(model)
    with ema.in_place():
        assert equal(weights(model), before)
    assert ema.state() == {}


def test_what_is_frozen_has_no_average():
    model = small_model()
    model.requires_grad_(False)
    model.transformer.ln_f.weight.requires_grad_(True)
    ema = EMA(model, 0.9)
    ema.update()
    assert list(ema.state()) == ["transformer.ln_f.weight"]


def test_a_state_goes_there_and_back(tmp_path):
    """Through a file; later steps are the same bits, and the state is not moved by them."""
    first = small_trainer(shards(tmp_path), ema_decay=0.7)
    for _ in range(2):
        first.take_step()
    save_tree(tmp_path / "state", first.state())
    second = small_trainer(shards(tmp_path / "again"), ema_decay=0.7)
    loaded = load_tree(tmp_path / "state")
    second.load_state(loaded)
    kept = {name: e.copy() for name, e in loaded["average"].items()}
    for _ in range(3):
        first.take_step()
        second.take_step()
    assert equal(first.ema.state(), second.ema.state())
    assert equal(loaded["average"], kept)


def test_the_model_that_comes_back_is_the_average(tmp_path):
    """A run, restored: its validation loss is the one that was told, and the head stays tied."""
    folder = shards(tmp_path)
    train(GPT2, {**TINY, "ema_decay": 0.8}, folder, tmp_path / "out")
    saved = RunFolder(tmp_path / "out").load()
    model, _ = restored(GPT2, saved)
    assert model.lm_head.weight is model.transformer.wte.weight
    average = saved["trainer"]["average"]
    assert equal(weights(model), average)
    last = saved["trainer"]["model"]
    assert not np.array_equal(last["transformer.wte.weight"], average["transformer.wte.weight"])
    told = RunFolder(tmp_path / "out").history()[-1]["val_loss"]
    judge = small_trainer(shards(tmp_path / "judge"))
    judge.model.load_state_dict(model.state_dict())
    assert judge.estimate_loss()["val"] == told


def test_a_decay_is_below_one():
    with pytest.raises(ValueError, match="ema_decay must be less than 1"):
        GPT2.recipe(ema_decay=1.0)


def test_the_last_sample_is_of_the_average(tmp_path, capsys):
    """As what `tensorgrad sample` writes from the checkpoint."""
    folder = shards(tmp_path / "shards")
    given = TINY | {"ema_decay": 0.999, "max_iters": 6, "learning_rate": 0.3, "min_lr": 0.1}
    seen = {}

    def sample(self, model, vocab, recipe, generator):
        seen["weights"] = {n: p.array.copy() for n, p in model.named_parameters()}
        return ""

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TokenJob, "sample", sample)
        train(GPT2, given, folder, tmp_path / "out")
    _, model, _ = revived(tmp_path / "out")
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(p.array, seen["weights"][name], name)
