"""Documents packed in one window: GPT-2 reads each as if it were alone, and trains on it so."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config as TheirConfig
from transformers import GPT2LMHeadModel as TheirModel

import tensorgrad as tg
from tensorgrad.data import block_diagonal_mask, document_ids, position_ids
from tensorgrad.data.shards import write_shard
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel
from tensorgrad.models.training.job import train
from tensorgrad.models.training.token_lm import GPT2

V, EOT = 31, 30
SIZES = {"vocab_size": V, "n_positions": 29, "n_embd": 24, "n_layer": 2, "n_head": 3}
ROW = [EOT, 4, 5, 6, 7, EOT, 9, 1, EOT, 2, 3, 4, 5, 8, EOT, 11, 12]


def model():
    tg.manual_seed(3)
    ends = {"bos_token_id": EOT, "eos_token_id": EOT}
    return GPT2LMHeadModel(GPT2Config(**SIZES, **ends)).eval()


def test_each_document_is_read_as_if_alone():
    """The logits of every document are those of a window that holds nothing else."""
    net, ids = model(), np.array([ROW])
    documents = document_ids(ids, EOT)
    packed = net(
        tg.tensor(ids),
        attention_mask=block_diagonal_mask(documents),
        position_ids=tg.tensor(position_ids(documents)),
    ).logits.array[0]
    for number in np.unique(documents):
        at = np.flatnonzero(documents[0] == number)
        alone = net(tg.tensor(ids[:, at])).logits.array[0]
        np.testing.assert_allclose(packed[at], alone, rtol=2e-5, atol=2e-6)


def test_a_mask_of_pairs_is_transformers(tmp_path):
    net = model()
    net.save_pretrained(tmp_path)
    theirs = TheirModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    assert isinstance(theirs.config, TheirConfig)
    ids = np.array([ROW, ROW[::-1]])
    mask = np.asarray(block_diagonal_mask(document_ids(ids, EOT)))
    ours = net(tg.tensor(ids), attention_mask=mask).logits.array
    beside = torch.zeros(mask.shape).masked_fill(torch.tensor(~mask), torch.finfo().min)
    with torch.no_grad():
        expected = theirs(torch.tensor(ids), attention_mask=beside).logits.numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"must be \(2 or 1, 1, 17, 17\).*is \(1, 1, 3, 3\)"):
        net(tg.tensor(ids), attention_mask=np.ones((1, 1, 3, 3), bool))


def test_training_on_documents(tmp_path):
    """The first loss is that of the documents one by one, weighed by their tokens."""
    tokens = np.array(ROW * 3 + [EOT, 1], np.uint16)
    for split in ("train", "val"):
        write_shard(tmp_path / f"x_{split}_000000.bin", tokens)
    (tmp_path / "weights").mkdir()
    net = GPT2LMHeadModel(GPT2Config(**{**SIZES, "vocab_size": 50257})).eval()
    net.save_pretrained(tmp_path / "weights")
    given = {
        "batch_size": 1, "sequence_length": 17, "max_iters": 1, "eval_iters": 1, "dropout": 0.0,
        "init_from": str(tmp_path / "weights"), "total_batch_size": 0, "sample_length": 1,
        "dtype": "float32",
    }  # fmt: skip
    steps = {
        masked: train(GPT2, given | {"document_mask": masked}, tmp_path, tmp_path / str(masked))
        for masked in (True, False)
    }
    # In GPT-2's vocabulary 30 is a letter and 50256 ends a text: this is one document.
    assert steps[True][0]["loss"] == pytest.approx(steps[False][0]["loss"], rel=1e-6)
    ends = np.where(tokens == EOT, 50256, tokens).astype(np.uint16)
    for split in ("train", "val"):
        write_shard(tmp_path / f"x_{split}_000000.bin", ends)
    found = train(GPT2, given | {"document_mask": True}, tmp_path, tmp_path / "own")[0]["loss"]
    x, y = ends[:17].astype(np.int64), ends[1:18].astype(np.int64)
    numbers, total = document_ids(x, 50256), 0.0
    for number in np.unique(numbers):
        at = np.flatnonzero(numbers == number)
        loss = net(tg.tensor(x[None, at]), tg.tensor(y[None, at]))[1].item()
        total += loss * len(at)
    assert found == pytest.approx(total / 17, rel=1e-5)
    assert abs(found - steps[False][0]["loss"]) > 1e-5
