"""Transforms of functions against torch.func, alone and nested in every order."""

import collections

import numpy as np
import pytest
import torch

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import func

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
"""PyTorch's own, at its first jvp."""

RNG = np.random.default_rng(0)
X, T = RNG.standard_normal((3, 5)), RNG.standard_normal((3, 5))
W = RNG.standard_normal((5, 2))


def both(array):
    return tg.tensor(array), torch.tensor(array)


def f(lib, x):
    """A scalar of many kinds of ops: elementwise, linear, bilinear, general, fused."""
    w = (tg.tensor if lib is tg else torch.tensor)(W)
    h = lib.tanh(x) @ w
    h = h.softmax(1) * h + lib.amax(h, 0)
    return (lib.exp(h * 0.3).sum(1) ** 2).mean() + x[1:].sum() * x.logsumexp(1).sum()


def ours(x):
    return f(tg, x)


def theirs(x):
    return f(torch, x)


def close(a, b, rtol=1e-9):
    np.testing.assert_allclose(np.asarray(a.detach()), b.detach().numpy(), rtol=rtol, atol=1e-12)


def test_grad_and_value():
    x, y = both(X)
    close(func.grad(ours)(x), torch.func.grad(theirs)(y))
    grads, value = func.value_and_grad(ours)(x)[::-1]
    close(grads, torch.func.grad(theirs)(y))
    close(value, theirs(y))


def test_jvp_and_vjp():
    (x, y), (t, s) = both(X), both(T)
    for a, b in zip(func.jvp(ours, (x,), (t,)), torch.func.jvp(theirs, (y,), (s,)), strict=True):
        close(a, b)
    value, pull = func.vjp(lambda x: tg.tanh(x) * x, x)
    want, theirs_pull = torch.func.vjp(lambda x: torch.tanh(x) * x, y)
    close(value, want)
    close(pull(t), theirs_pull(s)[0])
    close(pull(t), theirs_pull(s)[0])  # as often as one likes


ORDERS = {
    "grad of grad": lambda lib, g, x, t: g.grad(lambda x: (g.grad(lib)(x) * t).sum())(x),
    "jvp of grad": lambda lib, g, x, t: g.jvp(g.grad(lib), (x,), (t,))[1],
    "grad of jvp": lambda lib, g, x, t: g.grad(lambda x: g.jvp(lib, (x,), (t,))[1])(x),
    "jvp of jvp": lambda lib, g, x, t: g.jvp(lambda x: g.jvp(lib, (x,), (t,))[1], (x,), (t,))[1],
    "grad of jvp of grad": lambda lib, g, x, t: g.grad(
        lambda x: (g.jvp(g.grad(lib), (x,), (t,))[1] * t).sum()
    )(x),
    "jvp of grad of grad": lambda lib, g, x, t: g.jvp(
        g.grad(lambda x: (g.grad(lib)(x) * t).sum()), (x,), (t,)
    )[1],
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
def test_nested(order):
    (x, y), (t, s) = both(X), both(T)
    close(ORDERS[order](ours, func, x, t), ORDERS[order](theirs, torch.func, y, s), 1e-8)


def test_perturbations_are_not_confused():
    one, two = tg.tensor(1.0), tg.tensor(2.0)
    value, slope = func.jvp(
        lambda x: x * func.jvp(lambda y: x + y, (one,), (one,))[1], (two,), (one,)
    )
    assert (value.item(), slope.item()) == (2.0, 1.0)
    slope = func.grad(lambda x: x * func.grad(lambda y: x + y)(one))(two)
    assert slope.item() == 1.0
    slope = func.grad(lambda x: x * func.jvp(lambda y: x * y, (one,), (one,))[1])(two)
    assert slope.item() == 4.0


def test_jacobians_and_hessians():
    (x, y), (t, s) = both(X[0]), both(T[0])

    def g(x):
        return x.exp()[:, None] * x[None, :3]

    for ours_of, theirs_of in ((func.jacrev, torch.func.jacrev), (func.jacfwd, torch.func.jacfwd)):
        close(ours_of(g)(x), theirs_of(g)(y))

    def h(x):
        return (x.exp() * x.roll(1, 0)).sum() ** 2

    close(func.hessian(h)(x), torch.func.hessian(h)(y))
    close(func.jacrev(func.jacfwd(h))(x), torch.func.hessian(h)(y))
    product = func.hvp(h, (x,), (t,))
    close(product[1] if isinstance(product, tuple) else product, torch.func.hessian(h)(y) @ s)


def test_trees():
    Pair = collections.namedtuple("Pair", "a b")

    def g(tree):
        return (tree["p"].a * tree["q"][0]).sum() + (tree["p"].b ** 2).sum()

    def tree(lib):
        return {"p": Pair(lib(X[0]), lib(X[1])), "q": [lib(T[0]), 3]}

    got, want = func.grad(g)(tree(tg.tensor)), {"p": Pair(T[0], 2 * X[1]), "q": [X[0], 3]}
    assert type(got["p"]) is Pair
    np.testing.assert_allclose(got["p"].a.numpy(), want["p"].a)
    np.testing.assert_allclose(got["p"].b.numpy(), want["p"].b)
    np.testing.assert_allclose(got["q"][0].numpy(), want["q"][0])
    assert got["q"][1] == 3


def test_argnums_and_aux():
    x, t = tg.tensor(X), tg.tensor(T)
    a, b = func.grad(lambda x, t: (x * x * t).sum(), argnums=(0, 1))(x, t)
    np.testing.assert_allclose(a.numpy(), 2 * X * T)
    np.testing.assert_allclose(b.numpy(), X * X)
    slope, aux = func.grad(lambda x: ((x * t).sum(), x * 2), has_aux=True)(x)
    np.testing.assert_allclose(slope.numpy(), T)
    np.testing.assert_allclose(aux.numpy(), 2 * X)
    assert type(aux) is tg.Tensor
    with pytest.raises(RuntimeError, match="argnums 2 is out of range"):
        func.grad(lambda x: x.sum(), argnums=2)(x)


def test_what_a_function_closes_over_keeps_its_graph():
    """grad's result is recorded as far as the tensors below it are."""
    w = tg.tensor(W, requires_grad=True)
    slope = func.grad(lambda x: ((x @ w) ** 2).sum())(tg.tensor(X))
    slope.sum().backward()
    v = torch.tensor(W, requires_grad=True)
    torch.func.grad(lambda x: ((x @ v) ** 2).sum())(torch.tensor(X)).sum().backward()
    close(w.grad, v.grad)


FUSED = {
    "softmax": lambda m, n, x: n.softmax(x, 1),
    "log_softmax": lambda m, n, x: n.log_softmax(x, 0),
    "layer_norm": lambda m, n, x: n.layer_norm(x, (5,), m(X[0]), m(X[1])),
    "gelu": lambda m, n, x: n.gelu(x),
    "gelu tanh": lambda m, n, x: n.gelu(x, approximate="tanh"),
    "cross_entropy": lambda m, n, x: n.cross_entropy(x, m([1, 0, 4]), reduction="none"),
    "cross_entropy mean": lambda m, n, x: n.cross_entropy(x, m([1, 0, 4])),
    "linear": lambda m, n, x: n.linear(x, m(W.T.copy()), m(X[0, :2].copy())),
    "attention": lambda m, n, x: n.scaled_dot_product_attention(
        x[None, None], (2 * x)[None, None], x.exp()[None, None], is_causal=True
    ),
}


@pytest.mark.parametrize("name", FUSED)
def test_fused_ops(name):
    (x, y), (t, s) = both(X), both(T)

    def g(x):
        return FUSED[name](tg.tensor, F, x)

    def h(x):
        return FUSED[name](torch.tensor, torch.nn.functional, x)

    backend = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with backend:
        for a, b in zip(func.jvp(g, (x,), (t,)), torch.func.jvp(h, (y,), (s,)), strict=True):
            close(a, b)
        second = func.jvp(func.grad(lambda x: g(x).square().sum()), (x,), (t,))[1]
        want = torch.func.jvp(torch.func.grad(lambda x: h(x).square().sum()), (y,), (s,))[1]
        close(second, want, 1e-8)


def test_sentences():
    x, t = tg.tensor(X), tg.tensor(T)
    with pytest.raises(RuntimeError, match="one element"):
        func.grad(lambda x: x * 2)(x)
    with pytest.raises(RuntimeError, match="tuples"):
        func.jvp(lambda x: x, x, t)
    with pytest.raises(RuntimeError, match="do not match"):
        func.jvp(lambda x: x, (x,), (t[0],))
    with pytest.raises(RuntimeError, match="changed in place"):
        func.grad(lambda x: x.add_(1).sum())(x)
    with pytest.raises(RuntimeError, match="being traced"):
        func.grad(lambda x: x * x.sum().item())(x)


def test_python_control_flow():
    def g(x):
        return x.sum() if (x > 0).all() else (x * x).sum()

    np.testing.assert_allclose(func.grad(g)(tg.tensor(X)).numpy(), 2 * X)
