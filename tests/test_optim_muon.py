"""Muon beside PyTorch's, beside its formula written anew, and beside the mathematics."""

import math

import ml_dtypes
import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.optim.muon import QUINTIC, orthogonal
from tests.test_optim import close, drawn, parameters, run
from tests.test_optim_states import from_torch, to_torch

SHAPES = [(3, 5), (7, 2), (11, 11), (1, 1)]
FLIPS = 2e-3
"""Sums taken in another order round now and then to another bfloat16; steps go 50 * 0.03 in all."""
OPTIONS = {
    "weight_decay": 0.3, "momentum": 0.7, "nesterov": False, "ns_coefficients": (2, -1.5, 0.5),
    "eps": 0.5, "ns_steps": 3, "adjust_lr_fn": "match_rms_adamw",
}  # fmt: skip


class Reference:
    """The same steps after the description of Jordan et al. 2024; bfloat16 by ml_dtypes."""

    def __init__(
        self, params, lr, weight_decay=0.1, momentum=0.95, nesterov=True, ns_coefficients=QUINTIC,
        eps=1e-7, ns_steps=5, adjust_lr_fn=None,
    ):  # fmt: skip
        self.arrays = [p.detach().numpy().copy() for p in params]
        self.means = [np.zeros_like(a) for a in self.arrays]
        self.lr, self.decay, self.momentum, self.nesterov = lr, weight_decay, momentum, nesterov
        self.newton, self.how = (ns_coefficients, eps, ns_steps), adjust_lr_fn

    def step(self, gradients):
        for p, m, g in zip(self.arrays, self.means, gradients, strict=True):
            if g is None:
                continue
            m[...] = self.momentum * m + (1 - self.momentum) * g
            d = self.momentum * m + (1 - self.momentum) * g if self.nesterov else m
            A, B = p.shape
            even = (
                0.2 * math.sqrt(max(A, B))
                if self.how == "match_rms_adamw"
                else max(1, A / B) ** 0.5
            )
            p *= 1 - self.lr * self.decay
            p -= self.lr * even * self.orthogonal(d, *self.newton)

    @staticmethod
    def orthogonal(d, coefficients, eps, steps):
        def short(x):
            return np.asarray(x, np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)

        a, b, c = coefficients
        x = short(d if d.shape[0] <= d.shape[1] else d.T)
        x = short(x / max(short(np.linalg.norm(x)), short(eps)))
        for _ in range(steps):
            s = short(x @ x.T)
            x = short(a * x + short(b * s + c * (s @ s)) @ x)
        return (x if d.shape[0] <= d.shape[1] else x.T).astype(np.float64)


CHOICES = [(), *((name,) for name in OPTIONS), tuple(OPTIONS)]
CHOICES += [tuple(n for n in OPTIONS if n != name) for name in OPTIONS]


@pytest.mark.parametrize("chosen", CHOICES, ids=" ".join)
def test_fifty_steps_with_every_option_on_and_off(chosen):
    options = {name: OPTIONS[name] for name in chosen}

    def make(optim, params):
        return optim.Muon(params, lr=0.03, **options)

    ours, _ = run(tg, make, shapes=SHAPES)
    theirs, _ = run(torch, make, shapes=SHAPES)
    reference = Reference(parameters(tg, SHAPES), 0.03, **options)
    for i in range(50):
        gs = drawn(i, tuple(SHAPES), "float64")
        reference.step([None if (i + j) % 3 == 0 and i else g for j, g in enumerate(gs)])
    for p, q in zip(ours, reference.arrays, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q, 1e-12, 1e-14)
    close(ours, theirs, 0, FLIPS)


def test_wide_matrices():
    def make(optim, params):
        return optim.Muon(params, lr=0.03)

    shapes = [(53, 211), (97, 41)]
    ours, theirs = (run(f, make, 10, shapes)[0] for f in (tg, torch))
    close(ours, theirs, 0, FLIPS)


def test_singular_values_go_along_the_polynomial():
    """U and V stay; 0.7 to 1.2 is where five rounds of the quintic bring every value."""
    rng = np.random.default_rng(3)
    U, _ = np.linalg.qr(rng.standard_normal((17, 17)))
    V, _ = np.linalg.qr(rng.standard_normal((29, 17)))
    s = np.geomspace(0.03, 1, 17)
    expected = s / np.linalg.norm(s)
    for _ in range(5):
        expected = sum(k * expected**n for k, n in zip(QUINTIC, (1, 3, 5), strict=True))
    for x in ((U * s) @ V.T, ((U * s) @ V.T).T):
        out = orthogonal(x)
        core = U.T @ out @ V if out.shape == (17, 29) else U.T @ out.T @ V
        np.testing.assert_allclose(core, np.diag(expected), atol=0.06)
    assert expected.min() > 0.6 and expected.max() < 1.25


def test_zeros_nan_and_nothing():
    assert not orthogonal(np.zeros((3, 5))).any()
    assert np.isnan(orthogonal(np.full((3, 5), np.nan))).all()
    p = tg.ones(3, 0, requires_grad=True)
    p.grad = tg.ones(3, 0)
    q = tg.ones(0, 3, requires_grad=True)
    q.grad = tg.ones(0, 3)
    optim.Muon([p, q]).step()
    assert p.shape == (3, 0)


def test_states_travel_both_ways():
    def make(optim, params):
        groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.07}]
        return optim.Muon(groups, lr=0.03)

    ours, o = run(tg, make, 10, SHAPES[:3])
    theirs, t = run(torch, make, 10, SHAPES[:3])
    here = [p.detach().clone().requires_grad_() for p in ours]
    o2 = make(optim, here)
    o2.load_state_dict(from_torch(t.state_dict()))
    there = [p.detach().clone().requires_grad_() for p in theirs]
    t2 = make(torch.optim, there)
    t2.load_state_dict(to_torch(o.state_dict()))
    assert o.state_dict()["state"].keys() == t.state_dict()["state"].keys()
    assert o.state_dict()["param_groups"] == t.state_dict()["param_groups"]
    run(tg, o2, 10, params=here, first=10)
    run(torch, t2, 10, params=there, first=10)
    run(torch, t, 10, params=theirs, first=10)
    close(here, theirs, 0, FLIPS)
    close(there, theirs, 0, FLIPS)


def test_muon_beside_adamw():
    """Hidden matrices by Muon, the rest by AdamW."""
    tg.manual_seed(3)
    model = nn.Sequential(
        nn.Linear(5, 31), nn.Tanh(), nn.Linear(31, 31), nn.Tanh(), nn.Linear(31, 1)
    )
    hidden = [model[2].weight]
    others = [p for p in model.parameters() if p is not hidden[0]]
    both = [optim.Muon(hidden, lr=0.02), optim.AdamW(others, lr=0.01)]
    x = tg.randn(64, 5)
    y = (x[:, :1] * x[:, 1:2]).detach()
    losses = []
    for _ in range(80):
        loss = nn.functional.mse_loss(model(x), y)
        model.zero_grad()
        loss.backward()
        for o in both:
            o.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1}, "-1"),
        ({"momentum": -0.5}, "-0.5"),
        ({"weight_decay": -2}, "-2"),
        ({"adjust_lr_fn": "other"}, "other.* is not supported"),
    ],
)
def test_errors_as_in_torch(options, message):
    for framework in (tg, torch):
        matrix, vector = (framework.ones(s, requires_grad=True) for s in ((3, 5), (3,)))
        with pytest.raises(ValueError, match=message):
            framework.optim.Muon([matrix], **options)
        with pytest.raises(ValueError, match="only supports 2D parameters"):
            framework.optim.Muon([matrix, vector])


def test_errors_of_our_own():
    o = optim.Muon([tg.ones(3, 5, requires_grad=True)])
    with pytest.raises(ValueError, match=r"\(2,\); give such to AdamW"):
        o.add_param_group({"params": [tg.ones(2, requires_grad=True)]})
    for options in ({"ns_steps": 100}, {"ns_coefficients": (1, 2)}):
        with pytest.raises(ValueError, match="three numbers and ns_steps under 100"):
            optim.Muon([tg.ones(3, 5, requires_grad=True)], **options)
