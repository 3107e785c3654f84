"""Ties, kinks, infinities and NaN; one tensor in two places."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tests.ops.compare import (
    assert_same,
    both,
    leaves,
    numbers,
    tensors,
)

KINKS = {
    "maximum": lambda t, x, y: t.maximum(x, y),
    "minimum": lambda t, x, y: t.minimum(x, y),
    "clamp": lambda t, x, y: x.clamp(-1, 1),
    "clamp by tensors": lambda t, x, y: t.clamp(x, y, y + 1),
    "clamp by crossed tensors": lambda t, x, y: t.clamp(x, y + 1, y),
    "clamp from below": lambda t, x, y: x.clamp(min=y),
    "clamp from above": lambda t, x, y: x.clamp(max=y),
    "amax": lambda t, x, y: x.amax(),
    "max": lambda t, x, y: x.max(),
    "min": lambda t, x, y: x.min(),
    "abs": lambda t, x, y: x.abs(),
    "sign": lambda t, x, y: x.sign(),
    "relu": lambda t, x, y: x.relu(),
    "pow": lambda t, x, y: x**y,
    "pow 0": lambda t, x, y: x**0,
    "pow 0.0": lambda t, x, y: x**0.0,
    "pow 1": lambda t, x, y: x**1,
    "pow 2": lambda t, x, y: x**2,
    "pow -1": lambda t, x, y: x**-1,
    "pow 0.5": lambda t, x, y: (x + 0.0) ** 0.5,
    "0 pow": lambda t, x, y: 0**x,
    "2 pow": lambda t, x, y: 2**x,
    "-2 pow": lambda t, x, y: (-2) ** x,
    "sqrt": lambda t, x, y: x.sqrt(),
    "log": lambda t, x, y: x.log(),
    "div": lambda t, x, y: x / y,
    "where": lambda t, x, y: t.where(x > 0, x.log(), x * 2),
    "masked_fill": lambda t, x, y: x.masked_fill(x <= 0, 1.0).log(),
    "nan_to_num": lambda t, x, y: t.nan_to_num(x, 1, 2, 3),
    "logaddexp": lambda t, x, y: t.logaddexp(x, y),
    "sigmoid": lambda t, x, y: x.sigmoid(),
    "tanh": lambda t, x, y: x.tanh(),
    "logsumexp": lambda t, x, y: t.logsumexp(x, 0),
    "prod": lambda t, x, y: x[:9].prod(),
    "norm": lambda t, x, y: (x * 0).norm(),
    "std": lambda t, x, y: (x * 0 + 1).std(),
    "frac, trunc": lambda t, x, y: x.frac() + x.trunc(),
    "remainder": lambda t, x, y: x % y,
    "round": lambda t, x, y: (x * 2.5).round(),
    "cumprod": lambda t, x, y: x.cumprod(0),
    "sort": lambda t, x, y: t.sort(x, stable=True),
    "sort descending": lambda t, x, y: t.sort(x, descending=True, stable=True),
    "isclose": lambda t, x, y: [t.isclose(x, y), t.isclose(x, x, equal_nan=True)],
}
GRID = np.array([-2.0, -1, -0.0, 0, 0.5, 1, 2])
FINITE = [a.ravel() for a in np.meshgrid(GRID, GRID)]
WILD = [
    a.ravel()
    for a in np.meshgrid(
        np.append(GRID, [np.inf, -np.inf, np.nan]), np.append(GRID, [np.inf, -np.inf, np.nan])
    )
]
NOT_WILD = {  # a gradient beside an infinity or NaN hangs on the order of multiplications
    "pow", "logaddexp", "logsumexp", "prod", "cumprod", "norm", "std", "remainder", "frac, trunc",
    "div", "0 pow", "2 pow", "-2 pow", "amax", "max", "min", "tanh", "sigmoid", "where", "pow 0.5",
    "pow -1", "relu",
}  # fmt: skip


@pytest.mark.parametrize("name", KINKS)
def test_values_and_gradients_at_kinks(name):
    both(KINKS[name], *FINITE)


@pytest.mark.parametrize("name", KINKS)
def test_values_at_infinity_and_nan(name):
    mine, theirs = (tensors(KINKS[name](t, *leaves(WILD, t, False))) for t in (tg, torch))
    assert_same(mine, theirs)
    if name not in NOT_WILD:
        both(KINKS[name], *WILD)


def test_where_leaks_no_nan():
    x = tg.tensor([0.0, 1.0, 4.0], requires_grad=True)
    tg.where(x > 0, x, tg.zeros(3)).sum().backward()
    assert x.grad.tolist() == [0, 1, 1]
    x.grad = None
    safe = tg.where(x > 0, x, 1.0)  # the double where: the branch not taken sees a harmless number
    tg.where(x > 0, safe.log(), 0.0).sum().backward()
    assert x.grad.tolist() == [0, 1, 0.25]


SAME_TWICE = {
    "add": lambda t, x: x + x,
    "sub": lambda t, x: x - x,
    "mul": lambda t, x: x * x,
    "div": lambda t, x: x / x,
    "pow": lambda t, x: x.abs() ** x,
    "maximum": lambda t, x: t.maximum(x, x),
    "where": lambda t, x: t.where(x > 0, x, x),
    "matmul": lambda t, x: x @ x,
    "cat": lambda t, x: t.cat([x, x, x]),
    "stack": lambda t, x: t.stack([x, x]),
    "einsum": lambda t, x: t.einsum("ij,ij->i", x, x),
    "lerp": lambda t, x: t.lerp(x, x, x),
    "scatter_add": lambda t, x: x.scatter_add(0, t.tensor([[0, 1, 0]] * 3), x),
    "clamp": lambda t, x: t.clamp(x, x, x),
}


@pytest.mark.parametrize("name", SAME_TWICE)
def test_one_tensor_in_two_places(name):
    both(SAME_TWICE[name], numbers((3, 3)))
    x = tg.from_numpy(numbers((3, 3))).requires_grad_()
    SAME_TWICE[name](tg, x).sum().backward()
    again = tg.from_numpy(numbers((3, 3))).requires_grad_()
    (grad,) = tg.autograd.grad(SAME_TWICE[name](tg, again).sum(), again, create_graph=True)
    np.testing.assert_allclose(x.grad.array, grad.detach().array)
