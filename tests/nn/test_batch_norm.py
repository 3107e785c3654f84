"""BatchNorm as the lectures need it: (B, T, C), and its kernel beside the formula, in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad as tg
from tensorgrad import nn, twins
from tests.ops.compare import assert_same


def numbers(shape, seed=7):
    return np.random.default_rng(seed).normal(1, 2, shape)


def moved(t, layer, x, turn=lambda a: a):
    """Three steps: outputs, gradients, and what became of the running statistics."""
    seen = []
    for seed in range(3):
        a = t.tensor(x + seed, requires_grad=True)
        y = turn(layer(turn(a)))
        g = t.tensor(numbers(tuple(y.shape), seed))
        seen += [y, *t.autograd.grad(y, [a, *layer.parameters()], g)]
    layer.eval()
    return [*seen, *layer.buffers(), turn(layer(turn(t.tensor(x))))]


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("shape", [(5, 7, 3), (101, 31), (67, 3, 13)])
def test_batch_and_time(shape, enabled, monkeypatch):
    """G2.e2, B2.28: (B, T, C) with channels_last; PyTorch's (N, C, L) with two dims exchanged.

    B2.22 and B2.20 with it: the biased variance and eps normalise, the running variance is the
    unbiased one."""
    monkeypatch.setattr(twins, "enabled", enabled)
    ours = nn.BatchNorm1d(shape[-1], eps=1e-3, momentum=0.3, channels_last=True).double()
    theirs = torch.nn.BatchNorm1d(shape[-1], eps=1e-3, momentum=0.3).double()
    weight, bias = numbers(shape[-1:], 1), numbers(shape[-1:], 2)
    for t, layer in ((tg, ours), (torch, theirs)):
        with t.no_grad():
            layer.weight.copy_(t.tensor(weight))
            layer.bias.copy_(t.tensor(bias))
    x = numbers(shape)
    turn = (lambda a: a.transpose(1, 2)) if len(shape) == 3 else (lambda a: a)
    assert_same(moved(tg, ours, x), moved(torch, theirs, x, turn), rtol=1e-9)


@given(st.lists(st.integers(2, 5), min_size=2, max_size=3), st.booleans(), st.booleans())
def test_second_order(shape, affine, recorded):
    """A gradient of a gradient replays the formula."""
    x = tg.tensor(numbers(shape), requires_grad=True)
    layer = nn.BatchNorm1d(shape[-1], affine=affine, channels_last=True).double()
    layer.train(recorded)

    def once(x):
        return (layer(x) ** 3).sum()

    (dx,) = tg.autograd.grad(once(x), x, create_graph=True)
    (ddx,) = tg.autograd.grad((dx**2).sum(), x)
    twin = torch.nn.BatchNorm1d(shape[-1], affine=affine).double().train(recorded)
    y = torch.tensor(x.detach().numpy(), requires_grad=True)
    turned = y.reshape(-1, shape[-1])
    (dy,) = torch.autograd.grad((twin(turned) ** 3).sum(), y, create_graph=True)
    (ddy,) = torch.autograd.grad((dy**2).sum(), y)
    np.testing.assert_allclose(ddx, ddy, rtol=1e-7, atol=1e-8)


def test_the_variance_is_that_of_the_batch():
    """G2.d2, B2.22: divided by n, not n - 1, where it normalises; B2.20: variances are averaged."""
    x = numbers((7, 3))
    layer = nn.BatchNorm1d(3, momentum=0.1).double()
    y = layer(tg.tensor(x)).detach()
    np.testing.assert_allclose(y, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, 0.9 + 0.1 * x.var(0, ddof=1), rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "last"), [((7, 3), False), ((5, 3, 2), False), ((5, 2, 3), True)]
)
def test_running_statistics_keep_their_shape(shape, last):
    """B2.23"""
    layer = nn.BatchNorm1d(3, channels_last=last)
    for _ in range(2):
        layer(tg.randn(*shape))
        assert layer.running_mean.shape == layer.running_var.shape == (3,)
    assert layer.num_batches_tracked.shape == () and layer.num_batches_tracked.item() == 2


@pytest.mark.parametrize(
    ("shape", "last"), [((1, 3), False), ((1, 3, 1), False), ((1, 1, 3), True)]
)
def test_one_example_has_no_variance(shape, last):
    """B2.25: refused in training, and fine in evaluation, which reaches every layer."""
    model = nn.Sequential(nn.Sequential(nn.BatchNorm1d(3, channels_last=last)))
    with pytest.raises(ValueError, match="only one value per channel"):
        model(tg.ones(*shape))
    assert model.eval()(tg.ones(*shape)).shape == shape


def test_other_numbers_of_channels_are_refused():
    for layer in (nn.BatchNorm1d(3), nn.BatchNorm1d(3, channels_last=True)):
        with pytest.raises(RuntimeError, match=r"should have shape \(5,\)"):
            layer(tg.randn(7, 5))


def test_repr_names_the_layout():
    assert repr(nn.BatchNorm1d(3, channels_last=True)).endswith("channels_last=True)")
