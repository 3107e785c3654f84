"""GPT2Trainer beside PyTorch's loop on transformers' GPT-2; files that go on byte for byte."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad.data import DataLoader, PadCollate
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel
from tensorgrad.models.training.gpt2_trainer import GPT2Trainer, labels_of
from tensorgrad.models.variants import create_gpt2_model
from tensorgrad.serialization import CheckpointError, load_arrays, load_tree, save_tree
from tests.models.torch_gpt2 import PLAIN, batch, their_loss, turned, twins

OPTIONS = {"lr": 3e-3, "total_steps": 7, "warmup_steps": 2, "min_lr": 1e-4}
TINY = {"vocab_size": 29, "n_positions": 13, "n_embd": 12, "n_layer": 2, "n_head": 3}


def trainer_of(seed=1, **more):
    tg.manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(**TINY, dropout=0.2))
    return GPT2Trainer(model, model.config, "cpu", **{**OPTIONS, **more})


def batches(count, seed=0):
    """Rows of different lengths, padded on the right with an id that texts have, too."""
    draws = np.random.default_rng(seed)
    pad = PadCollate(3)
    for _ in range(count):
        yield pad([draws.integers(0, 29, n) for n in draws.integers(2, 13, 4)])


def rate(step, lr, warmup, total, low):
    if step < warmup:
        return lr * (step + 1) / (warmup + 1)
    t = (min(step, total) - warmup) / (total - warmup)
    return low + (lr - low) * (1 + math.cos(math.pi * t)) / 2


@pytest.mark.parametrize("padding", [None, "right", "left"])
def test_the_steps_are_pytorchs(padding):
    """B0.6, B0.19: the same losses for longer than the schedule lasts, then the same weights."""
    ours, theirs = twins(PLAIN)
    trainer = GPT2Trainer(ours, PLAIN, "cpu", grad_clip=0.5, **OPTIONS)
    weights = list(theirs.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in weights if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
        ]
    )
    for step in range(10):
        ids, mask, positions, labels = batch(PLAIN, padding, seed=step)
        given = {"input_ids": tg.tensor(ids)}
        if padding is not None:
            given["attention_mask"] = tg.tensor(mask)
        loss = trainer.train_step(given)
        assert isinstance(loss, float) and trainer.step == step + 1
        for group in optimizer.param_groups:
            group["lr"] = rate(step, 3e-3, 2, 7, 1e-4)
        logits = theirs(
            torch.from_numpy(ids), attention_mask=torch.from_numpy(mask),
            position_ids=torch.from_numpy(positions),
        ).logits  # fmt: skip
        expected = their_loss(logits, torch.from_numpy(labels))
        optimizer.zero_grad()
        expected.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights, 0.5)
        optimizer.step()
        assert norm > 0.5, "the clipping must matter"
        assert loss == pytest.approx(expected.item(), rel=1e-7)
    state = ours.state_dict()
    for name, weight in theirs.state_dict().items():
        np.testing.assert_allclose(
            state[name].numpy(), turned(name, weight.numpy()), 1e-5, 1e-7, name
        )


def test_the_seeds_defaults_and_a_rate_that_stays_down():
    """B0.19."""
    tg.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**TINY))
    trainer = GPT2Trainer(model, model.config)
    assert trainer.device.type == ("cuda" if tg.cuda.is_available() else "cpu")
    decayed, kept = trainer.optimizer.param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.01, 0.0)
    assert all(p.ndim == 1 for p in kept["params"]) and trainer.grad_clip == 1.0
    rates = []
    for _ in range(1200):
        rates.append(trainer.scheduler.get_last_lr()[0])
        trainer.scheduler.step()
    assert max(rates) == rates[100] == 5e-5
    assert all(a < b for a, b in pairwise(rates[:101]))
    assert all(a > b for a, b in pairwise(rates[100:1001]))
    assert set(rates[1000:]) == {5e-6}


def test_padding_is_no_target():
    """B0.5, B0.6, B0.7: by the mask, not by the id: an id that pads counts where a text has it."""
    ids = tg.tensor([[3, 7, 3, 3, 3], [3, 3, 5, 3, 8]])
    mask = tg.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]])
    expected = [[3, 7, 3, -100, -100], [-100, -100, -100, 3, 8]]
    assert labels_of(ids, mask).tolist() == labels_of(ids, mask.bool()).tolist() == expected
    assert labels_of(ids, None) is ids
    losses = []
    for filler in (3, 11):  # what stands where the mask is 0 makes no difference
        ids = tg.tensor([[3, 7, 3, filler, filler], [9, 2, 5, 3, 8]])
        mask = tg.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
        losses.append(trainer_of().train_step({"input_ids": ids, "attention_mask": mask}))
    assert losses[0] == losses[1]


def test_labels_of_the_batch_are_taken():
    ids = tg.tensor([[3, 7, 4, 2, 5]])
    labels = tg.tensor([[-100, -100, -100, 9, -100]])
    trainer = trainer_of()
    trainer.model.eval()
    logits = trainer.model(ids).logits[0, 2].detach().numpy().astype(np.float64)
    for module in trainer.model.modules():
        if hasattr(module, "p"):
            module.p = 0.0  # dropout, in the layers and in attention
    expected = -(logits[9] - np.log(np.exp(logits).sum()))
    assert trainer.train_step({"input_ids": ids, "labels": labels}) == pytest.approx(expected, 1e-5)
    assert trainer.model.training


@pytest.mark.parametrize("stop", [0, 1, 5, 8])
def test_a_file_goes_on_byte_for_byte(stop, tmp_path):
    """B0.19: 9 steps = k steps, a file, everything made anew, 9 - k steps; dropout included."""
    whole = trainer_of()
    expected = [whole.train_step(b) for b in batches(9)]
    whole.save_model(tmp_path / "whole")

    for way in ("load_model", "from_file"):
        first = trainer_of()
        losses = [first.train_step(b) for b in list(batches(9))[:stop]]
        first.save_model(tmp_path / "part")
        if way == "load_model":  # other weights, rates and random numbers, until it is loaded
            second = trainer_of(99, lr=1.0, total_steps=100, grad_clip=3.0, weight_decay=0.5)
            second.load_model(tmp_path / "part")
        else:
            tg.manual_seed(99)
            second = GPT2Trainer.from_file(tmp_path / "part", "cpu")
        assert second.step == stop and second.config == first.config
        losses += [second.train_step(b) for b in list(batches(9))[stop:]]
        assert losses == expected, way
        second.save_model(tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == (tmp_path / "whole").read_bytes()
    tied = [name for name in load_arrays(tmp_path / "whole")[0] if name.startswith("model.")]
    assert "model.transformer.wte.weight" in tied and "model.lm_head.weight" not in tied


def test_a_shuffled_loader_goes_on_too(tmp_path):
    """The order of the batches comes from the generator that the file has."""
    rows = [np.arange(n) % 29 for n in (5, 8, 3, 7, 6)]
    loader = DataLoader(rows, 2, shuffle=True, collate_fn=PadCollate(0))
    trainer = trainer_of()
    epochs = [[trainer.train_step(b) for b in loader]]
    trainer.save_model(tmp_path / "file")
    epochs.append([trainer.train_step(b) for b in loader])
    again = trainer_of(5)
    again.load_model(tmp_path / "file")
    assert [again.train_step(b) for b in loader] == epochs[1]


def test_a_variant_comes_back_as_it_was(tmp_path):
    tg.manual_seed(0)
    model = create_gpt2_model(
        **TINY, positions="rope", norm="rmsnorm", eos_token_id=[4, 5], dropout=0.0
    )
    trainer = GPT2Trainer(model, model.config, "cpu")
    batch = next(batches(1))
    trainer.train_step(batch)
    trainer.save_model(tmp_path / "file")
    again = GPT2Trainer.from_file(tmp_path / "file", "cpu")
    assert again.config == model.config and again.train_step(batch) == trainer.train_step(batch)


def state_of(trainer, path):
    trainer.save_model(path)
    return path.read_bytes()


def test_another_models_file_is_refused_and_changes_nothing(tmp_path):
    trainer, path = trainer_of(), tmp_path / "file"
    trainer.train_step(next(batches(1)))
    model = GPT2LMHeadModel(GPT2Config(**{**TINY, "n_embd": 15}, dropout=0.2))
    GPT2Trainer(model, model.config, "cpu").save_model(path)
    before = state_of(trainer, tmp_path / "before")
    with pytest.raises(CheckpointError, match="n_embd is 12 in this model and 15 in the file; GP"):
        trainer.load_model(path)
    saved = load_tree(path)
    save_tree(path, {**saved, "config": trainer.config.to_dict()})  # a file that contradicts itself
    with pytest.raises(CheckpointError, match="is another model's"):
        trainer.load_model(path)
    del saved["model"]["transformer.ln_f.bias"]
    save_tree(path, saved)
    with pytest.raises(CheckpointError, match=r"Missing key.*transformer.ln_f.bias"):
        GPT2Trainer.from_file(path, "cpu")
    for content in ({"kind": "char GPT"}, [1], {**saved, "kind": 3}):
        save_tree(path, content)
        with pytest.raises(CheckpointError, match=r"is no file of GPT2Trainer\.save_model"):
            trainer.load_model(path)
    save_tree(path, {**saved, "config": {"n_embed": 12, "n_hed": 3}})
    with pytest.raises(CheckpointError, match="its config cannot be: there is no setting 'n_hed'"):
        trainer.load_model(path)
    path.write_bytes(before[:-1])
    with pytest.raises(CheckpointError, match="file"):
        trainer.load_model(path)
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        trainer.load_model(tmp_path / "none")
    assert state_of(trainer, tmp_path / "after") == before


def test_the_file_is_replaced_whole_and_holds_no_pickle(tmp_path):
    trainer, path = trainer_of(), tmp_path / "model.pth"
    trainer.save_model(path)
    before = path.read_bytes()
    length = int.from_bytes(before[:8], "little")
    header = json.loads(before[8 : 8 + length])  # safetensors, whatever the name says
    assert "optimizer" in header["__metadata__"]["tree"]
    trainer.scheduler.state_dict = lambda: {"no": object()}
    with pytest.raises(TypeError, match=r"scheduler\.no is a object"):
        trainer.save_model(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_is_refused():
    trainer = trainer_of()
    other = GPT2Config(**{**TINY, "n_layer": 3}, dropout=0.2)
    with pytest.raises(ValueError, match=r"n_layer is 2 in the model and 3 in the config; give"):
        GPT2Trainer(trainer.model, other)
    with pytest.raises(ValueError, match="total_steps must be at least 1"):
        GPT2Trainer(trainer.model, trainer.config, "cpu", total_steps=0)
    with pytest.raises(ValueError, match="lr must be at least 0, it is -1"):
        GPT2Trainer(trainer.model, trainer.config, "cpu", lr=-1)
    with pytest.raises(ValueError, match="the batch has ids and no input_ids"):
        trainer.train_step({"ids": 1})
    empty = {"input_ids": tg.tensor([[1, 2]]), "attention_mask": tg.tensor([[1, 0]])}
    with pytest.raises(ValueError, match=r"nothing is to be predicted in this batch of \(1, 2\)"):
        trainer.train_step(empty)
    with tg.no_grad():
        trainer.model.transformer.ln_f.bias[2] = float("inf")
    before = trainer.model.transformer.wte.weight.array.copy()
    with pytest.raises(FloatingPointError, match=r"at step 1 the loss is nan.*lower lr"):
        trainer.train_step(next(batches(1)))
    np.testing.assert_array_equal(trainer.model.transformer.wte.weight.array, before)
    assert trainer.step == 0
