"""Special functions and functions of two numbers: edges, dtypes, orders of derivatives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import polygamma

import tensorgrad as tg
from tests.ops.answers import same_answer, same_error
from tests.ops.compare import assert_same, both, leaves, tensors

GRID = np.array([-2.0, -1, -0.0, 0, 0.2, 0.5, 1, 2])
WILD = np.append(GRID, [np.inf, -np.inf, np.nan])


def pairs(values):
    return [a.ravel() for a in np.meshgrid(values, values)]


EDGES = {
    "atan2": lambda t, x, y: t.atan2(x, y),
    "hypot": lambda t, x, y: t.hypot(x, y),
    "fmax": lambda t, x, y: t.fmax(x, y),
    "fmin": lambda t, x, y: t.fmin(x, y),
    "atanh": lambda t, x, y: t.atanh(x),
    "erfc": lambda t, x, y: t.erfc(x),
    "erfinv": lambda t, x, y: t.erfinv(x),
    "lgamma": lambda t, x, y: t.lgamma(x),
    "logit": lambda t, x, y: t.logit(x),
    "logit eps": lambda t, x, y: t.logit(x, 0.2),
    "logit eps 0": lambda t, x, y: t.logit(x, 0),
    "logit eps over a half": lambda t, x, y: x.logit(0.7),
    "sinc": lambda t, x, y: t.sinc(x),
    "xlogy": lambda t, x, y: t.xlogy(x, y),
    "xlogy 2": lambda t, x, y: x.xlogy(2.0),
    "xlogy 0": lambda t, x, y: x.xlogy(0.0),
    "0 xlogy": lambda t, x, y: t.xlogy(0.0, x),
}


@pytest.mark.parametrize("name", EDGES)
def test_values_and_gradients_at_edges(name):
    both(EDGES[name], *pairs(GRID))
    # PyTorch's slope depends on the place in the array: for nan with an eps 0 or nan, at -0.0
    # without one inf or -inf.
    wild = WILD[:-1] if name.startswith("logit eps") else WILD
    both(EDGES[name], *pairs(np.delete(wild, 2) if name == "logit" else wild))


def test_digamma_at_its_poles():
    """The slope at a pole is infinite, where PyTorch's is a large number."""
    x = np.array([0.0, -0.0, -1.0, -1.5, -2.2, 5.0, np.inf, -np.inf, np.nan])
    mine, theirs = (tensors(t.digamma(*leaves([x], t, False))) for t in (tg, torch))
    assert_same(mine, theirs)
    x = tg.tensor([-1.0, 0.0, 1.5], requires_grad=True)
    tg.digamma(x).sum().backward()
    assert x.grad[:2].tolist() == [math.inf, math.inf] and math.isfinite(x.grad[2])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int64", "bool"])
@pytest.mark.parametrize("name", ["erfc", "erfinv", "lgamma", "digamma", "sinc", "atanh", "logit"])
def test_dtypes(name, dtype):
    numbers = {"int64": [-2, -1, 0, 1, 2, 5], "bool": [0, 1]}.get(
        dtype, [-2.5, -2, -0.5, 0, 0.001, 0.3, 0.5, 1, 2, 7.5]
    )
    same_answer(lambda t: getattr(t, name)(t.tensor(numbers).to(getattr(t, dtype))))


SAME = {
    "polygamma 0": lambda t: t.polygamma(0, t.tensor([0.5, 2.0])),
    "polygamma of ints": lambda t: t.polygamma(1, t.tensor([1, 2])),
    "polygamma, a method": lambda t: t.tensor([1.5, -0.5]).polygamma(3),
    "polygamma, half": lambda t: t.polygamma(1, t.tensor([1.5, 2.5]).half()),
    "xlogy of ints": lambda t: t.xlogy(t.tensor([0, 1, 2]), t.tensor([0, 1, 2])),
    "number xlogy ints": lambda t: t.xlogy(2, t.tensor([0, 1, 2])),
    "hypot of kinds": lambda t: t.hypot(t.tensor([3.0]), t.tensor([4])),
    "atan2 of ints": lambda t: t.atan2(t.tensor([3]), t.tensor([4])),
    "fmax of ints": lambda t: t.fmax(t.tensor([3, 1]), t.tensor([2, 2])),
    "fmin of bools": lambda t: t.fmin(t.tensor([True, False]), t.tensor([True, True])),
    "true_divide": lambda t: t.true_divide(t.tensor([3, 1]), 2),
}


@pytest.mark.parametrize("case", SAME)
def test_same_answers(case):
    same_answer(SAME[case])


WRONG = {
    "polygamma": lambda t: t.polygamma(-1, t.ones(2)),
    "fmax": lambda t: t.fmax(t.ones(2), t.ones(3)),
    "atan2": lambda t: t.atan2(t.ones(2), t.ones(3)),
    "xlogy": lambda t: t.xlogy(t.ones(2), t.ones(3)),
}


@pytest.mark.parametrize("name", WRONG)
def test_same_errors(name):
    same_error(WRONG[name], name)


def test_derivatives_of_lgamma_to_the_fifth_order():
    """The n-th is polygamma(n - 1)."""
    places = np.array([0.3, 1.0, 2.5, 7.0])
    x = tg.from_numpy(places.copy()).requires_grad_()
    slope = tg.lgamma(x)
    for n in range(5):
        (slope,) = tg.autograd.grad(slope.sum(), x, create_graph=True)
        np.testing.assert_allclose(slope.detach().array, polygamma(n, places), rtol=1e-10)


def test_slope_of_sinc_near_zero():
    """Against a complex step, sin(pi (x + ih)) / (pi (x + ih)): no difference is taken."""
    x = np.concatenate([np.geomspace(1e-8, 3, 200), -np.geomspace(1e-8, 3, 200)])
    z = np.pi * (x + 1e-20j)
    expected = (np.sin(z) / z).imag / 1e-20
    (mine,) = tg.autograd.grad(tg.sinc(leaf := leaves([x], tg)[0]).sum(), leaf)
    near = np.abs(x) > 1e-3  # below, the quotient itself cancels; there the series has two terms
    np.testing.assert_allclose(mine.array[near], expected[near], rtol=1e-8, atol=1e-13)
    u = np.pi * x[~near]
    np.testing.assert_allclose(mine.array[~near], np.pi * (-u / 3 + u**3 / 30), rtol=1e-11)


def test_second_derivative_of_sinc_at_zero():
    x = tg.tensor([0.0, 1e-4], dtype=tg.float64, requires_grad=True)
    (slope,) = tg.autograd.grad(tg.sinc(x).sum(), x, create_graph=True)
    (curve,) = tg.autograd.grad(slope.sum(), x)
    np.testing.assert_allclose(curve.array, [-(math.pi**2) / 3] * 2, rtol=1e-6)
