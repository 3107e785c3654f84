"""LoRA beside W + (alpha / r) B A in PyTorch: gradients, merging, training and saving adapters."""

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.models.mini_gpt import GPTConfig, MiniGPT
from tensorgrad.nn import Int8Linear, LoRALinear, lora, quantization
from tensorgrad.optim import AdamW

CONFIG = GPTConfig(vocab_size=17, block_size=8, n_embd=12, n_head=3, n_layer=2, dropout=0.0)


def numbers(*shape, seed=4):
    return np.random.default_rng(seed).standard_normal(shape)


def adapted(model, seed=7):
    """Adapters whose B is no longer zero."""
    rng = np.random.default_rng(seed)
    with tg.no_grad():
        for _, adapter in lora.adapters(model):
            adapter.lora_B[:] = tg.tensor(
                rng.standard_normal(adapter.lora_B.shape), dtype=tg.float32
            )
    return model


def model(*names, **how):
    tg.manual_seed(0)
    return lora.inject(MiniGPT(CONFIG), names or ("c_attn", "c_proj"), **how)


IDS = tg.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def test_outputs_and_gradients_are_those_of_the_formula():
    base = nn.Linear(5, 7).double()
    layer = LoRALinear(base, rank=3, alpha=4.5).double()
    with tg.no_grad():
        layer.lora_B[:] = tg.tensor(numbers(7, 3))
    w, a, b, bias = (
        torch.tensor(p.detach().numpy(), requires_grad=True)
        for p in (base.weight, layer.lora_A, layer.lora_B, base.bias)
    )
    x, y = numbers(2, 3, 5), torch.tensor(numbers(2, 3, 5), requires_grad=True)
    ours, theirs = (
        tg.tensor(x, requires_grad=True),
        torch.nn.functional.linear(y, w + 1.5 * b @ a, bias),
    )
    out = layer(ours)
    assert np.allclose(out.detach().array, theirs.detach().numpy(), rtol=1e-9)
    g = numbers(2, 3, 7, seed=8)
    out.backward(tg.tensor(g))
    theirs.backward(torch.tensor(g))
    for mine, other in ((layer.lora_A, a), (layer.lora_B, b), (base.bias, bias), (ours, y)):
        assert np.allclose(mine.grad.array, other.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_nothing_changes_at_first():
    tg.manual_seed(0)
    plain = MiniGPT(CONFIG)
    assert np.array_equal(model()(IDS)[0].array, plain(IDS)[0].array)
    layer = LoRALinear(nn.Linear(300, 5), rank=64)
    assert not layer.lora_B.detach().array.any()
    a = layer.lora_A.detach().array
    assert abs(a).max() <= 1 / np.sqrt(300) and abs(a.std() * np.sqrt(900) - 1) < 0.02


def test_only_adapters_learn():
    m = model(rank=2)
    assert {n.rpartition(".")[2] for n, p in m.named_parameters() if p.requires_grad} == {
        "lora_A", "lora_B",
    }  # fmt: skip
    before = {n: p.detach().array.copy() for n, p in m.named_parameters()}
    optimizer = AdamW([p for p in m.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(30):
        _, loss = m(IDS[:, :-1], IDS[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    for n, p in m.named_parameters():
        assert np.array_equal(p.detach().array, before[n]) == (not p.requires_grad), n


def test_merged_and_taken_apart_again():
    m = adapted(model())
    apart, weight = m(IDS)[0].detach().array, m.blocks[0].attn.c_attn.base.weight
    before = weight.array.copy()
    assert lora.merge(m) is m
    assert np.allclose(m(IDS)[0].detach().array, apart, rtol=1e-4, atol=1e-5)
    expected = before + m.blocks[0].attn.c_attn.delta()
    assert np.array_equal(weight.array, expected) and not np.array_equal(expected, before)
    lora.merge(m)  # a second time does nothing
    assert np.array_equal(weight.array, expected)
    assert lora.unmerge(lora.unmerge(m)) is m
    assert np.allclose(weight.array, before, atol=1e-6)
    assert np.allclose(m(IDS)[0].detach().array, apart, rtol=1e-4, atol=1e-5)


def test_a_merge_is_noticed_by_a_graph_that_kept_the_weight():
    m = adapted(model())
    _, loss = m(IDS[:, :-1], IDS[:, 1:])
    lora.merge(m)
    with pytest.raises(RuntimeError, match="was changed in place"):
        loss.backward()


def test_fused_it_is_the_plain_model():
    m, plain = adapted(model()), MiniGPT(CONFIG)
    apart = m(IDS)[0].detach().array
    plain.load_state_dict(lora.fuse(m).state_dict())
    assert np.allclose(plain(IDS)[0].detach().array, apart, rtol=1e-4, atol=1e-5)
    assert repr(m) == repr(plain)


def test_adapters_are_saved_alone():
    m, other = adapted(model()), model()
    state = lora.state_dict(m)
    assert len(state) == 2 * 6 and set(state) < set(m.state_dict())
    assert "blocks.1.mlp.c_proj.lora_B" in state
    saved = {name: x.array.copy() for name, x in state.items()}
    lora.load_state_dict(other, saved)
    assert np.array_equal(other(IDS)[0].detach().array, m(IDS)[0].detach().array)
    del saved["blocks.1.mlp.c_proj.lora_B"]
    with pytest.raises(RuntimeError, match=r"Missing key.*blocks.1.mlp.c_proj.lora_B"):
        lora.load_state_dict(other, saved)
    with pytest.raises(RuntimeError, match="unmerge the adapters"):
        lora.load_state_dict(lora.merge(other), state)


@pytest.mark.parametrize(
    "names, found",
    [
        (["c_attn"], ["blocks.0.attn.c_attn", "blocks.1.attn.c_attn"]),
        (["blocks.1.mlp.c_fc"], ["blocks.1.mlp.c_fc"]),
        (["mlp.*"], [f"blocks.{i}.mlp.{x}" for i in (0, 1) for x in ("c_fc", "c_proj")]),
        (
            ["lm_head", "blocks.0.attn.*"],
            ["blocks.0.attn.c_attn", "blocks.0.attn.c_proj", "lm_head"],
        ),
    ],
)
def test_which_layers_a_name_stands_for(names, found):
    assert [name for name, _ in lora.adapters(model(*names))] == found


def test_a_layer_in_two_places_has_one_adapter():
    same = nn.Linear(3, 3)
    m = lora.inject(nn.Sequential(same, same), ["0"])
    assert isinstance(m[0], LoRALinear) and m[1] is same


def test_adapters_on_int8_weights():
    tg.manual_seed(0)
    m = lora.inject(quantization.quantize(MiniGPT(CONFIG)), ["c_attn"])
    assert isinstance(m.blocks[0].attn.c_attn.base, Int8Linear)
    _, loss = adapted(m)(IDS[:, :-1], IDS[:, 1:])
    loss.backward()
    assert all(p.grad is not None for p in m.parameters() if p.requires_grad)
    other = quantization.quantize(adapted(model("c_attn")))
    assert np.allclose(other(IDS)[0].detach().array, m(IDS)[0].detach().array, atol=1e-5)
    with pytest.raises(TypeError, match="cannot be merged into int8"):
        lora.merge(m)


def test_a_tied_weight_is_not_merged_into():
    m = model("lm_head", "c_fc")
    before = m.blocks[0].mlp.c_fc.base.weight.array.copy()
    with pytest.raises(ValueError, match="lm_head is shared with another module"):
        lora.merge(adapted(m))
    assert np.array_equal(m.blocks[0].mlp.c_fc.base.weight.array, before), "nothing is half done"


def test_dropout_acts_on_the_correction_alone():
    m = adapted(model(dropout=0.5))
    assert not np.array_equal(m(IDS)[0].array, m(IDS)[0].array)
    m.eval()
    assert np.array_equal(m(IDS)[0].array, m(IDS)[0].array)


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="no Linear is named 'c_atn'; there are c_attn, c_fc"):
        model("c_atn")
    with pytest.raises(ValueError, match="rank must be at least 1"):
        model(rank=0)


def test_repr():
    assert "rank=8, alpha=16, merged=False" in repr(LoRALinear(nn.Linear(2, 3)))
