"""`tensorgrad train gpt2` beside a loop of PyTorch's: the same weights, shards, recipe, losses."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad.data import TokenLoader
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel
from tensorgrad.models.training.folder import RunFolder
from tensorgrad.models.training.job import restored
from tensorgrad.models.training.token_lm import GPT2
from tensorgrad.models.weights import llmc
from tests.models import torch_train_gpt2
from tests.models.token_folder import language, token_folder
from tests.models.torch_train_gpt2 import Plan, evaluate, read_model, read_shard, train, walk
from tests.tree import ROOT

V, EVALUATED = 307, 4
PLAN = Plan(
    batch_size=3, T=64, accumulation=2, steps=50, learning_rate=3e-3, min_lr=3e-4, warmup=7,
    weight_decay=0.1, beta1=0.9, beta2=0.95, grad_clip=1.0,
)  # fmt: skip
CONFIG = GPT2Config(
    vocab_size=V, n_positions=PLAN.T, n_embd=52, n_layer=3, n_head=4, dropout=0.0,
    bos_token_id=V - 1, eos_token_id=V - 1,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """So small a model is quicker on one, and many times where other processes compete."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Shards, first weights in llm.c's form, and the same that were read out of it."""
    path = tmp_path_factory.mktemp("llmc")
    at_once = PLAN.batch_size * PLAN.T
    # The last window of the row begins where the plan ends, so no target is left out.
    train_ids = language(PLAN.accumulation * at_once * PLAN.steps + 1, V, 3)
    token_folder(path / "shards", train_ids, language(EVALUATED * at_once + 1, V, 4), V)
    tg.manual_seed(7)
    llmc.save(path / "model.bin", GPT2LMHeadModel(CONFIG))
    llmc.load(path / "model.bin", bos_token_id=V - 1, eos_token_id=V - 1).save_pretrained(
        path / "model"
    )
    return path


@pytest.fixture(scope="module")
def ours(folder):
    """The folder of the run of the real command."""
    p = PLAN
    options = {
        "data": folder / "shards", "out_dir": folder / "out", "init_from": folder / "model",
        "batch_size": p.batch_size, "gradient_accumulation_steps": p.accumulation,
        "total_batch_size": 0, "max_iters": p.steps, "learning_rate": p.learning_rate,
        "min_lr": p.min_lr, "warmup_iters": p.warmup, "weight_decay": p.weight_decay,
        "beta1": p.beta1, "beta2": p.beta2, "grad_clip": p.grad_clip, "dropout": 0,
        "dtype": "float32", "eval_interval": 25, "eval_iters": EVALUATED, "sample_length": 5,
        "keep_last": 3, "shuffle": False,
    }  # fmt: skip
    line = [sys.executable, "-m", "tensorgrad", "train", "gpt2"]
    done = subprocess.run(
        [*line, *(f"--{k}={v}" for k, v in options.items())], cwd=ROOT, capture_output=True,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return RunFolder(folder / "out")


@pytest.fixture(scope="module")
def theirs(folder):
    return train(folder / "model.bin", folder / "shards" / "made_train_000001.bin", PLAN)


def test_fifty_losses_are_pytorchs(ours, theirs):
    """F4.5: 1e-3 at every step is what is asked for; 1e-6 apart is what they are."""
    steps, _ = theirs
    history = ours.history()
    assert [s["step"] for s in history] == list(range(1, 51))
    assert [s["lr"] for s in history] == pytest.approx([s["lr"] for s in steps], rel=1e-12)
    for mine, other in zip(history, steps, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], abs=2e-5), mine["step"]
        assert mine["grad_norm"] == pytest.approx(other["norm"], rel=1e-4), mine["step"]
        assert mine["tokens"] == 2 * PLAN.batch_size * PLAN.T
    assert steps[-1]["loss"] < steps[0]["loss"] - 1  # or there was nothing to compare


def test_the_final_weights_are_pytorchs(folder, ours, theirs):
    """Through llm.c's file, which the other side reads."""
    model, _ = restored(GPT2, ours.load())
    llmc.save(folder / "final.bin", model)
    _, mine = read_model(folder / "final.bin")
    _, first = read_model(folder / "model.bin")
    _, weights = theirs
    assert mine.keys() == weights.keys()
    for name, weight in weights.items():
        moved = (weight - first[name]).abs().max().item()
        assert moved > 1e-3, name
        assert (mine[name] - weight).abs().max().item() < 0.005 * moved, name


def test_the_evaluations_are_pytorchs(folder, ours, theirs):
    """The first batches of the validation shard, in the middle and at the end."""
    sizes, _ = read_model(folder / "model.bin")
    shard = folder / "shards" / "made_val_000000.bin"
    evaluated = {s["step"]: s["val_loss"] for s in ours.history() if "val_loss" in s}
    assert evaluated.keys() == {25, 50}
    how = (sizes, shard, PLAN.batch_size, PLAN.T, EVALUATED)
    assert evaluated[50] == pytest.approx(evaluate(theirs[1], *how), abs=2e-5)
    middle, _ = restored(GPT2, ours.load(name="ckpt-00000025.safetensors"))
    llmc.save(folder / "middle.bin", middle)
    assert evaluated[25] == pytest.approx(
        evaluate(read_model(folder / "middle.bin")[1], *how), abs=2e-5
    )


def test_pytorchs_side_stands_alone():
    """It imports nothing of ours."""
    nodes = list(ast.walk(ast.parse(Path(torch_train_gpt2.__file__).read_text("utf-8"))))
    names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in nodes if isinstance(n, ast.ImportFrom)}
    assert names == {
        "json", "math", "sys", "dataclasses", "numpy", "torch", "torch.nn.functional",
    }  # fmt: skip


def test_the_walk_is_the_loaders(folder):
    """Row by row: B T + 1 tokens, then B T further."""
    stream = walk(read_shard(folder / "shards" / "made_train_000001.bin"), 3, 64)
    with TokenLoader(folder / "shards", 3, 64) as loader:
        for _ in range(2 * PLAN.steps):
            for mine, other in zip(loader.next_batch(), next(stream), strict=True):
                np.testing.assert_array_equal(mine, other.numpy())
