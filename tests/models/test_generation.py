"""Generation beside a loop of PyTorch's: greedy, drawn, cropped; and that it leaves no trace."""

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad.models.generation import draw
from tests.models.test_char_gpt import CONFIG, ids, twins

PROMPT = (3, 5)


def continued(model, idx, n, choose):
    """PyTorch's model, run on the last block_size tokens n times."""
    idx = torch.from_numpy(idx)
    for _ in range(n):
        last = idx[:, -model.block_size :]
        logits, _ = model(last, last)
        idx = torch.cat([idx, choose(logits[:, -1])], 1)
    return idx.numpy()


def test_greedy():
    ours, theirs = twins()
    x = ids(shape=PROMPT)[0]
    expected = continued(theirs, x, 13, lambda logits: logits.argmax(-1, keepdim=True))
    out = ours.generate(tg.tensor(x), 13, temperature=0)
    np.testing.assert_array_equal(out, expected, strict=True)
    np.testing.assert_array_equal(ours.generate(tg.tensor(x), 13, top_k=1), expected)


@pytest.mark.parametrize("top_k", [None, 4, 23, 1000])
def test_drawn_with_a_seed(top_k):
    """Longer than the block, and each draw is torch.multinomial's."""
    ours, theirs = twins()
    x = ids(shape=PROMPT)[0]
    generator = torch.Generator().manual_seed(1337)

    def choose(logits):
        logits = logits / 0.7
        k = min(top_k or logits.shape[-1], logits.shape[-1])
        rest = logits < logits.topk(k).values[:, -1:]
        p = logits.masked_fill(rest, -torch.inf).softmax(-1)
        return torch.multinomial(p, 1, generator=generator)

    expected = continued(theirs, x, 17, choose)
    for seeded in (tg.Generator().manual_seed(1337), None):
        tg.manual_seed(1337)  # without a generator of its own it is the default one
        out = ours.generate(tg.tensor(x), 17, 0.7, top_k, seeded)
        np.testing.assert_array_equal(out, expected)


def test_only_the_last_block_counts():
    model, _ = twins()
    x = ids(shape=(2, 19))[0]
    long = model.generate(tg.tensor(x), 7, temperature=0)
    short = model.generate(tg.tensor(x[:, -CONFIG.block_size :]), 7, temperature=0)
    np.testing.assert_array_equal(long[:, :19], x)
    np.testing.assert_array_equal(long[:, -7:], short[:, -7:])


def test_nothing_asked_nothing_added():
    model, _ = twins()
    x = ids(shape=PROMPT)[0]
    np.testing.assert_array_equal(model.generate(tg.tensor(x), 0), x)


def test_modes_are_left_as_they_were_and_nothing_is_recorded():
    model, _ = twins()
    model.train()
    model.blocks[1].eval()
    before = [module.training for module in model.modules()]
    seen = []
    model.ln_f.register_forward_hook(lambda module, *_: seen.append(module.training))
    out = model.generate(tg.tensor(ids(shape=PROMPT)[0]), 3)
    assert [module.training for module in model.modules()] == before
    assert seen == [False] * 3
    assert not out.requires_grad and all(p.grad is None for p in model.parameters())


def test_modes_come_back_after_an_error():
    model, _ = twins()
    with pytest.raises(IndexError):
        model.train().generate(tg.full((1, 3), 99), 3)
    assert all(module.training for module in model.modules())


def test_what_ties_with_the_kth_is_kept():
    logits = tg.tensor([[2.0, 5.0, 2.0, 1.0]])
    generator = tg.Generator().manual_seed(7)
    drawn = {draw(logits, top_k=2, generator=generator).item() for _ in range(200)}
    assert drawn == {0, 1, 2}


def test_temperature_sharpens():
    """The share of the likelier of two approaches softmax(logits / temperature)."""
    logits = tg.tensor([[0.0, 1.0]]).expand(20_011, 2)
    for temperature in (0.5, 1.0, 3.0):
        generator = tg.Generator().manual_seed(13)
        share = draw(logits, temperature, generator=generator).double().mean().item()
        assert abs(share - 1 / (1 + np.exp(-1 / temperature))) < 0.01


@pytest.mark.parametrize(
    ("shape", "options", "sentence"),
    [
        ((1, 0), {}, r"at least one token, it is \(1, 0\)"),
        ((3,), {}, r"idx must be \(B, T\).*it is \(3,\)"),
        ((1, 3), {"max_new_tokens": -1}, "max_new_tokens must be at least 0, it is -1"),
        ((1, 3), {"temperature": -0.5}, "temperature must be at least 0, it is -0.5"),
        ((1, 3), {"temperature": float("nan")}, "temperature must be at least 0, it is nan"),
        ((1, 3), {"top_k": 0}, "top_k must be at least 1, it is 0"),
    ],
)
def test_what_cannot_be_generated(shape, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        twins()[0].generate(tg.zeros(*shape, dtype=tg.int64), **{"max_new_tokens": 2, **options})
