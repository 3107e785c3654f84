"""GPT-2 beside transformers': logits, loss, gradients, ten steps of AdamW, padding and caches.

The ids in names and docstrings are the seeds' defects, which are right here."""

import math
import re
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

import tensorgrad as tg
from tensorgrad import optim
from tensorgrad.models import gpt2
from tensorgrad.models.budget import budget
from tensorgrad.models.gpt2 import (
    ACTIVATIONS,
    SIZES,
    Block,
    CausalSelfAttention,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
)
from tensorgrad.models.layers import undrawn
from tensorgrad.models.masks import causal_attention_mask
from tensorgrad.nn.cache import KVCache
from tests.models.torch_gpt2 import (
    CONFIGS,
    NONE,
    PADDED,
    PLAIN,
    batch,
    their_loss,
    turned,
    twins,
)

TOLERANCE = {"float32": {"rtol": 1e-4, "atol": 1e-5}, "float64": {"rtol": 1e-9, "atol": 1e-12}}
PADDING = [None, "left", "right"]


def both(config, dtype, padding, seed=5):
    """Ours and theirs on one batch: logits where tokens are, and losses."""
    ours, theirs = twins(config, dtype)
    return (ours, theirs, *run(ours, theirs, padding, seed))


def run(ours, theirs, padding, seed=5):
    ids, mask, positions, labels = batch(ours.config, padding, seed=seed)
    out = ours(tg.tensor(ids), attention_mask=tg.tensor(mask), labels=tg.tensor(labels))
    logits = theirs(
        torch.from_numpy(ids),
        attention_mask=torch.from_numpy(mask),
        position_ids=torch.from_numpy(positions),
    ).logits
    return out, logits, their_loss(logits, torch.from_numpy(labels)), mask.astype(bool)


@pytest.mark.parametrize("padding", PADDING)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_loss_and_every_gradient_are_transformers(name, dtype, padding):
    """F0.3, F3.1, B3.7, B4.7: numbers; nothing scales the attention's branch in forward."""
    near = TOLERANCE[dtype]
    ours, theirs, out, logits, loss, real = both(CONFIGS[name], dtype, padding)
    found = out.logits.detach().numpy()
    assert found.dtype == dtype and found.shape == logits.shape
    np.testing.assert_allclose(found[real], logits.detach().numpy()[real], **near)
    np.testing.assert_allclose(out.loss.item(), loss.item(), rtol=near["rtol"])
    out.loss.backward()
    loss.backward()
    gradients = dict(ours.named_parameters())
    expected = dict(theirs.named_parameters())
    assert list(gradients) == list(expected)
    for key, p in expected.items():
        got = turned(key, gradients[key].grad.numpy())
        np.testing.assert_allclose(got, p.grad.numpy(), **near, err_msg=key)


def test_the_loss_is_the_one_that_transformers_returns():
    """F0.6."""
    ours, theirs = twins(PLAIN, "float32")
    ids, mask, positions, labels = batch(PLAIN, "left")
    theirs.config.loss_type = "ForCausalLM"
    out = theirs(
        torch.from_numpy(ids), attention_mask=torch.from_numpy(mask),
        position_ids=torch.from_numpy(positions), labels=torch.from_numpy(labels),
    )  # fmt: skip
    got = ours(tg.tensor(ids), attention_mask=mask, position_ids=tg.tensor(positions),
               labels=tg.tensor(labels))  # fmt: skip
    np.testing.assert_allclose(got["loss"].item(), out["loss"].item(), rtol=1e-5)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CONFIGS)
def test_ten_steps_of_adamw(name, dtype):
    ours, theirs = twins(CONFIGS[name], dtype)
    options = {"lr": 3e-3, "weight_decay": 0.1}
    optimizer = optim.AdamW(ours.parameters(), **options)
    rival = torch.optim.AdamW(theirs.parameters(), **options)
    for step in range(10):
        out, _, loss, _ = run(ours, theirs, PADDING[step % 3], seed=step)
        np.testing.assert_allclose(out.loss.item(), loss.item(), rtol=TOLERANCE[dtype]["rtol"])
        optimizer.zero_grad()
        rival.zero_grad()
        out.loss.backward()
        loss.backward()
        optimizer.step()
        rival.step()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_activation_that_the_config_names(name):
    """B0.18, B4.8, B1.6: gelu_new is the tanh form, and the default; the name is honoured."""
    config = GPT2Config(**PLAIN.to_dict() | {"activation_function": name, "n_layer": 1})
    _, _, out, logits, _, _ = both(config, "float64", None)
    np.testing.assert_allclose(out.logits.detach(), logits.detach(), rtol=1e-9, atol=1e-12)
    assert GPT2Config().activation_function == "gelu_new"


# ---- cached


def cached(model, ids, mask, cuts):
    """The logits of a forward pass in pieces, each over the cache of those before."""
    logits, cache = [], None
    with tg.no_grad():
        for a, b in zip([0, *cuts], [*cuts, ids.shape[1]]):
            out = model(
                tg.tensor(ids[:, a:b]), attention_mask=None if mask is None else mask[:, :b],
                past_key_values=cache, use_cache=True,
            )  # fmt: skip
            cache = out.past_key_values
            assert cache.length == b
            logits.append(out.logits.numpy())
    return np.concatenate(logits, 1)


@settings(deadline=None, max_examples=30)
@given(
    name=st.sampled_from(sorted(CONFIGS)), B=st.integers(1, 3), T=st.integers(1, 13),
    padding=st.sampled_from(PADDING), seed=st.integers(0, 99), data=st.data(),
)  # fmt: skip
def test_a_cache_in_pieces_equals_one_pass_b0_1_b0_3(name, B, T, padding, seed, data):
    """Masks are aligned at the lower right, positions go on after the past: in float64, exactly."""
    model = MODELS.setdefault(name, twins(CONFIGS[name])[0])
    ids, mask, _, _ = batch(model.config, padding, B, 13, seed)
    ids, mask = ids[:, 13 - T :], mask[:, 13 - T :]
    cuts = sorted(data.draw(st.sets(st.integers(1, T - 1)))) if T > 1 else []
    whole = model(tg.tensor(ids), attention_mask=mask).logits.detach().numpy()
    got = cached(model, ids, mask, cuts)
    real = mask.astype(bool)
    np.testing.assert_allclose(got[real], whole[real], rtol=1e-10, atol=1e-12)


MODELS = {}


def test_token_by_token_as_transformers_with_its_cache():
    """B0.3 with left padding, too: position_ids follow from the mask."""
    ours, theirs = twins()
    ids, mask, positions, _ = batch(PLAIN, "left")
    got = cached(ours, ids, mask, range(4, 11))
    past, expected = DynamicCache(), []
    word = "cache" if "cache" in signature(theirs.forward).parameters else "past_key_values"
    with torch.no_grad():
        for a, b in [(0, 4), *((i, i + 1) for i in range(4, 11))]:
            out = theirs(
                torch.from_numpy(ids[:, a:b]), attention_mask=torch.from_numpy(mask[:, :b]),
                position_ids=torch.from_numpy(positions[:, a:b]), use_cache=True,
                **{word: past},  # transformers renamed it in 5.24
            )  # fmt: skip
            expected.append(out.logits.numpy())
    real = mask.astype(bool)
    expected = np.concatenate(expected, 1)
    np.testing.assert_allclose(got[real], expected[real], rtol=1e-9, atol=1e-12)


def test_cache_and_past_key_values_are_one_object_b3_6():
    """F3.2: use_cache and return_cache say the same; positions go on from the cache's length."""
    model, (ids, *_) = twins()[0], batch(PLAIN)
    first = model(tg.tensor(ids[:, :4]), use_cache=True, return_cache=True)
    assert first["cache"] is first.past_key_values is first.cache and first.cache.length == 4
    with tg.no_grad():
        again = model(tg.tensor(ids[:, 4:]), cache=first["cache"])
    assert again.cache is first.cache and again.cache.length == 11
    whole = model(tg.tensor(ids), use_cache=False, return_cache=False)
    np.testing.assert_allclose(again.logits, whole.logits[:, 4:].detach(), rtol=1e-10, atol=1e-12)
    assert whole.past_key_values is None and "cache" not in whole
    with pytest.raises(KeyError, match="no 'cache' was asked for; there are logits"):
        whole["cache"]


def test_gradients_pass_a_first_cached_forward():
    ours, (ids, _, _, labels) = twins()[0], batch(PLAIN)
    x, y = tg.tensor(ids), tg.tensor(labels)
    gradients = []
    for use_cache in (False, True):
        ours.zero_grad()
        out = ours(x, labels=y, use_cache=use_cache)
        out.loss.backward()
        gradients.append([p.grad.numpy() for p in ours.parameters()])
    for a, b in zip(*gradients):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(RuntimeError, match="no_grad"):
        ours(x[:, :1], cache=out.cache)


def test_past_the_window_is_an_error_b0_4():
    model = twins()[0]
    with pytest.raises(
        ValueError, match="0 tokens in the cache and 18 new ones exceed n_positions 17"
    ):
        model(tg.zeros(1, 18, dtype=tg.int64))
    with tg.no_grad(), pytest.raises(ValueError, match="11 tokens in the cache and 7 new ones"):
        cache = model(tg.zeros(1, 11, dtype=tg.int64), use_cache=True).cache
        model(tg.zeros(1, 7, dtype=tg.int64), cache=cache)


# ---- masks


def test_the_causal_mask_b0_1():
    """F0.2: (1, 1, T, past + T), aligned at the lower right as OpenAI's attention_mask."""
    for T, past in ((1, 0), (4, 0), (3, 5)):
        i, j = np.arange(T)[:, None], np.arange(past + T)
        expected = i >= j - (past + T) + T
        mask = causal_attention_mask(T, "cpu", past)
        assert mask.dtype == tg.bool
        np.testing.assert_array_equal(mask.numpy(), expected[None, None])


def test_what_is_padded_cannot_leak_b0_8():
    """With scores near 1e6, a mask of -10000 would be outbid; no token of padding moves a bit."""
    model = twins()[0]
    for block in model.transformer.h:
        block.attn.c_attn.weight.data.mul_(1000)
    for padding in ("left", "right"):
        ids, mask, _, _ = batch(PLAIN, padding)
        other = np.where(mask, ids, (ids + 7) % PLAIN.vocab_size)
        assert (other != ids).any()
        a, b = (
            model(tg.tensor(x), attention_mask=mask).logits.detach().numpy() for x in (ids, other)
        )
        real = mask.astype(bool)
        assert np.isfinite(a).all()
        np.testing.assert_array_equal(a[real], b[real])


def test_the_past_does_not_see_the_future():
    model, (ids, *_) = twins()[0], batch(PLAIN)
    other = ids.copy()
    other[:, 6:] = (other[:, 6:] + 1) % PLAIN.vocab_size
    a, b = (model(tg.tensor(x)).logits.detach().numpy() for x in (ids, other))
    np.testing.assert_array_equal(a[:, :6], b[:, :6])
    assert not np.allclose(a[:, 6:], b[:, 6:])


def test_rows_padded_on_the_left_equal_the_rows_alone_b0_9():
    """Positions count from a row's first token; rows of nothing but padding give no NaN."""
    model = twins()[0]
    ids, mask, _, _ = batch(PLAIN, "left")
    got = model(tg.tensor(ids), attention_mask=tg.tensor(mask)).logits.detach().numpy()
    for row, length in enumerate(mask.sum(1)):
        alone = model(tg.tensor(ids[row : row + 1, -length:])).logits.detach().numpy()
        np.testing.assert_allclose(got[row, -length:], alone[0], rtol=1e-10, atol=1e-12)
    nothing = model(tg.tensor(ids), attention_mask=np.zeros_like(mask)).logits
    assert np.isfinite(nothing.detach().numpy()).all()


def test_a_mask_of_another_width_is_refused():
    model, (ids, mask, _, _) = twins()[0], batch(PLAIN)
    with pytest.raises(ValueError, match=r"attention_mask must be \(3, 11\).*shape is \(3, 10\)"):
        model(tg.tensor(ids), attention_mask=mask[:, 1:])


def test_no_mask_is_stored_b0_21():
    """Nothing in state_dict but weights; the names are transformers', with its prefix."""
    ours, theirs = twins()
    assert list(ours.buffers()) == []
    assert set(ours.state_dict()) == set(theirs.state_dict())


# ---- looking inside


@pytest.mark.parametrize("padding", [None, "left"])
def test_hidden_states_and_attentions_b0_23(padding):
    """F0.5: what transformers shows of the inside; each row of an attention map sums to 1."""
    ours, theirs = twins()
    theirs.set_attn_implementation("eager")
    ids, mask, positions, _ = batch(PLAIN, padding)
    out = ours(
        tg.tensor(ids), attention_mask=mask, output_hidden_states=True, output_attentions=True
    )
    expected = theirs(
        torch.from_numpy(ids), attention_mask=torch.from_numpy(mask),
        position_ids=torch.from_numpy(positions), output_hidden_states=True, output_attentions=True,
    )  # fmt: skip
    real = mask.astype(bool)
    assert len(out.hidden_states) == 4 and len(out["attentions"]) == 3
    for a, b in zip(out.hidden_states, expected.hidden_states):
        np.testing.assert_allclose(
            a.detach().numpy()[real], b.detach()[real], rtol=1e-9, atol=1e-12
        )
    for a, b in zip(out.attentions, expected.attentions):
        a, b = (x.detach().numpy().transpose(0, 2, 1, 3)[real] for x in (a, b))
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(a.sum(-1), 1)


def test_answers_by_attribute_name_and_number():
    ours, (ids, _, _, labels) = twins()[0], batch(PLAIN)
    out = ours(tg.tensor(ids), labels=tg.tensor(labels))
    assert out["logits"] is out.logits is out[1] and out["loss"] is out.loss is out[0]
    assert list(out) == ["loss", "logits"] and len(out) == 2 and "loss" in out
    hidden = ours.transformer(tg.tensor(ids))
    assert hidden.keys() == ["last_hidden_state"] and hidden[0].shape == (3, 11, 20)


def test_targets_as_in_training_loops_b4_6():
    """F4.2: forward(idx, targets, return_logits) -> (logits, loss); forward(idx) for inference."""
    ours, (ids, *_) = twins()[0], batch(PLAIN)
    x, y = tg.tensor(ids[:, :-1]), tg.tensor(ids[:, 1:])
    logits, loss = ours(x, y)
    assert logits.shape == (3, 10, 53)
    np.testing.assert_allclose(loss.item(), ours(tg.tensor(ids), labels=tg.tensor(ids)).loss.item())
    nothing, again = ours(x, y, return_logits=False)
    assert nothing is None and again.item() == loss.item()
    assert ours(x).loss is None
    with pytest.raises(ValueError, match="not both"):
        ours(x, y, labels=y)
    with pytest.raises(TypeError, match="past_key_values by name"):
        ours(x, KVCache(3, 3, 5, 17, 4))
    with pytest.raises(TypeError, match="past_key_values is a KVCache, not a tuple"):
        ours(x, past_key_values=((1, 2),))


def test_only_the_last_logits():
    ours, (ids, *_) = twins()[0], batch(PLAIN)
    whole = ours(tg.tensor(ids)).logits.detach()
    got = ours(tg.tensor(ids), logits_to_keep=2).logits
    np.testing.assert_allclose(got.detach(), whole[:, -2:], rtol=1e-12)
    with pytest.raises(ValueError, match="a loss needs all logits"):
        ours(tg.tensor(ids), labels=tg.tensor(ids), logits_to_keep=1)


# ---- weights as they are born


def test_counts_of_the_four_sizes_b3_3():
    """Exact, and without memory for the weights: nothing is drawn."""
    counts = {}
    for name in SIZES:
        with undrawn():
            counts[name] = GPT2LMHeadModel.from_config(name).num_parameters()
    assert counts == {
        "gpt2": 124_439_808,
        "gpt2-medium": 354_823_168,
        "gpt2-large": 774_030_080,
        "gpt2-xl": 1_557_611_200,
    }


def test_figures_in_comments_are_checked_b4_12():
    """Beside each of SIZES stands its number of parameters."""
    lines = Path(gpt2.__file__).read_text(encoding="utf-8").splitlines()
    told = {}
    for line in lines:
        if found := re.match(r' +"(gpt2[a-z-]*)": \{.*# ([\d,]+)', line):
            told[found[1]] = int(found[2].replace(",", ""))
    assert told == {name: budget(name).parameters for name in SIZES}


def test_each_weight_is_drawn_once_and_tied_once_b0_16():
    """B1.5, B4.8: from one seed, the first draw is the table's, the next the positions'."""
    config = GPT2Config(vocab_size=101, n_positions=23, n_embd=24, n_layer=2, n_head=3)
    tg.manual_seed(7)
    model = GPT2LMHeadModel(config)
    after = tg.rand(3).numpy()
    tg.manual_seed(7)
    for name, p in model.named_parameters():
        if p.ndim == 2:
            std = 0.02 / math.sqrt(4) if name.endswith("c_proj.weight") else 0.02
            expected = tg.empty(*p.shape).normal_(0, std)
            np.testing.assert_array_equal(p.detach().numpy(), expected.numpy(), err_msg=name)
    np.testing.assert_array_equal(after, tg.rand(3).numpy())
    assert model.lm_head.weight is model.transformer.wte.weight
    names = [name for name, _ in model.named_parameters()]
    assert "lm_head.weight" not in names and "lm_head.weight" in model.state_dict()


def test_first_weights_b0_17_b4_7():
    """0.02, and 0.02 / sqrt(2 n_layer) for what adds to x, of attention and MLP; biases 0."""
    config = GPT2Config(vocab_size=499, n_positions=97, n_embd=96, n_layer=8, n_head=6)
    tg.manual_seed(1)
    for name, p in GPT2LMHeadModel(config).named_parameters():
        values = p.detach().numpy()
        if name.endswith("bias"):
            assert not values.any()
        elif "ln_" in name:
            assert (values == 1).all()
        else:
            std = 0.02 / 4 if name.endswith("c_proj.weight") else 0.02
            assert abs(values.std() / std - 1) < 0.03, name
            assert abs(values.mean()) < 0.02 * std * 3


def test_an_untrained_model_knows_nothing():
    """ln V, and half the variance of the logits, which share the table's weights."""
    tg.manual_seed(2)
    config = GPT2Config(vocab_size=1009, n_positions=31, n_embd=64, n_layer=2, n_head=4)
    model = GPT2LMHeadModel(config).eval()
    ids = tg.tensor(np.random.default_rng(0).integers(0, 1009, (8, 31)))
    expected = math.log(1009) + 64 * 0.02**2 / 2
    assert abs(model(ids, labels=ids).loss.item() - expected) < 0.02


def test_dropout_in_training_only():
    config = GPT2Config(vocab_size=11, n_positions=7, n_embd=8, n_layer=1, n_head=2, dropout=0.5)
    assert config.resid_pdrop == config.embd_pdrop == config.attn_pdrop == 0.5
    model = GPT2LMHeadModel(config)
    ids = tg.zeros(1, 5, dtype=tg.int64)
    a, b = (model(ids).logits.detach().numpy() for _ in range(2))
    assert (a != b).any()
    model.eval()
    a, b = (model(ids).logits.detach().numpy() for _ in range(2))
    np.testing.assert_array_equal(a, b)


# ---- the padded vocabulary


def test_the_padding_of_the_vocabulary_b3_4():
    """Rows of zeros in memory that nobody counts, saves, draws or trains; logits stay 43 wide."""
    ours = twins(PADDED)[0]
    weight = ours.transformer.wte.weight
    logits = ours(tg.zeros(1, 2, dtype=tg.int64)).logits
    assert logits.shape == (1, 2, 43)
    memory = weight.array.base
    assert memory.shape == (48, 12) and not memory[43:].any() and weight.shape == (43, 12)
    assert ours.lm_head.padded(tg.zeros(1, 12, dtype=tg.float64)).shape == (1, 48)
    assert ours.state_dict()["lm_head.weight"].shape == (43, 12)
    plain = GPT2LMHeadModel(GPT2Config(**PADDED.to_dict() | {"vocab_multiple": 1})).double().eval()
    plain.load_state_dict(ours.state_dict())
    assert plain.num_parameters() == ours.num_parameters()
    ids, _, _, labels = batch(PADDED)
    optimizers = [optim.AdamW(m.parameters(), lr=0.01, weight_decay=0.1) for m in (ours, plain)]
    for _ in range(3):
        outs = [m(tg.tensor(ids), labels=tg.tensor(labels)) for m in (ours, plain)]
        assert outs[0].logits.shape == (3, 11, 43)
        np.testing.assert_allclose(outs[0].logits.detach(), outs[1].logits.detach(), rtol=1e-11)
        for out, optimizer in zip(outs, optimizers):
            optimizer.zero_grad()
            out.loss.backward()
            optimizer.step()
    assert weight.grad.shape == (43, 12)
    assert weight.array.base is memory and not memory[43:].any()
    chances = ours(tg.tensor(ids)).logits.softmax(-1)
    np.testing.assert_allclose(chances.sum(-1).detach(), 1)


def test_a_target_in_the_padding_is_out_of_range_b3_4():
    model, x = GPT2LMHeadModel(PADDED), tg.zeros(1, 2, dtype=tg.int64)
    with pytest.raises(IndexError, match="target 43 is out of range: the vocabulary has 43 tokens"):
        model(x, tg.tensor([[1, 43]]))


def test_the_padding_survives_a_change_of_dtype():
    model = GPT2LMHeadModel(PADDED)
    for dtype in ("float64", "float32"):
        model.to(dtype)(tg.zeros(1, 2, dtype=tg.int64))
        memory = model.transformer.wte.weight.array.base
        assert memory.shape == (48, 12) and memory.dtype == dtype and not memory[43:].any()


# ---- norms before and after


class TorchPostNorm(torch.nn.Module):
    """PyTorch's own encoder layer, norms after the sums, seen causally."""

    def __init__(self, config):
        super().__init__()
        self.layer = torch.nn.TransformerEncoderLayer(
            config.n_embd, config.n_head, 4 * config.n_embd, 0.0, "relu",
            config.layer_norm_epsilon, batch_first=True, norm_first=False, dtype=torch.float64,
        )  # fmt: skip

    def forward(self, x):
        mask = torch.nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
        return self.layer(x, src_mask=mask, is_causal=True)


@pytest.mark.parametrize("position", ["pre", "post"])
def test_norms_before_or_after_the_layers_b3_1(position):
    """Pre-LN is GPT-2's and the default; post-LN is there to study.  PyTorch's encoder layer."""
    config = GPT2Config(**PLAIN.to_dict() | {
        "activation_function": "relu", "norm_position": position, "n_layer": 1,
    })  # fmt: skip
    reference = TorchPostNorm(config)
    reference.layer.norm_first = position == "pre"
    block = config.make_block(0).double()
    names = {
        "ln_1": "norm1", "ln_2": "norm2", "attn.c_attn": "self_attn.in_proj",
        "attn.c_proj": "self_attn.out_proj", "mlp.c_fc": "linear1", "mlp.c_proj": "linear2",
    }  # fmt: skip
    draws = np.random.default_rng(0)
    state = {k: draws.normal(0.5, 0.3, v.shape) for k, v in block.state_dict().items()}
    block.load_state_dict(state)
    theirs = {}
    for key, value in state.items():
        part, _, kind = key.rpartition(".")
        joint = "_" if "in_proj" in names[part] else "."
        theirs[f"{names[part]}{joint}{kind}"] = torch.from_numpy(value)
    reference.layer.load_state_dict(theirs)
    x = draws.normal(size=(2, 7, 20))
    np.testing.assert_allclose(
        block(tg.tensor(x)).detach(), reference(torch.from_numpy(x)).detach(), rtol=1e-9, atol=1e-11
    )
    assert GPT2Config().norm_position == "pre"


def test_the_last_norm_b3_2():
    """Pre-LN ends in ln_f, which post-LN needs not."""
    pre, post = (
        GPT2Model(GPT2Config(**PLAIN.to_dict() | {"norm_position": p})) for p in ("pre", "post")
    )
    assert "ln_f.weight" in pre.state_dict() and "ln_f.weight" not in post.state_dict()
    hidden = pre(tg.zeros(1, 3, dtype=tg.int64)).last_hidden_state.detach().numpy()
    np.testing.assert_allclose(hidden.mean(-1), 0, atol=1e-6)
    np.testing.assert_allclose(hidden.std(-1), 1, atol=0.05)


def test_a_block_is_given_its_parts():
    """F0.4."""

    class Nothing(tg.nn.Module):
        def forward(self, x, **seen):
            return x * 0

    block = Block(tg.nn.Identity(), Nothing(), tg.nn.Identity(), Nothing())
    x = tg.randn(2, 3, 5)
    np.testing.assert_array_equal(block(x).numpy(), x.numpy())
    assert CausalSelfAttention(PLAIN)(tg.randn(2, 3, 20)).shape == (2, 3, 20)


# ---- settings


def test_other_names_for_the_same_settings():
    config = GPT2Config(
        vocab_size=50304, context_size=1000, num_layers=6, num_heads=6, n_embed=384, dropout=0.2
    )
    assert (config.n_positions, config.n_layer, config.n_head, config.n_embd) == (1000, 6, 6, 384)
    assert config.attn_pdrop == 0.2 and config.block_size == 1000 and config.hidden_size == 384
    for alias in ("block_size", "context_length", "n_ctx", "max_position_embeddings"):
        assert GPT2Config(**{alias: 77}).n_positions == getattr(GPT2Config(**{alias: 77}), alias)
    assert GPT2Config(embd_size=60).n_embd == 60
    assert GPT2Config(bias=False).make_block(0).attn.c_attn.bias is None
    with pytest.raises(ValueError, match="n_positions is given twice: 5 and 6"):
        GPT2Config(block_size=5, n_positions=6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_layers": 2}, "there is no setting 'n_layers'; did you mean 'n_layer'"),
        ({"droput": 0.1}, "no setting 'droput'; did you mean 'dropout'"),
        ({"use_magic": True}, "no setting 'use_magic'"),
        ({"activation_function": "gelu_nwe"}, "'gelu_nwe'; did you mean 'gelu_new'"),
        ({"norm_position": "before"}, "no norm_position 'before'"),
        ({"n_embd": 770}, "n_embd must be a multiple of n_head.*770 does not divide by 12"),
        ({"vocab_size": 50000, "eos_token_id": 50256}, "could never be produced"),
        ({"vocab_size": 0}, "vocab_size must be at least 1"),
        ({"resid_pdrop": 1.0}, "resid_pdrop must be less than 1"),
        ({"n_inner": 0}, "n_inner must be at least 1"),
        ({"pad_token_id": -1}, "pad_token_id is -1"),
    ],
)
def test_settings_that_cannot_be_b0_13_b0_25_b3_5(given, message):
    """B1.4: nothing mistyped, inert or impossible is accepted in silence."""
    with pytest.raises(ValueError, match=message):
        GPT2Config(**given)


def test_settings_of_a_wrong_type():
    for wrong in (
        {"n_layer": 2.0},
        {"tie_word_embeddings": 1},
        {"eos_token_id": "x"},
        {"n_inner": 3.5},
    ):
        with pytest.raises(TypeError, match="must be"):
            GPT2Config(**wrong)


def test_special_tokens_b0_7_b0_13():
    """50256 where the vocabulary has it; else none, rather than one that cannot be produced.

    Padding has an id of its own, none unless it is given: no token stands in for it."""
    assert GPT2Config().eos_token_id == GPT2Config().bos_token_id == 50256
    assert GPT2Config(vocab_size=65).eos_token_id is None
    assert GPT2Config(vocab_size=65, eos_token_id=[3, 4]).eos_token_id == (3, 4)
    assert GPT2Config().pad_token_id is None and GPT2Config(pad_token_id=7).pad_token_id == 7


def test_from_config():
    """F4.1."""
    small = {"n_layer": 1, "vocab_size": 29, "n_positions": 5}
    model = GPT2LMHeadModel.from_config("gpt2", **small, **NONE)
    assert model.config == GPT2Config(**small, **NONE)
    assert GPT2LMHeadModel.from_config(model.config).config is model.config
    other = GPT2LMHeadModel.from_config("gpt2", vocab_size=29, num_layers=1, n_embed=24)
    assert other.config.n_layer == 1 and other.transformer.wte.weight.shape == (29, 24)
    with pytest.raises(ValueError, match="no size 'gpt2-lage'; did you mean 'gpt2-large'"):
        GPT2LMHeadModel.from_config("gpt2-lage")


def test_ids_of_another_shape_are_refused():
    model = twins()[0]
    with pytest.raises(ValueError, match=r"input_ids must be \(B, T\), their shape is \(3,\)"):
        model(tg.zeros(3, dtype=tg.int64))
    with pytest.raises(IndexError, match="out of range"):
        model(tg.full((1, 3), 53))
