"""Calibrated statistics: those of one batch that holds all the data, and evaluation uses them."""

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad import nn


def net(nn):
    """Two normalisations: what the second sees depends on the first."""
    return nn.Sequential(
        nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 7), nn.BatchNorm1d(7)
    ).double()


def twins():
    ours, theirs = net(nn), net(torch.nn)
    with torch.no_grad():
        for p in theirs.parameters():
            p.normal_()
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    return ours, theirs


X = np.random.default_rng(3).normal(2, 3, (97, 3))


def measured(theirs):
    """PyTorch's net on all the data, each layer given the statistics of what reaches it."""
    with torch.no_grad():
        x = torch.from_numpy(X)
        for module in theirs.eval():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.copy_(x.mean(0))
                module.running_var.copy_(x.var(0, correction=1))
            x = module(x)
    return x


@pytest.mark.parametrize("cuts", [[97], [31, 66], [1, 2, 3, 91], [1] * 97])
def test_any_batches_are_one_batch(cuts):
    """B2.21: what was measured is what evaluation normalises by."""
    ours, theirs = twins()
    batches = [tg.tensor(part) for part in np.split(X, np.cumsum(cuts)[:-1])]
    nn.calibrate(ours, batches)
    expected = measured(theirs)
    buffers = dict(ours.named_buffers())
    for name, buffer in theirs.named_buffers():
        if not name.endswith("tracked"):
            np.testing.assert_allclose(buffers[name], buffer, rtol=1e-12, err_msg=name)
    out = ours.eval()(tg.tensor(X))
    np.testing.assert_allclose(out.detach(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("last", [True, False])
def test_batch_and_length(last):
    """(N, L, C) with channels_last, (N, C, L) without: the same numbers."""
    x = np.random.default_rng(5).normal(1, 2, (11, 7, 3))
    layer = nn.BatchNorm1d(3, channels_last=last).double()
    nn.calibrate(
        layer, [tg.tensor(part if last else part.swapaxes(1, 2)) for part in (x[:4], x[4:])]
    )
    rows = x.reshape(-1, 3)
    np.testing.assert_allclose(layer.running_mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, rows.var(0, ddof=1), rtol=1e-12)


def test_a_large_mean_costs_no_digits():
    x = np.random.default_rng(5).normal(1e6, 1e-2, (1009, 2))
    layer = nn.BatchNorm1d(2).double()
    nn.calibrate(layer, [tg.tensor(part) for part in np.array_split(x, 13)])
    np.testing.assert_allclose(layer.running_var, x.var(0, ddof=1), rtol=1e-6)


def test_modes_gradients_and_other_layers_stay():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout(0.5)).double()
    model[2].eval()
    modes = [module.training for module in model.modules()]
    weight = model[0].weight.detach().clone()
    nn.calibrate(model, [tg.tensor(X)])
    assert [module.training for module in model.modules()] == modes
    np.testing.assert_array_equal(model[0].weight.detach(), weight)
    assert not model[1].running_mean.requires_grad and not model[1]._hooks


@pytest.mark.parametrize(
    ("batches", "sentence"),
    [([], "there are no batches"), ([tg.ones(1, 3).double()], "a single value per channel")],
)
def test_too_little_data(batches, sentence):
    with pytest.raises(ValueError, match=f"calibrate: {sentence}"):
        nn.calibrate(twins()[0], batches)
