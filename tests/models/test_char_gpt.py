"""CharGPT beside its PyTorch twin: first weights, logits, loss, gradients, ten steps of AdamW."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.models.char_gpt import CharGPT, CharGPTConfig, Head, MultiHeadAttention
from tensorgrad.models.training.trainer import decay_groups
from tests.models.torch_char_gpt import TorchCharGPT

CONFIG = CharGPTConfig(vocab_size=23, block_size=11, n_layer=2, n_head=3, n_embd=15)
B, T = 5, 7


def twins(config=CONFIG):
    """Ours and PyTorch's in float64 with the same weights, away from their first values."""
    ours, theirs = CharGPT(config).double(), TorchCharGPT(config).double()
    draws = np.random.default_rng(3)
    state = {k: draws.normal(0, 0.3, v.shape) for k, v in theirs.state_dict().items()}
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


def test_first_weights_are_pytorchs():
    tg.manual_seed(1337)
    torch.manual_seed(1337)
    ours, theirs = CharGPT(CONFIG).state_dict(), TorchCharGPT(CONFIG).state_dict()
    assert list(ours) == list(theirs)
    for name, weight in theirs.items():
        np.testing.assert_allclose(ours[name], weight, rtol=1e-6, atol=1e-9, err_msg=name)


def test_logits_loss_and_every_gradient():
    """G2.g3, B2.34."""
    ours, theirs = twins()
    loss, expected = losses(ours, theirs, *ids())
    loss.backward()
    expected.backward()
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    assert list(gradients) == [name for name, _ in theirs.named_parameters()]
    for name, p in theirs.named_parameters():
        np.testing.assert_allclose(
            gradients[name], p.grad, rtol=1e-8, atol=1e-12, err_msg=name, strict=True
        )


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
        norm = nn.utils.clip_grad_norm_(ours.parameters(), 1.0)
        expected_norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        np.testing.assert_allclose(norm.item(), expected_norm.item(), rtol=1e-9)
        optimizer.step()
        rival.step()


def test_the_past_does_not_see_the_future():
    model, (x, _) = twins()[0], ids()
    other = x.copy()
    other[:, 4:] += 1
    before, after = (
        model(tg.tensor(v % CONFIG.vocab_size))[0].detach().numpy() for v in (x, other)
    )
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert not np.allclose(before[:, 4:], after[:, 4:])


def test_without_targets_there_is_no_loss():
    model, (x, y) = twins()[0], ids()
    logits, loss = model(tg.tensor(x))
    assert loss is None and logits.shape == (B, T, CONFIG.vocab_size)
    np.testing.assert_array_equal(
        logits.detach().numpy(), model(tg.tensor(x), tg.tensor(y))[0].detach().numpy()
    )


def test_an_untrained_model_knows_nothing():
    """Its loss is near ln V: the first weights favour no character."""
    x, y = ids()
    assert abs(CharGPT(CONFIG)(tg.tensor(x), tg.tensor(y))[1].item() - np.log(23)) < 0.1


def test_too_long_a_text_is_refused():
    with pytest.raises(ValueError, match="12 characters are more than block_size 11"):
        CharGPT(CONFIG)(tg.zeros(2, 12, dtype=tg.int64))


def test_a_character_out_of_the_vocabulary_is_refused():
    with pytest.raises(IndexError, match="23"):
        CharGPT(CONFIG)(tg.full((2, 3), 23))


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"n_embd": 16}, "n_embd must be a multiple of n_head.*16 does not divide by 3"),
        ({"n_head": 0}, "n_head must be at least 1, it is 0"),
        ({"block_size": -64}, "block_size must be at least 1, it is -64"),
        ({"vocab_size": 0}, "vocab_size must be at least 1, it is 0"),
        ({"dropout": 1.0}, "dropout must be less than 1, it is 1.0"),
        ({"dropout": float("nan")}, "dropout must be finite, it is nan"),
    ],
)
def test_sizes_that_cannot_be(sizes, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(CONFIG, **sizes)


def test_attention_is_its_heads_side_by_side():
    """Head is the one written out; MultiHeadAttention has the weights of all of them in one."""
    tg.manual_seed(3)
    together = MultiHeadAttention(CONFIG).double()
    C, D = CONFIG.n_embd, CONFIG.n_embd // CONFIG.n_head
    x = tg.randn(B, T, C, dtype=tg.float64)
    heads = [Head(CONFIG).double() for _ in range(CONFIG.n_head)]
    with tg.no_grad():
        for i, head in enumerate(heads):
            for j, layer in enumerate((head.query, head.key, head.value)):
                layer.weight.copy_(together.qkv.weight[j * C + i * D : j * C + (i + 1) * D])
    apart = together.proj(tg.cat([head(x) for head in heads], dim=-1))
    np.testing.assert_allclose(together(x).detach(), apart.detach(), rtol=1e-10, atol=1e-12)


def test_tying_bias_and_scaled_weights_are_choices():
    """B2.33: the lecture's head is untied and has a bias; GPT-2's is tied and has none."""
    tg.manual_seed(3)
    plain = CharGPT(CONFIG)
    assert plain.lm_head.weight is not plain.wte.weight and plain.lm_head.bias is not None
    tied = CharGPT(replace(CONFIG, tied=True, head_bias=False, scaled_init=True, n_embd=48))
    assert tied.lm_head.weight is tied.wte.weight and tied.lm_head.bias is None
    assert len(list(tied.parameters())) == len(list(plain.parameters())) - 2
    for block in tied.blocks:
        for layer, std in ((block.attn.qkv, 0.02), (block.attn.proj, 0.01), (block.mlp.proj, 0.01)):
            assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
    x, y = ids()
    tied(tg.tensor(x), tg.tensor(y))[1].backward()
    assert tied.wte.weight.grad.shape == (CONFIG.vocab_size, 48)
    again = CharGPT(tied.config)
    again.load_state_dict(tied.state_dict())
    np.testing.assert_array_equal(again(tg.tensor(x))[0].detach(), tied(tg.tensor(x))[0].detach())
