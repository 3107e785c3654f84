"""MiniGPT beside its PyTorch twin: sizes, weights, tying, loss, gradients, ten AdamW steps."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.models.mini_gpt import Block, GPTConfig, MiniGPT, PostNormBlock
from tensorgrad.models.published import PARAMETERS
from tensorgrad.models.training.trainer import decay_groups
from tensorgrad.rng import Generator
from tensorgrad.serialization import load_tree, save_tree
from tests.models.torch_mini_gpt import TorchMiniGPT

CONFIG = GPTConfig(vocab_size=23, block_size=11, n_layer=3, n_head=3, n_embd=15, dropout=0.0)
VARIANTS = [
    CONFIG,
    replace(CONFIG, post_norm=True),
    replace(CONFIG, activation="gelu"),
    replace(CONFIG, activation="relu"),
]
B, T = 5, 7


def twins(config=CONFIG):
    """Ours and PyTorch's in float64 with the same weights, away from their first values."""
    ours, theirs = MiniGPT(config).double(), TorchMiniGPT(config).double()
    draws = np.random.default_rng(3)
    state = {k: draws.normal(0, 0.3, v.shape) for k, v in theirs.state_dict().items()}
    state["lm_head.weight"] = state["wte.weight"]
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    ours.load_state_dict(state)
    return ours, theirs


def ids(seed=5, shape=(B, T)):
    draws = np.random.default_rng(seed)
    return draws.integers(0, CONFIG.vocab_size, shape), draws.integers(0, CONFIG.vocab_size, shape)


def losses(ours, theirs, x, y):
    logits, loss = ours(tg.tensor(x), tg.tensor(y))
    expected, expected_loss = theirs(torch.from_numpy(x), torch.from_numpy(y))
    np.testing.assert_allclose(logits.detach(), expected.detach(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(loss.item(), expected_loss.item(), rtol=1e-12)
    return loss, expected_loss


def test_the_defaults_and_their_parameters():
    """F1.1: 4,788,480 parameters for the 65 symbols of tinyshakespeare, the head's shared."""
    config = asdict(GPTConfig())
    assert {name: config[name] for name in ("vocab_size", "block_size", "n_embd")} == {
        "vocab_size": 256, "block_size": 128, "n_embd": 256,
    }  # fmt: skip
    assert (config["n_head"], config["n_layer"], config["dropout"]) == (8, 6, 0.1)
    model = MiniGPT(GPTConfig(vocab_size=65))
    count = sum(p.numel() for p in model.parameters())
    assert count == 4_788_480 == PARAMETERS["mini-gpt"].value


def test_a_mistyped_setting_is_named():
    """B1.4: no setting is taken silently that does nothing, and every field is saved."""
    for make in (lambda **s: GPTConfig(**s), GPTConfig.from_dict):
        with pytest.raises((ValueError, TypeError)):
            make(n_haed=3)
    with pytest.raises(ValueError, match="no setting 'n_haed'; did you mean 'n_head'"):
        GPTConfig(n_haed=3)
    with pytest.raises(ValueError, match="no setting 'droput'; did you mean 'dropout'"):
        GPTConfig.from_dict({"droput": 0.5})
    assert GPTConfig.from_dict(CONFIG.to_dict()) == CONFIG
    assert CONFIG.to_dict().keys() == GPTConfig().to_dict().keys()


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"n_embd": 16}, "n_embd must be a multiple of n_head.*16 does not divide by 3"),
        ({"n_layer": 0}, "n_layer must be at least 1, it is 0"),
        ({"vocab_size": 0}, "vocab_size must be at least 1, it is 0"),
        ({"dropout": 1.0}, "dropout must be less than 1"),
        ({"activation": "glue"}, "activation must be one of gelu, gelu_new, relu, it is 'glue'"),
    ],
)
def test_sizes_that_cannot_be(sizes, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(CONFIG, **sizes)


def test_tied_once_initialised_once_saved_once(tmp_path):
    """B1.5: one tensor under two names, drawn once, and one again after a checkpoint."""
    tg.manual_seed(7)
    model = MiniGPT(CONFIG)
    assert model.lm_head.weight is model.wte.weight
    assert [n for n, _ in model.named_parameters()].count("wte.weight") == 1
    assert "lm_head.weight" not in dict(model.named_parameters())

    drawn = []
    normal_ = nn.init.normal_
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(nn.init, "normal_", lambda p, **o: drawn.append(p) or normal_(p, **o))
        model.init_weights()
    assert sum(p is model.wte.weight for p in drawn) == 1

    save_tree(tmp_path / "m", {k: v.numpy() for k, v in model.state_dict().items()})
    other = MiniGPT(CONFIG)
    other.load_state_dict(load_tree(tmp_path / "m"))
    assert other.lm_head.weight is other.wte.weight
    np.testing.assert_array_equal(other.wte.weight.detach(), model.wte.weight.detach())


def test_first_weights():
    """B1.6: what adds to the residual stream starts at 0.02 / sqrt(2 n_layer); matrices decay."""
    model = MiniGPT(replace(CONFIG, n_embd=120, vocab_size=211, block_size=97))
    scaled = 0.02 / np.sqrt(2 * 3)
    for name, p in model.named_parameters():
        w = p.detach().numpy()
        if p.ndim == 2:
            std = scaled if name.endswith("c_proj.weight") else 0.02
            assert w.std() == pytest.approx(std, rel=0.05) and abs(w.mean()) < std / 20, name
        else:
            assert (w == (1 if name.endswith("weight") else 0)).all(), name
    decays, rests = (group["params"] for group in decay_groups(model, 0.1))
    assert all(p.ndim == 2 for p in decays) and all(p.ndim == 1 for p in rests)
    assert len(decays) + len(rests) == len(list(model.parameters()))


@pytest.mark.parametrize("config", VARIANTS[:2], ids=["pre", "post"])
def test_first_weights_are_pytorchs(config):
    tg.manual_seed(1337)
    torch.manual_seed(1337)
    ours, theirs = MiniGPT(config).state_dict(), TorchMiniGPT(config).state_dict()
    assert list(ours) == list(theirs)
    for name, weight in theirs.items():
        np.testing.assert_allclose(ours[name], weight, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("config", VARIANTS, ids=["gpt", "post-norm", "erf", "relu"])
def test_logits_loss_and_every_gradient(config):
    """F1.2, B1.6: the activation is the one that is named, gelu_new being GPT-2's tanh form."""
    ours, theirs = twins(config)
    loss, expected = losses(ours, theirs, *ids())
    loss.backward()
    expected.backward()
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    assert list(gradients) == [name for name, _ in theirs.named_parameters()]
    for name, p in theirs.named_parameters():
        np.testing.assert_allclose(
            gradients[name], p.grad, rtol=1e-8, atol=1e-12, err_msg=name, strict=True
        )


def test_variants_differ():
    """The twins agree because each variant does what it says, not because none does anything."""
    x, y = (tg.tensor(v) for v in ids())
    seen = {round(twins(config)[0](x, y)[1].item(), 9) for config in VARIANTS}
    assert len(seen) == len(VARIANTS)
    assert type(MiniGPT(CONFIG).blocks[0]) is Block
    assert type(MiniGPT(VARIANTS[1]).blocks[0]) is PostNormBlock


def test_ignored_targets_do_not_count():
    ours, theirs = twins()
    x, y = ids()
    y[1:3, 2:] = -1
    loss, expected = losses(ours, theirs, x, y)
    loss.backward()
    expected.backward()
    np.testing.assert_allclose(ours.wte.weight.grad, theirs.wte.weight.grad, rtol=1e-9, atol=1e-13)


def test_dropout_draws_what_pytorch_draws():
    ours, theirs = twins(replace(CONFIG, dropout=0.3))
    tg.manual_seed(11)
    torch.manual_seed(11)
    losses(ours, theirs, *ids())


def test_ten_steps_of_adamw():
    ours, theirs = twins()
    options = {"lr": 3e-3, "betas": (0.9, 0.99)}
    optimizer = optim.AdamW(decay_groups(ours, 0.1), **options)
    rival = torch.optim.AdamW(decay_groups(theirs, 0.1), **options)
    for step in range(10):
        loss, expected = losses(ours, theirs, *ids(step))
        optimizer.zero_grad()
        rival.zero_grad()
        loss.backward()
        expected.backward()
        optimizer.step()
        rival.step()
    assert ours.lm_head.weight is ours.wte.weight


def test_the_past_does_not_see_the_future():
    model, (x, _) = twins()[0], ids()
    other = x.copy()
    other[:, 4:] += 1
    before, after = (
        model(tg.tensor(v % CONFIG.vocab_size))[0].detach().numpy() for v in (x, other)
    )
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert not np.allclose(before[:, 4:], after[:, 4:])


def test_too_long_a_text_is_refused():
    with pytest.raises(ValueError, match="MiniGPT: 12 characters are more than block_size 11"):
        MiniGPT(CONFIG)(tg.zeros(2, 12, dtype=tg.int64))


def test_without_targets_there_is_no_loss():
    model, (x, _) = twins()[0], ids()
    logits, loss = model(tg.tensor(x))
    assert loss is None and logits.shape == (B, T, CONFIG.vocab_size)


def test_it_writes_beyond_its_block():
    """The last block_size characters decide, however long the text has become."""
    model = twins()[0]
    start = tg.tensor(ids(shape=(2, 3))[0])
    out = model.generate(start, 17, top_k=5, generator=Generator("cpu").manual_seed(3))
    assert out.shape == (2, 20) and (out[:, :3] == start).all()
    again = model.generate(start, 17, top_k=5, generator=Generator("cpu").manual_seed(3))
    np.testing.assert_array_equal(out, again)
