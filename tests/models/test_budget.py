"""What a model costs, held against PyTorch's own counter of operations."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import tensorgrad as tg
from tensorgrad.models.budget import Latency, budget, latency
from tensorgrad.models.gpt2 import SIZES, GPT2Config, GPT2LMHeadModel
from tests.models.torch_gpt2 import CONFIGS, batch, their_model


@pytest.mark.parametrize("name", CONFIGS)
def test_operations_as_pytorch_counts_them(name):
    config = CONFIGS[name]
    theirs = their_model(config).eval()
    theirs.set_attn_implementation("eager")  # whose products are counted
    ids = torch.from_numpy(batch(config)[0])
    with FlopCounterMode(display=False) as forward:
        loss = theirs(ids).logits.sum()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    ours = budget(GPT2LMHeadModel(config), tokens=11)
    assert ours.flops * ids.numel() == forward.get_total_flops()
    trained = forward.get_total_flops() + backward.get_total_flops()
    assert ours.training_flops * ids.numel() == trained


def test_parameters_and_bytes_are_those_of_the_arrays():
    model = GPT2LMHeadModel(CONFIGS["plain"])
    ours = budget(model)
    count = sum(p.numel() for p in model.parameters())
    assert ours.parameters == count and ours.weight_bytes == 4 * count
    assert ours.training_bytes == 16 * count
    by_path = {part.path: part for part in ours.parts}
    assert by_path["transformer.h.1.mlp.c_fc"].parameters == 20 * 80 + 80
    with tg.no_grad():
        cache = model(tg.zeros(1, 2, dtype=tg.int64), use_cache=True).cache
    layers = [array for layer in cache for array in (layer.keys, layer.values)]
    assert ours.cache_bytes * 17 == sum(array.nbytes for array in layers)


def test_the_four_sizes_b3_3():
    """6 N + 12 L H Q T per token trained, N without positions; nothing is allocated."""
    assert [budget(name).parameters for name in SIZES] == [
        124_439_808, 354_823_168, 774_030_080, 1_557_611_200,
    ]  # fmt: skip
    small = budget("gpt2")
    flops = 6 * (124_439_808 - 1024 * 768) + 12 * 12 * 768 * 1024
    assert small.training_flops == pytest.approx(flops, rel=2e-3)  # biases and norms
    assert small.training_flops == pytest.approx(855e6, rel=2e-3)


def test_the_table():
    text = str(budget("gpt2"))
    assert "0: Block, 12 times" in text and "124,439,808" in text and "1: Block" not in text
    assert "training: 854.4 MFLOP a token at 1,024 tokens" in text
    config = GPT2Config(vocab_size=11, n_positions=5, n_embd=6, n_layer=1, n_head=2)
    assert "0: Block  " in str(budget(config))


def test_latency_b0_22():
    """In evaluation mode, where the model lies, after a warm-up; the model is left as it was."""
    config = GPT2Config(vocab_size=11, n_positions=7, n_embd=6, n_layer=1, n_head=2, dropout=0.5)
    model = GPT2LMHeadModel(config)
    passes = []

    def note(module, args, out):
        ids = args[0]
        passes.append((module.training, ids.shape, tg.is_grad_enabled(), ids.device))

    model.register_forward_hook(note)
    measured = latency(model, tokens=5, batch_size=2, repeats=4, warmup=3)
    assert len(passes) == 7 and set(passes) == {(False, (2, 5), False, tg.device("cpu"))}
    assert model.training and model.transformer.drop.training
    assert len(measured.seconds) == 4 and measured.median > 0
    with pytest.raises(ValueError, match="repeats must be at least 1"):
        latency(model, repeats=0)


def test_latency_as_it_is_told():
    measured = Latency(2, 50, (0.003, 0.001, 0.002))
    assert measured.median == 0.002
    np.testing.assert_allclose(measured.tokens_per_second, 50_000)
    assert str(measured) == (
        "forward, 2 x 50 tokens: median 2.00 ms of 3 (1.00 to 3.00), 50,000 tokens/s"
    )
