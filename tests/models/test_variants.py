"""GPT-2 of other parts: what each says of itself, computes, caches, saves, and refuses."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.models.budget import budget
from tensorgrad.models.gpt2 import CausalSelfAttention, GPT2Config, GPT2LMHeadModel
from tensorgrad.models.layers import undrawn
from tensorgrad.models.variants import (
    VariantConfig,
    create_gpt2_large,
    create_gpt2_medium,
    create_gpt2_model,
    create_gpt2_small,
    create_gpt2_xl,
    gpt2_config,
)
from tensorgrad.nn import lora
from tensorgrad.nn.quantization import quantize
from tensorgrad.serialization import CheckpointError

SIZES = {
    "vocab_size": 31, "n_positions": 23, "n_embd": 24, "n_layer": 2, "n_head": 6, "dropout": 0.0,
}  # fmt: skip
VARIANTS = {
    "rope": {"positions": "rope"},
    "alibi": {"positions": "alibi"},
    "sinusoidal": {"positions": "sinusoidal"},
    "grouped": {"n_kv_head": 2},
    "llama": {
        "n_kv_head": 1, "positions": "rope", "rope_base": 500.0, "norm": "rmsnorm",
        "mlp": "swiglu", "bias": False, "tie_word_embeddings": False, "n_inner": 17,
    },
    "sparse": {"use_sparse_attention": True, "attention_window": 5},
    "strided": {"attention": "strided", "positions": "rope"},
    "global": {"attention": "global"},
    "longformer": {"attention": "longformer", "attention_window": 4, "attention_tokens": 2},
    "flash": {"attention": "flash", "n_kv_head": 3},
    "experts": {"moe_num_experts": 4, "moe_top_k": 2, "activation_function": "silu"},
    "swiglu experts": {"moe_num_experts": 3, "mlp": "swiglu", "n_inner": 8, "norm": "rmsnorm"},
    "post": {"norm_position": "post", "mlp": "swiglu"},
}  # fmt: skip
every_variant = pytest.mark.parametrize("name", VARIANTS)


def model_of(name, seed=3):
    """In float64, with weights large enough that all parts count."""
    model = create_gpt2_model(**SIZES, **VARIANTS[name]).double().eval()
    draws = np.random.default_rng(seed)
    for p in model.parameters():
        p.data.copy_(tg.tensor(draws.normal(float(p.ndim == 1), 0.3, p.shape)))
    return model


def ids(B=3, T=13, seed=5):
    return tg.tensor(np.random.default_rng(seed).integers(0, 31, (B, T)))


def logits(model, x, **more):
    with tg.no_grad():
        return model(x, **more).logits.numpy()


@every_variant
def test_a_cache_equals_one_pass(name):
    model, x = model_of(name), ids()
    whole, parts, cache = logits(model, x), [], None
    for a, b in ((0, 4), (4, 5), (5, 6), (6, 13)):
        with tg.no_grad():
            out = model(x[:, a:b], past_key_values=cache, use_cache=True)
        cache = out.cache
        parts.append(out.logits.numpy())
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=1e-9, atol=1e-11)
    heads = VARIANTS[name].get("n_kv_head", 6)
    assert cache[0].keys.shape[1] == heads


@every_variant
def test_padding_is_not_there(name):
    """A row among longer ones equals the row alone, whichever side is padded."""
    model, x = model_of(name), ids()
    for side in ("right",) if name in ("global", "longformer") else ("left", "right"):
        mask = np.ones((3, 13), np.int64)
        real = slice(4, 13) if side == "left" else slice(0, 9)
        mask[1] = 0
        mask[1, real] = 1
        got = logits(model, x, attention_mask=mask)[1, real]
        alone = logits(model, x[1:2, real])[0]
        np.testing.assert_allclose(got, alone, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["global", "longformer"])
def test_global_tokens_cannot_be_padding(name):
    mask = np.ones((3, 13), np.int64)
    mask[1, :4] = 0
    with pytest.raises(ValueError, match="begins with padding; pad on the right"):
        model_of(name)(ids(), attention_mask=mask)


@every_variant
def test_saved_and_loaded_with_equal_logits(name, tmp_path):
    model = model_of(name).float()
    model.save_pretrained(tmp_path)
    again = GPT2LMHeadModel.from_pretrained(tmp_path)
    assert again.config == model.config and type(again.config) is type(model.config)
    assert [type(m) for m in again.modules()] == [type(m) for m in model.modules()]
    np.testing.assert_array_equal(logits(again, ids()), logits(model, ids()))
    told = json.loads((tmp_path / "config.json").read_text())
    assert told["model_type"] == "tensorgrad-gpt2"
    with pytest.raises((ValueError, KeyError)):  # which transformers cannot misunderstand
        AutoModelForCausalLM.from_pretrained(tmp_path)


@every_variant
def test_every_weight_learns(name):
    tg.manual_seed(0)
    model, x = create_gpt2_model(**SIZES, **VARIANTS[name]), ids()
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = model(x, labels=x).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        assert all(np.abs(p.grad.numpy()).sum() > 0 for p in model.parameters())
        optimizer.step()
    extra = model.config.extra_loss(model)
    known = np.log(31) + (0 if extra is None else 0.01)
    assert abs(losses[0] - known) < 0.1 and losses[-1] < losses[0] - 0.3


def test_one_expert_is_the_dense_mlp():
    dense = create_gpt2_model(**SIZES).double().eval()
    moe = create_gpt2_model(**SIZES, moe_num_experts=1).double().eval()
    state = {k.replace(".mlp.", ".mlp.experts.0."): v for k, v in dense.state_dict().items()}
    routers = {k: v for k, v in moe.state_dict().items() if ".router." in k}
    moe.load_state_dict(state | routers)
    np.testing.assert_allclose(logits(moe, ids()), logits(dense, ids()), rtol=1e-10, atol=1e-12)


def test_the_balance_loss_counts_in_training_only():
    """moe_balance times E sum f p of the mixtures' mean, in the loss that training sees."""
    model, x = create_gpt2_model(**SIZES, moe_num_experts=4, moe_balance=0.5), ids()
    trained = model(x, labels=x).loss.item()
    balance = np.mean([b.mlp.balance_loss.item() for b in model.transformer.h])
    evaluated = model.eval()(x, labels=x).loss.item()
    np.testing.assert_allclose(trained - evaluated, 0.5 * balance, rtol=1e-4)
    assert balance > 0.9 and model.transformer.h[0].mlp.load.wanted.sum() == 2 * 3 * 13


@every_variant
def test_first_weights(name):
    """B0.17: whatever the parts, 0.02, less for what adds to x; each norm 1 and each bias 0."""
    tg.manual_seed(0)
    for key, p in create_gpt2_model(**SIZES, **VARIANTS[name]).named_parameters():
        values = p.detach().numpy()
        if p.ndim == 1:
            assert (values == (1 if key.endswith("weight") else 0)).all(), key
        else:
            std = 0.02 / 2 if key.endswith(("c_proj.weight", "down_proj.weight")) else 0.02
            assert abs(values.std() / std - 1) < 0.2, key


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["plain", "llama", "experts"])
def test_int8_weights_saved_and_loaded(name, tied, tmp_path):
    kind = {**VARIANTS.get(name, {}), "tie_word_embeddings": tied}
    tg.manual_seed(4)
    model = create_gpt2_model(**SIZES, **kind).eval()
    whole = logits(model, ids())
    wide = budget(model).weight_bytes
    quantize(model)
    got = logits(model, ids())
    assert 0 < np.abs(got - whole).max() < 0.02
    model.save_pretrained(tmp_path)
    again = GPT2LMHeadModel.from_pretrained(tmp_path)
    assert isinstance(again.lm_head, type(model.lm_head)) and again.config == model.config
    np.testing.assert_array_equal(logits(again, ids()), got)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float32"
    small = budget(again)
    assert small.weight_bytes < 0.5 * wide and small.flops == budget(again.config).flops
    with tg.no_grad():
        assert again(ids(), use_cache=True).cache[0].keys.dtype == tg.float32


@pytest.mark.parametrize("kind", ["learning", "merged", "int8"])
def test_adapters_saved_and_loaded(kind, tmp_path):
    """LoRA: ranks of their own, frozen weights below, on int8 weights as well."""
    model = create_gpt2_model(**SIZES)
    if kind == "int8":
        quantize(model)
    lora.inject(model, ["c_attn"], rank=2, alpha=5, dropout=0.25)
    for _, adapter in lora.adapters(model):
        adapter.lora_B.data.normal_()
    if kind == "merged":
        lora.merge(model)
    model.eval().save_pretrained(tmp_path)
    again = GPT2LMHeadModel.from_pretrained(tmp_path)
    np.testing.assert_array_equal(logits(again, ids()), logits(model, ids()))
    adapter = again.transformer.h[1].attn.c_attn
    assert (adapter.rank, adapter.scaling, adapter.dropout.p) == (2, 2.5, 0.25)
    assert adapter.merged is (kind == "merged")
    learn = [[n for n, p in m.named_parameters() if p.requires_grad] for m in (model, again)]
    assert learn[0] == learn[1] and len(learn[0]) == 4
    assert again.num_parameters(only_trainable=True) == 2 * 2 * (24 + 72)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"rank": 2', '"rank": 0'))
    with pytest.raises(CheckpointError, match=r"config\.json' is damaged, or was changed since"):
        GPT2LMHeadModel.from_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    save_file(load_file(weights), weights)  # which forgets the checksum of config.json
    with pytest.raises(CheckpointError, match=r"config\.json.*lora: .*rank must be at least 1"):
        GPT2LMHeadModel.from_pretrained(tmp_path)


def carried(name, **other):
    """Logits of a variant, and of another with the same weights."""
    model = model_of(name)
    settings = {k: v for k, v in (SIZES | VARIANTS[name] | other).items() if v is not None}
    twin = create_gpt2_model(**settings).double().eval()
    twin.load_state_dict(model.state_dict())
    return logits(model, ids()), logits(twin, ids())


def test_parts_that_are_the_same_in_other_words():
    """Blocks compute what the whole matrix does; a window over all is no window."""
    np.testing.assert_allclose(*carried("flash", attention="full"), rtol=1e-9, atol=1e-11)
    wide = carried("sparse", use_sparse_attention=None, attention="local", attention_window=13)
    assert not np.allclose(*wide)
    full = carried("sparse", use_sparse_attention=None, attention_window=None)
    np.testing.assert_allclose(wide[1], full[1], rtol=1e-9, atol=1e-11)
    one = carried("strided", attention="strided", attention_stride=1)
    full = carried("strided", attention=None)
    np.testing.assert_allclose(one[1], full[1], rtol=1e-9, atol=1e-11)


def test_key_heads_that_are_alike_are_one():
    """Multi-query attention is multi-head attention whose keys and values are repeated."""
    few = create_gpt2_model(**SIZES, n_kv_head=2).double().eval()
    many = create_gpt2_model(**SIZES).double().eval()
    state = dict(few.state_dict())
    for key, value in state.items():
        if "c_attn" in key:
            q, k, v = value.split((24, 8, 8), dim=0)
            wide = [
                x.reshape(2, 1, 4, -1).expand(2, 3, 4, -1).reshape(24, *x.shape[1:]) for x in (k, v)
            ]
            state[key] = tg.cat([q, *wide])
    many.load_state_dict(state)
    np.testing.assert_allclose(logits(few, ids()), logits(many, ids()), rtol=1e-9, atol=1e-11)


def test_attention_maps_show_who_sees_whom():
    with tg.no_grad():
        maps = model_of("sparse")(ids(), output_attentions=True).attentions
    i, j = np.arange(13)[:, None], np.arange(13)
    for p in maps:
        assert p.shape == (3, 6, 13, 13)
        assert ((p.numpy() > 0) == ((j <= i) & (i - j < 5))).all()
        np.testing.assert_allclose(p.sum(-1), 1)


def test_what_is_asked_for_is_what_is_built():
    block = model_of("llama").transformer.h[0]
    assert isinstance(block.ln_1, nn.RMSNorm) and hasattr(block.mlp, "gate_proj")
    assert isinstance(block.attn.positions, nn.RoPE) and block.attn.positions.base == 500
    assert model_of("rope").transformer.wpe is None
    assert isinstance(model_of("sparse").transformer.h[1].attn.pattern, nn.Local)
    assert type(model_of("sinusoidal").transformer.h[0].attn) is CausalSelfAttention
    assert model_of("global").config.attention_tokens == 1


def test_parts_that_are_not_wanted_make_a_plain_gpt2():
    model = create_gpt2_model(**SIZES, use_sparse_attention=False, norm="layernorm", mlp="mlp")
    assert type(model.config) is GPT2Config
    assert type(gpt2_config(n_kv_head=3)) is VariantConfig


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"use_sparse_atention": True}, "no setting 'use_sparse_atention'"),
        ({"use_sparse_attention": "locl"}, "no attention 'locl'; did you mean 'local'"),
        ({"use_sparse_attention": True, "attention": "local"}, "say the same"),
        ({"attention_window": 3}, "attention_window does nothing here; it is for attention='loc"),
        ({"attention": "strided", "attention_tokens": 3}, "attention_tokens does nothing here"),
        ({"positions": "alibi", "rope_base": 3.0}, "rope_base does nothing here"),
        ({"positions": "roep"}, "no positions 'roep'; did you mean 'rope'"),
        ({"norm": "batch"}, "no norm 'batch'"),
        ({"mlp": "swiglu", "activation_function": "relu"}, "does nothing with mlp='swiglu'"),
        ({"n_kv_head": 5, "n_head": 6}, "n_kv_head must divide n_head"),
        ({"n_kv_head": 2, "scale_attn_weights": False}, "scale_attn_weights is for GPT-2's own"),
        ({"attention": "local", "attn_pdrop": 0.1, "dropout": 0.1}, "give attn_pdrop=0"),
        ({"moe_top_k": 2}, "moe_top_k does nothing here; it is for moe_num_experts"),
        ({"moe_num_experts": 0, "moe_balance": 0.1}, "moe_balance does nothing here"),
        ({"moe_num_experts": 2, "moe_top_k": 3}, "top_k must lie between 1 and .* 2; it is 3"),
        ({"moe_num_experts": -1}, "moe_num_experts must be at least 1"),
        ({"distributed": True}, "no setting 'distributed'"),
        ({"quantization": "int8"}, "no setting 'quantization'"),
    ],
)
def test_keys_that_do_nothing_raise_b3_5(given, message):
    with pytest.raises(ValueError, match=message):
        create_gpt2_model(**{**SIZES, **given})


def test_dropout_means_what_can_be_dropped():
    config = gpt2_config(**SIZES | {"dropout": 0.2}, attention="local")
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.2, 0.2, 0.0)
    config = gpt2_config(**SIZES | {"dropout": 0.2}, n_kv_head=2)
    attention = GPT2LMHeadModel(config).transformer.h[0].attn
    assert attention.p == attention.resid_dropout.p == 0.2


def test_the_factories_of_the_four_sizes_b3_3_b3_4():
    """F3.4: 50,304 rows are 50,257 tokens, padded: counted, saved and drawn without the rest."""
    makers = [create_gpt2_small, create_gpt2_medium, create_gpt2_large, create_gpt2_xl]
    with undrawn():
        models = [make() for make in makers]
    assert [m.num_parameters() for m in models] == [
        124_439_808, 354_823_168, 774_030_080, 1_557_611_200,
    ]  # fmt: skip
    assert {(m.config.vocab_size, m.lm_head.multiple) for m in models} == {(50257, 128)}
    small = create_gpt2_small(vocab_size=11, num_layers=1, n_embed=12, context_size=7)
    assert small.transformer.wte.weight.shape == (11, 12) and small.config.n_positions == 7
    assert (
        create_gpt2_medium(vocab_size=11, n_layer=1, n_embd=16, n_positions=5).config.n_head == 16
    )


def test_seed_3s_example():
    """F3.3."""
    model = create_gpt2_model(
        vocab_size=1000, context_size=512, n_layer=6, n_head=6, n_embed=384, dropout=0.1, bias=True
    )
    result = model(tg.zeros(1, 5, dtype=tg.int64), use_cache=True, return_cache=True)
    assert result["logits"].shape == (1, 5, 1000) and result["cache"].length == 5


def test_a_mistyped_key_in_our_config_json(tmp_path):
    model_of("rope").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"n_kv_head"', '"n_kv_heads"'))
    weights = tmp_path / "model.safetensors"
    save_file(load_file(weights), weights)  # which forgets the checksum of config.json
    with pytest.raises(CheckpointError, match="no setting 'n_kv_heads'; did you mean 'n_kv_head'"):
        GPT2LMHeadModel.from_pretrained(tmp_path)


def test_what_variants_cost():
    """Fewer key heads shrink the cache, a window the work."""
    plain, few = (budget(gpt2_config(**SIZES, n_kv_head=n)) for n in (6, 2))
    assert few.cache_bytes * 3 == plain.cache_bytes
    assert plain.parameters - few.parameters == 2 * (2 * 16 * 24 + 2 * 16)
    long = SIZES | {"n_positions": 2048}
    full, near = (
        budget(gpt2_config(**long, **kind)) for kind in ({}, {"use_sparse_attention": True})
    )
    one, of_four = (
        budget(gpt2_config(**SIZES, **kind))
        for kind in ({}, {"moe_num_experts": 4, "moe_top_k": 1})
    )
    assert of_four.flops - one.flops == 2 * 2 * 4 * 24  # the routers'
    assert of_four.parameters > 2 * one.parameters
    work = full.flops - near.flops
    assert work > 0.7 * 2 * 4 * 2048 * 24  # of two layers' attention over 2,048 keys
