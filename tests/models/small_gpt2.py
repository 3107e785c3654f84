"""A GPT-2 of a few thousand weights and its trainer on shards, for tests of training."""

import numpy as np

import tensorgrad as tg
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel
from tensorgrad.models.training.batches import ShardBatches
from tensorgrad.models.training.recipe import TokenRecipe
from tensorgrad.models.training.trainer import Trainer
from tests.models.token_folder import language, token_folder

V, T = 263, 7
TINY = {
    "n_layer": 2, "n_head": 3, "n_embd": 15, "n_positions": T, "batch_size": 2, "max_iters": 6,
    "warmup_iters": 2, "learning_rate": 1e-2, "min_lr": 1e-3, "total_batch_size": 0,
    "eval_interval": 3, "eval_iters": 2, "sample_length": 4, "dtype": "float32", "keep_last": 1,
    "keep_best": False, "shuffle": False,
}  # fmt: skip
"""For `tensorgrad train gpt2`, in the place of the preset's."""


def recipe(**changes):
    values = {"batch_size": 2, "max_iters": 6, "warmup_iters": 2, "learning_rate": 1e-2,
              "min_lr": 1e-3, "eval_interval": 3, "eval_iters": 2, "seed": 11}  # fmt: skip
    return TokenRecipe(**{**values, **changes})


def shards(path, train=173, val=59):
    """A folder of shards; 173 tokens are 24 windows of 7 and one of 4 targets."""
    return token_folder(path / "shards", language(train), language(val, seed=1))


def small_model(dtype="float32", seed=3, **changes):
    tg.manual_seed(seed)
    sizes = {"n_layer": 2, "n_head": 3, "n_embd": 15, "dropout": 0.0}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=V, n_positions=T, **{**sizes, **changes}))
    return model.to(dtype)


def small_trainer(folder, weights_in="float32", sizes=None, **changes):
    r = recipe(**changes)
    model = small_model(weights_in, **(sizes or {}))
    return Trainer(model, r, ShardBatches(folder, T, r.batch_size, r.seed, r.shuffle))


def gradients(model):
    return {name: p.grad.array.copy() for name, p in model.named_parameters()}


def weights(model):
    return {name: p.array.copy() for name, p in model.named_parameters()}


def equal(a, b):
    """Whether two sets of arrays are the same bits."""
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
