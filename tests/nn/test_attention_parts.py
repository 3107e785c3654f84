"""Attention from parts beside Llama's and PyTorch's; with a cache and padding it stays the same."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.nn import ALiBi, GroupedQueryAttention, Local, Longformer, RoPE, Strided
from tensorgrad.nn.positions import alibi_slopes
from tests.nn.test_positions import angles
from tests.ops.compare import few

C, H, D = 24, 6, 4
heads = pytest.mark.parametrize("h", [6, 3, 2, 1])


def numbers(*shape, seed=5):
    return np.random.default_rng(seed).standard_normal(shape)


def seeded(layer):
    tg.manual_seed(3)
    for p in layer.double().parameters():
        nn.init.normal_(p, std=0.5)
    return layer


def theirs(layer, x, positions=None, bias=None, see=None):
    """y of PyTorch with the weights of ours, and its gradients by our names."""
    weights = {
        name: torch.tensor(p.detach().numpy(), requires_grad=True)
        for name, p in layer.named_parameters()
    }
    x = torch.tensor(x, requires_grad=True)
    B, T, _ = x.shape
    h = layer.n_kv_head
    qkv = x @ weights["c_attn.weight"].T + weights.get("c_attn.bias", 0)
    q, k, v = qkv.split((C, h * D, h * D), -1)
    q, k, v = (a.reshape(B, T, -1, D).transpose(1, 2) for a in (q, k, v))
    if positions is not None:
        angle = torch.tensor(np.concatenate([angles(positions, D=D)] * 2, -1))[:, None]
        half = lambda a: torch.cat((-a[..., D // 2 :], a[..., : D // 2]), -1)  # noqa: E731
        q, k = (a * angle.cos() + half(a) * angle.sin() for a in (q, k))
    mask = torch.ones(T, T, dtype=torch.bool).tril() if see is None else see
    if bias is not None:
        mask = bias.masked_fill(~mask, -torch.inf)
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
    y = y.transpose(1, 2).reshape(B, T, C)
    y = y @ weights["c_proj.weight"].T + weights.get("c_proj.bias", 0)
    y.backward(torch.tensor(numbers(*y.shape, seed=9)))
    return {"y": y.detach(), "x": x.grad} | {name: p.grad for name, p in weights.items()}


def ours(layer, x, **how):
    layer.zero_grad()
    x = tg.tensor(x, requires_grad=True)
    y = layer(x, **how)
    y.backward(tg.tensor(numbers(*y.shape, seed=9)))
    return {"y": y.detach(), "x": x.grad} | {name: p.grad for name, p in layer.named_parameters()}


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert np.allclose(a[name].array, b[name].numpy(), rtol=1e-9, atol=1e-9), name


@heads
@pytest.mark.parametrize("bias", [True, False])
def test_key_heads_that_serve_several_query_heads(h, bias):
    layer, x = seeded(GroupedQueryAttention(C, H, h, bias)), numbers(2, 7, C)
    assert layer.c_attn.weight.shape == (C + 2 * h * D, C)
    same(ours(layer, x), theirs(layer, x))


@heads
def test_with_rotations(h):
    layer, x = seeded(GroupedQueryAttention(C, H, h, positions=RoPE(D))), numbers(2, 7, C)
    same(ours(layer, x), theirs(layer, x, np.arange(7)[None]))
    at = np.random.default_rng(2).integers(0, 50, (2, 7))
    same(ours(layer, x, positions=tg.tensor(at)), theirs(layer, x, at))


@heads
def test_with_prices_on_distance(h):
    layer, x = seeded(GroupedQueryAttention(C, H, h, positions=ALiBi(H))), numbers(2, 7, C)
    i = np.arange(7)
    bias = torch.tensor(alibi_slopes(H)[:, None, None] * (i - i[:, None]))
    same(ours(layer, x), theirs(layer, x, bias=bias))


@pytest.mark.parametrize("h", [6, 2])
def test_it_is_llamas(h):
    config = LlamaConfig(
        hidden_size=C, num_attention_heads=H, num_key_value_heads=h, attn_implementation="sdpa",
        max_position_embeddings=32,
    )  # fmt: skip
    layer = seeded(GroupedQueryAttention(C, H, h, bias=False, positions=RoPE(D)))
    llama = LlamaAttention(config, 0).double()
    sizes = (C, h * D, h * D)
    parts = torch.tensor(layer.c_attn.weight.detach().numpy()).split(sizes)
    for name, part in zip("qkv", parts, strict=True):
        getattr(llama, f"{name}_proj").weight.data = part
    llama.o_proj.weight.data = torch.tensor(layer.c_proj.weight.detach().numpy())
    x = numbers(2, 11, C)
    angle = torch.tensor(np.concatenate([angles(np.arange(11)[None], D=D)] * 2, -1))
    y, _ = llama(torch.tensor(x), (angle.cos(), angle.sin()), None)
    assert np.allclose(layer(tg.tensor(x)).detach().array, y.detach().numpy(), rtol=1e-9, atol=1e-9)


def test_the_mlp_is_llamas():
    config = LlamaConfig(hidden_size=10, intermediate_size=13, num_attention_heads=1)
    ours, theirs = seeded(nn.SwiGLU(10, 13)), LlamaMLP(config).double()
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})
    x = numbers(2, 5, 10)
    a, b = tg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(b)
    assert np.allclose(y.detach().array, z.detach().numpy(), rtol=1e-9)
    g = numbers(2, 5, 10, seed=8)
    y.backward(tg.tensor(g))
    z.backward(torch.tensor(g))
    assert np.allclose(a.grad.array, b.grad.numpy(), rtol=1e-9, atol=1e-12)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert np.allclose(p.grad.array, q.grad.numpy(), rtol=1e-9, atol=1e-12), name


def test_the_mlps_size_by_default():
    mlp = nn.SwiGLU(12)
    assert mlp.gate_proj.weight.shape == (32, 12) and mlp.down_proj.weight.shape == (12, 32)
    assert sum(p.numel() for p in mlp.parameters()) == 2 * 12 * 48
    assert nn.SwiGLU(3, 5, bias=True).gate_proj.bias.shape == (5,)


def test_gradients_by_differences():
    layer = seeded(GroupedQueryAttention(8, 2, 1, positions=RoPE(4)))
    x = tg.tensor(numbers(1, 3, 8), requires_grad=True)
    assert tg.autograd.gradcheck(layer, (x,), check_forward_ad=True)


KINDS = {
    "plain": lambda h: GroupedQueryAttention(C, H, h),
    "rotations": lambda h: GroupedQueryAttention(C, H, h, positions=RoPE(D)),
    "interleaved": lambda h: GroupedQueryAttention(C, H, h, positions=RoPE(D, interleaved=True)),
    "prices": lambda h: GroupedQueryAttention(C, H, h, positions=ALiBi(H)),
    "local": lambda h: GroupedQueryAttention(C, H, h, positions=RoPE(D), pattern=Local(3)),
    "strided": lambda h: GroupedQueryAttention(C, H, h, pattern=Strided(2)),
    "longformer": lambda h: GroupedQueryAttention(C, H, h, pattern=Longformer(2, 1)),
    "prices, local": lambda h: GroupedQueryAttention(
        C, H, h, positions=ALiBi(H), pattern=Local(3)
    ),
}  # fmt: skip
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
@few
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.sampled_from([6, 2, 1]))
def test_with_a_cache_as_without(kind, chunks, h):
    """All tokens at once, or in any chunks, the keys of the earlier ones being remembered."""
    layer, T = seeded(KINDS[kind](h)), sum(chunks)
    x = tg.tensor(numbers(2, T, C))
    with tg.no_grad():
        whole = layer(x).array
        cache = nn.KVCache(1, 2, h, T, D, dtype=tg.float64)
        parts, past = [], 0
        for n in chunks:
            parts.append(layer(x[:, past : past + n], cache=cache[0]).array)
            past += n
    assert np.allclose(np.concatenate(parts, 1), whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("strided", "longformer")])
@pytest.mark.parametrize("form", ["padding", "full"])
def test_a_padded_row_answers_as_it_does_alone(kind, form):
    """Padding on the left moves tokens, which only absolute patterns would notice."""
    layer, x = seeded(KINDS[kind](2)), numbers(2, 9, C)
    real = np.ones((2, 9), bool)
    real[1, :4] = False
    mask = real if form == "padding" else real[:, None, None] & np.tri(9, dtype=bool)
    with tg.no_grad():
        both = layer(tg.tensor(x), mask=tg.tensor(mask)).array
        first, second = layer(tg.tensor(x[:1])).array, layer(tg.tensor(x[1:, 4:])).array
        cache = nn.KVCache(1, 2, 2, 9, D, dtype=tg.float64)
        early = tg.tensor(mask[..., :-1] if form == "padding" else mask[..., :-1, :-1])
        layer(tg.tensor(x[:, :-1]), mask=early, cache=cache[0])
        late = tg.tensor(mask if form == "padding" else mask[..., -1:, :])
        last = layer(tg.tensor(x[:, -1:]), mask=late, cache=cache[0]).array
    assert np.allclose(both[:1], first, rtol=1e-9, atol=1e-12)
    assert np.allclose(both[1:, 4:], second, rtol=1e-9, atol=1e-12)
    assert np.isfinite(both).all(), "rows of nothing but padding are zeros, not NaN"
    assert np.allclose(last[:, 0], both[:, -1], rtol=1e-9, atol=1e-12)


@kinds
def test_maps(kind):
    layer, x = seeded(KINDS[kind](2)), tg.tensor(numbers(2, 7, C))
    maps = []
    y = layer(x, maps=maps)
    assert np.allclose(y.detach().array, layer(x).detach().array, rtol=1e-9, atol=1e-12)
    (p,) = maps
    assert p.shape == (2, H, 7, 7) and np.allclose(p.detach().array.sum(-1), 1)
    assert (np.triu(p.detach().array, 1) == 0).all()


def test_the_first_tokens_of_a_cache_keep_their_gradients():
    layer, cache = GroupedQueryAttention(C, H, 2), nn.KVCache(1, 1, 2, 5, D)
    layer(tg.ones(1, 3, C), cache=cache[0]).sum().backward()
    assert layer.c_attn.weight.grad is not None and cache.length == 3


def test_dropout_acts_in_training_alone():
    layer, x = GroupedQueryAttention(C, H, 2, dropout=0.4), tg.tensor(numbers(1, 7, C)).float()
    a, b = layer(x).detach().array, layer(x).detach().array
    assert not np.array_equal(a, b)
    layer.eval()
    assert np.array_equal(layer(x).detach().array, layer(x).detach().array)


@pytest.mark.parametrize(
    "how, told",
    [
        ({"n_head": 5}, "n_embd 24 does not divide into 5 heads"),
        ({"n_head": 6, "n_kv_head": 4}, "n_kv_head must divide n_head"),
        ({"n_head": 6, "dropout": 0.1, "pattern": Local(3)}, "give dropout=0 with a pattern"),
    ],
)
def test_sizes_that_do_not_fit(how, told):
    with pytest.raises(ValueError, match=told):
        GroupedQueryAttention(C, **how)
