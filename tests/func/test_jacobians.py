"""Jacobians, Hessians and linearize beside torch.func: shapes, trees, argnums, refusals."""

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad import autograd, func

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")

RNG = np.random.default_rng(3)
A, B = RNG.normal(size=(2, 3)), RNG.normal(size=(5,))


def compare(mine, theirs):
    if isinstance(theirs, dict):
        assert mine.keys() == theirs.keys()
        for key in theirs:
            compare(mine[key], theirs[key])
    elif isinstance(theirs, (tuple, list)):
        assert len(mine) == len(theirs)
        for a, b in zip(mine, theirs, strict=True):
            compare(a, b)
    else:
        assert tuple(mine.shape) == tuple(theirs.shape)
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-10, atol=1e-12)


def product(lib):
    return lambda x, y: {"outer": (x.sin()[:, :, None] * y).sum(1), "sum": [(x * x).sum()]}


CASES = {
    "one argument": (lambda lib: lambda x, y: x.exp() * y[0], 0),
    "a tuple of one": (lambda lib: lambda x, y: x.exp() * y[0], (0,)),
    "both": (lambda lib: lambda x, y: (x[:, None] * y[:3]).sum(0), (0, 1)),
    "the last, counted from the end": (lambda lib: lambda x, y: y**2 * x.sum(), -1),
    "a tree of results": (product, 1),
    "a tree of results, both arguments": (product, (1, 0)),
    "a result that does not depend on it": (lambda lib: lambda x, y: y * 2.0, 0),
    "a single number": (lambda lib: lambda x, y: (x * x).sum() * y.prod(), 0),
}


@pytest.mark.parametrize("transform", ["jacrev", "jacfwd"])
@pytest.mark.parametrize("case", CASES)
def test_jacobians(transform, case):
    make, argnums = CASES[case]
    mine = getattr(func, transform)(make(tg), argnums=argnums)(tg.tensor(A), tg.tensor(B))
    theirs = torch.func.jacrev(make(torch), argnums=argnums)(torch.tensor(A), torch.tensor(B))
    compare(mine, theirs)  # PyTorch's jacfwd gives zeros for an argnums counted from the end


@pytest.mark.parametrize("transform", ["jacrev", "jacfwd"])
def test_trees_of_arguments(transform):
    def run(lib):
        def f(p):
            return {"y": lib.tanh(p["w"] @ p["b"][:3]), "s": p["b"].sum()}

        return getattr(lib.func, transform)(f)({"w": lib.tensor(A), "b": lib.tensor(B)})

    compare(run(tg), run(torch))


@pytest.mark.parametrize("transform", ["jacrev", "jacfwd"])
def test_aux(transform):
    def run(lib):
        f = getattr(lib.func, transform)(lambda x: (x.sin(), {"twice": x * 2.0}), has_aux=True)
        return f(lib.tensor(B))

    compare(run(tg), run(torch))
    _, aux = getattr(func, transform)(lambda x: (x.sin(), x * 2.0), has_aux=True)(tg.tensor(B))
    assert type(aux) is tg.Tensor


def test_hessians():
    def run(lib, argnums):
        def f(x, y):
            return (x.exp() @ y[:3]).pow(2).sum() + (y**3).sum() * x.sum()

        return lib.func.hessian(f, argnums)(lib.tensor(A), lib.tensor(B))

    for argnums in (0, 1, (0, 1)):
        compare(run(tg, argnums), run(torch, argnums))


def test_hvp_is_a_row_of_the_hessian_times_t():
    def f(x, y):
        return (x.exp() @ y[:3]).pow(2).sum() + (y**3).sum() * x.sum()

    x, y, s, t = (tg.tensor(v) for v in (A, B, A[::-1].copy(), B[::-1].copy()))
    (xx, xy), (yx, yy) = func.hessian(f, (0, 1))(x, y)
    hx, hy = func.hvp(f, (x, y), (s, t))
    xx, xy, yx, flat = xx.reshape(6, 6), xy.reshape(6, 5), yx.reshape(5, 6), s.reshape(-1)
    np.testing.assert_allclose(hx.numpy().reshape(-1), (xx @ flat + xy @ t).numpy())
    np.testing.assert_allclose(hy.numpy(), (yx @ flat + yy @ t).numpy())
    alone = func.hvp(lambda x: f(x, y), (x,), (s,))
    np.testing.assert_allclose(
        alone.numpy(), func.hvp(lambda x, k: f(x, k), (x, y), (s, 0 * t))[0].numpy()
    )
    with pytest.raises(RuntimeError, match="hvp: primals and tangents must be tuples"):
        func.hvp(f, x, s)
    with pytest.raises(RuntimeError, match="returns one element"):
        func.hvp(lambda x: x * x, (x,), (s,))


def test_jacobians_nest():
    x, y = tg.tensor(B), torch.tensor(B)

    def f(x):
        return (x[:2] * x[1:3]).exp() * x.sum()

    for one in ("jacrev", "jacfwd"):
        for two in ("jacrev", "jacfwd"):
            compare(
                getattr(func, one)(getattr(func, two)(f))(x),
                getattr(torch.func, one)(getattr(torch.func, two)(f))(y),
            )
    compare(func.grad(lambda x: func.jacrev(f)(x).pow(2).sum())(x),
            torch.func.grad(lambda x: torch.func.jacrev(f)(x).pow(2).sum())(y))  # fmt: skip


def test_jacobians_are_recorded_as_far_as_tensors_below_are():
    w = tg.tensor(2.0, dtype=tg.float64, requires_grad=True)
    jacobian = func.jacrev(lambda x: (x * w) ** 2)(tg.tensor(B))
    jacobian.sum().backward()
    np.testing.assert_allclose(w.grad.item(), (4 * 2 * B).sum())


def test_empty_and_scalar_sides():
    empty = tg.zeros(0, 3, dtype=tg.float64)
    for transform in (func.jacrev, func.jacfwd):
        assert transform(lambda x: x * 2.0)(empty).shape == (0, 3, 0, 3)
        assert transform(lambda x: x.sum(0))(empty).shape == (3, 0, 3)
        assert transform(lambda x: x[:, None] * 2.0)(tg.zeros(2, 0)).shape == (2, 1, 0, 2, 0)
        assert transform(lambda x: x * 3.0)(tg.tensor(1.0)).item() == 3.0


def test_dtypes_stay():
    x = tg.ones(3)
    for transform in (func.jacrev, func.jacfwd, lambda f: func.hessian(lambda x: f(x).sum())):
        assert transform(tg.sin)(x).dtype == tg.float32


def test_refusals():
    x = tg.ones(3)
    for name in ("jacrev", "jacfwd"):
        with pytest.raises(
            RuntimeError, match=f"{name}: argnums 1 is out of range for 1 arguments"
        ):
            getattr(func, name)(tg.sin, 1)(x)
    with pytest.raises(RuntimeError, match="jacrev: a tensor of int64 has no derivative"):
        func.jacrev(lambda x: tg.argmax(x))(x)
    with pytest.raises(RuntimeError, match="jacfwd: a tensor of int64 has no derivative"):
        func.jacfwd(lambda x: x * 2.0)(tg.arange(3))


def test_linearize():
    calls = []

    def f(p):
        calls.append(0)
        return {"y": tg.tanh(p["w"] @ p["b"][:3]), "s": (p["b"] ** 2).sum(), "c": tg.ones(2)}

    point = {"w": tg.tensor(A), "b": tg.tensor(B)}
    value, push = func.linearize(f, point)
    for _ in range(3):
        direction = {"w": tg.tensor(RNG.normal(size=A.shape)), "b": tg.tensor(RNG.normal(size=5))}
        compare(push(direction), func.jvp(f, (point,), (direction,))[1])
    assert len(calls) == 4  # once, and jvp's three
    compare(value, f(point))
    with pytest.raises(RuntimeError, match=r"linearize: tangents of shapes .* do not match"):
        push({"w": tg.ones(2), "b": tg.ones(5)})
    _, push = func.linearize(lambda x, y: x * y, tg.tensor(B), tg.tensor(B))
    compare(push(tg.tensor(B), tg.tensor(B)), torch.tensor(2 * B * B))


def test_linearize_inside_transforms():
    t = tg.tensor(B[::-1].copy())

    def along(x):
        return func.linearize(tg.sin, x)[1](t).sum()

    np.testing.assert_allclose(func.grad(along)(tg.tensor(B)).numpy(), -np.sin(B) * B[::-1])


# ---- the older names


def test_autograd_functional():
    def f(x, y):
        return (x.exp() @ y[:3]).pow(2).sum() + (y**3).sum() * x.sum()

    def g(x, y):
        return x.sin().sum(0), y * x.sum()

    def run(lib):
        F = lib.autograd.functional
        xs, vs = (lib.tensor(A), lib.tensor(B)), (lib.tensor(A * 2), lib.tensor(B * 3))
        first, second = lib.tensor(A[0]), lib.tensor(B)
        return [
            F.jacobian(g, xs), F.jacobian(lambda x: x.sin(), xs[0]), F.hessian(f, xs),
            F.hessian(lambda x: (x**3).sum(), xs[1]), F.vjp(g, xs, (first, second)), F.vjp(f, xs),
            F.jvp(g, xs, vs), F.hvp(f, xs, vs), F.vhp(f, xs, vs), F.hvp(lambda x: (x**3).sum(),
            xs[1], vs[1]),
        ]  # fmt: skip

    for mine, theirs in zip(run(tg), run(torch), strict=True):
        compare(mine, theirs)
    F = autograd.functional
    x = tg.tensor(B, requires_grad=True)
    assert not F.jacobian(tg.sin, x).requires_grad
    assert F.jacobian(tg.sin, x, create_graph=True).requires_grad
    compare(
        F.jacobian(tg.sin, x.detach(), strategy="forward-mode"), torch.diag(torch.tensor(B).cos())
    )
    with pytest.raises(RuntimeError, match="v may be left out only where there is a single elem"):
        F.vjp(tg.sin, x)
    with pytest.raises(RuntimeError, match="hessian: the function must return one element"):
        F.hessian(tg.sin, x)
    with pytest.raises(ValueError, match="strategy must be one of reverse-mode, forward-mode"):
        F.jacobian(tg.sin, x, strategy="sideways")
