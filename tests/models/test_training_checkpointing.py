"""gradient_checkpointing: the same training bit for bit, in less memory."""

import tracemalloc

import pytest

import tensorgrad as tg
from tensorgrad.autograd.saved import saved
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.job import train
from tensorgrad.models.training.token_lm import GPT2
from tests.models.small_gpt2 import TINY, equal, gradients, shards, small_model, small_trainer


def batch():
    return (tg.tensor([[5, 7, 2, 9, 1, 3, 4]] * 3), tg.tensor([[7, 2, 9, 1, 3, 4, 8]] * 3))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_losses_and_gradients_are_the_same_bits(tmp_path, dropout):
    found = []
    for again in (False, True):
        trainer = small_trainer(
            shards(tmp_path / str(again)), sizes={"dropout": dropout},
            gradient_accumulation_steps=2, max_iters=5,
        )  # fmt: skip
        if again:
            trainer.model.gradient_checkpointing_enable()
        steps = [(s.loss, s.grad_norm, s.val_loss) for s in trainer.steps()]
        found.append((steps, gradients(trainer.model), tg.rand(3).tolist()))
    (plain, g, after), (checkpointed, g_again, after_again) = found
    assert plain == checkpointed and equal(g, g_again)
    assert after == after_again  # the generator of dropout stands where it would have stood


@pytest.mark.parametrize("n_layer", [2, 5])
def test_less_is_kept(n_layer):
    """Of a block its input, one (B, T, C), and not fifteen more; by the graph, by tracemalloc."""
    kept, traced = [], []
    for again in (False, True):
        model = small_model(n_layer=n_layer, n_embd=60)
        if again:
            model.gradient_checkpointing_enable()
        x, y = batch()
        model(x, y)[1].backward()  # kernels are compiled, caches filled
        tracemalloc.start()
        loss = model(x, y)[1]
        traced.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        kept.append(saved(loss, dict(model.named_parameters())).total)
    size = 3 * 7 * 60 * 4
    for plain, less in (kept, traced):
        assert plain - less > n_layer * 14 * size


def test_by_the_command(tmp_path):
    """The same files but for the recipe, and the flag is on."""
    folder = shards(tmp_path)
    given = {**TINY, "dropout": 0.2}
    losses = []
    for flag in (False, True):
        out = tmp_path / str(flag)
        train(GPT2, {**given, "gradient_checkpointing": flag}, folder, out)
        losses.append((out / "losses.jsonl").read_bytes())
    assert losses[0] == losses[1]
    saved_run = RunFolder(tmp_path / "True").load()
    recipe = GPT2.recipe.from_dict(saved_run["recipe"])
    assert recipe.gradient_checkpointing
    config = GPT2.config.from_dict(saved_run["config"])
    assert GPT2.made(config, recipe, False).transformer.gradient_checkpointing


def test_a_run_that_begins_with_its_weights_has_its_own_say(tmp_path):
    folder = shards(tmp_path)
    train(GPT2, {**TINY, "gradient_checkpointing": True}, folder, tmp_path / "one")
    recipe = GPT2.recipe(init_from=str(tmp_path / "one"))
    config = GPT2.config.from_dict(RunFolder(tmp_path / "one").load()["config"])
    assert not GPT2.made(config, recipe, True).transformer.gradient_checkpointing
