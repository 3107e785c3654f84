"""Attention maps are the weights of the attention, of any model that has one; the model stays."""

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import nn
from tensorgrad.data import CharVocab
from tensorgrad.models.attention_maps import attention_maps, recorded, visualize_attention
from tensorgrad.models.char_gpt import CharGPT, CharGPTConfig
from tensorgrad.models.mini_gpt import GPTConfig, MiniGPT

TEXT = "to be\nor not"
VOCAB = CharVocab(TEXT)
V = len(VOCAB)
SIZES = {"vocab_size": V, "block_size": 13, "n_layer": 3, "n_head": 5, "n_embd": 35}
MODELS = {
    "char GPT": lambda: CharGPT(CharGPTConfig(**SIZES, dropout=0.3)),
    "mini GPT": lambda: MiniGPT(GPTConfig(**SIZES, dropout=0.3)),
    "post-norm": lambda: MiniGPT(GPTConfig(**SIZES, post_norm=True)),
}


def model_of(name):
    tg.manual_seed(5)
    model = MODELS[name]()
    with tg.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p *= 15  # away from even attention
    return model


@pytest.fixture(params=MODELS)
def model(request):
    return model_of(request.param)


def inputs_of_attention(model, idx):
    """What each block's projection to q, k and v gives, by a hook, in evaluation mode."""
    seen = []
    for block in model.blocks:
        layer = block.attn.qkv if hasattr(block.attn, "qkv") else block.attn.c_attn
        layer.register_forward_hook(lambda module, args, out: seen.append(out.detach().numpy()))
    model.eval()
    with tg.no_grad():
        model(idx)
    return seen


def test_maps_are_the_softmax_of_scores(model):
    """B1.9: of every layer and head, compared with PyTorch's softmax of the model's own q and k."""
    ids = np.random.default_rng(1).integers(0, V, (2, 11))
    maps = attention_maps(model, tg.tensor(ids))
    assert list(maps) == [f"blocks.{i}.attn" for i in range(3)]
    projected = inputs_of_attention(model, tg.tensor(ids))
    future = torch.ones(11, 11, dtype=torch.bool).triu(1)
    for p, qkv in zip(maps.values(), projected, strict=True):
        q, k, _ = (torch.from_numpy(a).view(2, 11, 5, 7).transpose(1, 2) for a in
                   np.split(qkv.astype(np.float64), 3, axis=-1))  # fmt: skip
        scores = (q @ k.transpose(-2, -1) / math.sqrt(7)).masked_fill(future, -torch.inf)
        expected = torch.softmax(scores, -1).numpy()
        assert p.shape == (2, 5, 11, 11) and expected.std() > 0.1
        np.testing.assert_allclose(p, expected, atol=1e-5)
        np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-5)


def test_the_model_is_left_alone(model):
    model.train()
    model.blocks[1].eval()
    before = {name: t.numpy().tobytes() for name, t in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    stream, attention = tg.get_rng_state().numpy().tobytes(), F.scaled_dot_product_attention
    idx = tg.tensor(np.random.default_rng(1).integers(0, V, (2, 11)))
    attention_maps(model, idx)
    with pytest.raises(IndexError):
        attention_maps(model, idx + V)
    assert F.scaled_dot_product_attention is attention
    assert {name: t.numpy().tobytes() for name, t in model.state_dict().items()} == before
    assert [module.training for module in model.modules()] == modes
    assert not any(module._hooks for module in model.modules())
    assert tg.get_rng_state().numpy().tobytes() == stream
    assert all(p.grad is None for p in model.parameters())


def test_recording_changes_no_result(model):
    idx = tg.tensor(np.random.default_rng(1).integers(0, V, (2, 11)))
    model.eval()
    with tg.no_grad():
        plain = model(idx)[0].numpy()
        with recorded(model) as maps:
            watched = model(idx)[0].numpy()
    np.testing.assert_array_equal(plain, watched)
    assert len(maps) == 3


def test_masks_scales_and_shared_keys_are_seen():
    """What attention was asked, whatever it was: a mask, another scale, fewer key heads."""

    class Odd(nn.Module):
        def forward(self, q, k, v, mask):
            x = F.scaled_dot_product_attention(q, k, v, mask, 0.5, scale=0.7, enable_gqa=True)
            return F.scaled_dot_product_attention(x, x, x)

    draws = np.random.default_rng(3)
    q, k, v = (draws.standard_normal((2, h, n, 5)) for h, n in ((6, 7), (3, 11), (3, 11)))
    mask = draws.random((7, 11)) < 0.6
    mask[3] = False  # a query that may see nothing
    maps = attention_maps(Odd(), *(tg.tensor(a) for a in (q, k, v, mask)))
    assert [p.shape for p in maps.values()] == [(2, 6, 7, 11), (2, 6, 7, 7)]
    keys = torch.from_numpy(k).repeat_interleave(2, dim=1)
    scores = 0.7 * torch.from_numpy(q) @ keys.transpose(-2, -1)
    expected = torch.softmax(scores.masked_fill(~torch.from_numpy(mask), -torch.inf), -1)
    np.testing.assert_allclose(maps[""], expected.nan_to_num(0), atol=1e-6)
    assert (maps[""][:, :, 3] == 0).all()


def test_other_threads_are_not_recorded():
    model, other = model_of("mini GPT"), model_of("char GPT")
    idx = tg.tensor([[1, 2, 3]])
    with recorded(model) as maps:
        worker = threading.Thread(target=lambda: other(idx))
        worker.start()
        worker.join()
    assert maps == {}


def test_a_model_without_attention():
    with pytest.raises(ValueError, match="Linear has no attention"):
        attention_maps(nn.Linear(3, 5), tg.zeros(2, 3))


# ---- pictures


@pytest.mark.parametrize("choice", [{}, {"layer": 1}, {"layer": -1, "head": 4}, {"head": 2}])
def test_a_picture_of_a_text(choice, tmp_path):
    file = tmp_path / "attention.png"
    maps = visualize_attention(model_of("mini GPT"), TEXT, VOCAB, file, **choice)
    assert file.read_bytes().startswith(b"\x89PNG")
    expected = attention_maps(model_of("mini GPT"), tg.tensor(VOCAB.encode(TEXT)[None]))
    assert maps.keys() == expected.keys()
    for name, p in maps.items():
        np.testing.assert_array_equal(p, expected[name][0])


def test_what_is_drawn(tmp_path, monkeypatch):
    """One panel for each map asked for, with the text on both sides, blanks made visible."""
    drawn = []
    monkeypatch.setattr(
        "tensorgrad.models.attention_maps.plot_attention",
        lambda maps, tokens, path: drawn.append((maps, "".join(tokens))),
    )
    model = model_of("mini GPT")
    for choice in ({}, {"layer": 1}, {"layer": 1, "head": 4}, {"head": 2}):
        maps = visualize_attention(model, TEXT, VOCAB, **choice)
    (means, tokens), (heads, _), (one, _), (each, _) = drawn
    assert tokens == "to·be↵or·not"
    assert list(means) == [f"blocks.{i}.attn" for i in range(3)]
    np.testing.assert_array_equal(means["blocks.2.attn"], maps["blocks.2.attn"].mean(0))
    assert list(heads) == [f"blocks.1.attn, head {h}" for h in range(5)]
    assert list(one) == ["blocks.1.attn, head 4"]
    np.testing.assert_array_equal(one["blocks.1.attn, head 4"], maps["blocks.1.attn"][4])
    assert list(each) == [f"blocks.{i}.attn, head 2" for i in range(3)]


@pytest.mark.parametrize(
    ("text", "choice", "error", "sentence"),
    [
        (TEXT, {"layer": 3}, IndexError, "no layer 3, there are 3"),
        (TEXT, {"layer": 0, "head": 5}, IndexError, "no head 5 in blocks.0.attn, there are 5"),
        ("", {}, ValueError, "the text is empty"),
        ("to be!", {}, ValueError, "'!'"),
        (TEXT * 2, {}, ValueError, "24 characters are more than block_size 13"),
    ],
)
def test_what_cannot_be_drawn(text, choice, error, sentence, tmp_path):
    with pytest.raises(error, match=sentence):
        visualize_attention(model_of("mini GPT"), text, VOCAB, tmp_path / "a.png", **choice)
    assert not list(tmp_path.iterdir())


def test_one_wide_text_and_a_single_token(tmp_path):
    model = MiniGPT(replace(model_of("mini GPT").config, block_size=200))
    for text in ("t", TEXT * 12):
        visualize_attention(model, text, VOCAB, tmp_path / "a.png", layer=0, head=0)
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
