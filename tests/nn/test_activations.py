"""Activations beside torch.nn's: outputs and slopes at kinks and far out, in place, errors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad as tg
from tensorgrad import nn
from tests.ops.compare import assert_same, outcome

F, TF = nn.functional, torch.nn.functional

PLAIN = {
    "CELU": lambda nn: nn.CELU(2.0),
    "ELU": lambda nn: nn.ELU(2.0),
    "SELU": lambda nn: nn.SELU(),
    "LeakyReLU": lambda nn: nn.LeakyReLU(0.1),
    "Hardtanh": lambda nn: nn.Hardtanh(-1.0, 2.0),
    "ReLU6": lambda nn: nn.ReLU6(),
    "Threshold": lambda nn: nn.Threshold(0.5, -2.0),
    "Hardswish": lambda nn: nn.Hardswish(),
    "Hardshrink": lambda nn: nn.Hardshrink(),
    "Softshrink": lambda nn: nn.Softshrink(1.0),
    "SiLU": lambda nn: nn.SiLU(),
    "Mish": lambda nn: nn.Mish(),
    "Softplus": lambda nn: nn.Softplus(2.0, 5.0),
    "LogSigmoid": lambda nn: nn.LogSigmoid(),
    "Softsign": lambda nn: nn.Softsign(),
    "Tanhshrink": lambda nn: nn.Tanhshrink(),
    "Hardsigmoid": lambda nn: nn.Hardsigmoid(),
}
ALONG = {
    "Softmin": lambda nn: nn.Softmin(dim=1),
    "GLU": lambda nn: nn.GLU(),
    "GLU of rows": lambda nn: nn.GLU(dim=0),
    "PReLU": lambda nn: nn.PReLU(),
    "PReLU by channel": lambda nn: nn.PReLU(6, init=0.5),
}
MORE = {
    "CELU": lambda nn: nn.CELU(inplace=True),
    "ELU": lambda nn: nn.ELU(),
    "SELU": lambda nn: nn.SELU(inplace=True),
    "LeakyReLU": lambda nn: nn.LeakyReLU(inplace=True),
    "Hardtanh": lambda nn: nn.Hardtanh(-2, 2, True),
    "ReLU6": lambda nn: nn.ReLU6(True),
    "Hardsigmoid": lambda nn: nn.Hardsigmoid(True),
    "Hardswish": lambda nn: nn.Hardswish(True),
    "Mish": lambda nn: nn.Mish(True),
    "SiLU": lambda nn: nn.SiLU(True),
    "Softplus": lambda nn: nn.Softplus(),
    "Threshold": lambda nn: nn.Threshold(1, 2, True),
}
KINKS = np.array(
    [-np.inf, -1e3, -6, -3, -1, -0.5, -0.0, 0, 0.5, 1, 2, 2.5, 3, 6, 200, 1e3, np.inf, np.nan]
)


def slopes(t, module, x, order=1):
    """The output, and its derivatives up to an order."""
    x = t.tensor(x, requires_grad=True)
    out = [module(x)]
    for _ in range(order):
        if not out[-1].requires_grad:
            return [*out, t.zeros_like(x)]
        grad = t.autograd.grad(out[-1].sum(), x, create_graph=True, allow_unused=True)[0]
        out.append(t.zeros_like(x) if grad is None else grad)
    return out


@pytest.mark.parametrize("name", PLAIN)
def test_values_and_slopes_at_kinks_and_far_out(name):
    mine, theirs = (slopes(t, PLAIN[name](t.nn), KINKS) for t in (tg, torch))
    if name == "Softsign":  # PyTorch's slope is inf / inf at infinity, ours its limit
        theirs[1] = torch.where(torch.tensor(np.isinf(KINKS)), torch.zeros(()).double(), theirs[1])
    assert_same(mine, theirs, rtol=1e-7 if name == "Hardsigmoid" else 1e-12)


@pytest.mark.parametrize("name", sorted(set(PLAIN) - {"Hardsigmoid"}))
def test_curvature_at_kinks(name):
    """Where PyTorch's is a number: not at x = 1000 for Mish, at the threshold for Softplus."""
    at = KINKS[np.isfinite(KINKS)]
    if name == "Mish":
        at = at[at < 1e3]
    if name == "Softplus":
        at = at[at != 2.5]
    mine, theirs = (slopes(t, PLAIN[name](t.nn), at, order=2) for t in (tg, torch))
    assert_same(mine, theirs, rtol=1e-11)


@given(st.floats(-700, 700), st.sampled_from(sorted(PLAIN)))
def test_single_precision_is_close_to_double(x, name):
    """No cancellation and no overflow: within a few roundings of the numbers involved."""
    module = PLAIN[name](nn)
    exact = slopes(tg, module, np.float64(np.float32(x)))
    for a, b in zip(slopes(tg, module, np.float32(x)), exact, strict=True):
        assert a.item() == pytest.approx(b.item(), rel=2e-6, abs=2e-7 * max(1, abs(x)))


@pytest.mark.parametrize("name", PLAIN)
def test_an_infinite_gradient_is_not_spread(name):
    """g = inf gives no NaN where the slope is 0, as `0 * inf` would."""
    x = tg.tensor([-1e3, 1e3], requires_grad=True)
    y = PLAIN[name](nn)(x)
    (mine,) = tg.autograd.grad(y, x, tg.full_like(y, float("inf")))
    z = torch.tensor([-1e3, 1e3], requires_grad=True)
    (theirs,) = torch.autograd.grad(PLAIN[name](torch.nn)(z), z, torch.full((2,), torch.inf))
    flat = ~np.isnan(theirs.numpy())
    assert np.array_equal(mine.numpy()[flat], theirs.numpy()[flat])


@pytest.mark.parametrize("name", [*PLAIN, *ALONG])
@pytest.mark.parametrize("shape", [(4, 6), (2, 6, 8), (2, 6, 0)])
def test_modules(name, shape):
    make = (PLAIN | ALONG)[name]
    ours, theirs = make(nn).double(), make(torch.nn).double()
    assert repr(ours) == repr(theirs)
    theirs.load_state_dict({k: torch.tensor(v.numpy() * 2) for k, v in ours.state_dict().items()})
    ours.load_state_dict(theirs.state_dict())
    if name == "Softmin" and not all(shape):
        return
    x = np.random.default_rng(5).uniform(-4, 4, shape)
    for mode in (True, False):
        results = []
        for t, module in ((tg, ours.train(mode)), (torch, theirs.train(mode))):
            y = t.tensor(x, requires_grad=True)
            out = module(y)
            g = t.tensor(np.random.default_rng(6).uniform(1, 2, tuple(out.shape)))
            parts = t.autograd.grad(out, [y, *module.parameters()], g)
            results.append([out, *parts])
        assert_same(*results, rtol=1e-7 if name == "Hardsigmoid" else 1e-12)


@pytest.mark.parametrize("name", MORE)
def test_reprs(name):
    assert repr(MORE[name](nn)) == repr(MORE[name](torch.nn))


IN_PLACE = {
    "celu": (2.0,), "elu": (2.0,), "selu": (), "leaky_relu": (0.1,), "hardtanh": (-1.0, 2.0),
    "relu6": (), "hardsigmoid": (), "hardswish": (), "silu": (), "mish": (),
    "threshold": (0.5, 7.0),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place(name):
    """The same numbers in the same memory, and the history of the change."""
    args, x = IN_PLACE[name], np.linspace(-4, 7, 23)
    results = []
    for t, f in ((tg, F), (torch, TF)):
        leaf = t.tensor(x, requires_grad=True)
        y = leaf * 2
        out = getattr(f, name)(y, *args, inplace=True)
        assert out is y
        results.append([y, *t.autograd.grad((y * y).sum(), leaf)])
    assert_same(*results, rtol=1e-7)
    leaf = tg.tensor(x, requires_grad=True)
    with pytest.raises(RuntimeError, match="a leaf that requires grad"):
        getattr(F, name)(leaf, *args, inplace=True)


BY_NAME = dict.fromkeys(("celu_", "elu_", "selu_", "leaky_relu_", "hardtanh_"), ())
BY_NAME["threshold_"] = (0.5, 7.0)


@pytest.mark.parametrize("name", BY_NAME)
def test_in_place_by_name(name):
    args = BY_NAME[name]
    x, y = tg.linspace(-3, 3, 7), torch.linspace(-3, 3, 7)
    assert getattr(F, name)(x, *args) is x
    assert_same([x], [getattr(TF, name)(y, *args)], rtol=1e-6)
    assert not hasattr(tg, name) or getattr(tg, name) is getattr(F, name)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("name", PLAIN)
def test_integers(name, dtype):
    """Most refuse them; a piece of a line keeps them; a quotient makes floats."""
    mine, theirs = (
        outcome(lambda t=t: PLAIN[name](t.nn)(t.arange(4).to(getattr(t, dtype))))
        for t in (tg, torch)
    )
    if isinstance(theirs, type):
        assert mine is RuntimeError and issubclass(theirs, RuntimeError)
    else:
        assert_same([mine], [theirs], rtol=1e-6)


def test_top_level_names():
    x = tg.tensor([-2.0, 0.3, 2.0])
    assert tg.celu(x).equal(F.celu(x)) and tg.selu(x).equal(F.selu(x))
    assert x.hardshrink().equal(tg.hardshrink(x)) and tg.threshold(x, 1, 0).tolist() == [0, 0, 2]
    assert x.prelu(tg.tensor(0.5)).tolist() == [-1, pytest.approx(0.3), 2]
    assert tg.bilinear is not F.bilinear and tg.linear is not F.linear  # constructors of ops
    for name in ("silu", "elu", "mish", "hardtanh"):
        assert not hasattr(x, name) and not hasattr(torch.ones(1), name)


ERRORS = {
    "celu of 0": (RuntimeError, lambda t, F, x: F.celu(x, 0.0), "alpha"),
    "hardtanh crossed": (ValueError, lambda t, F, x: F.hardtanh(x, 2.0, 1.0), "min_val"),
    "softshrink": (RuntimeError, lambda t, F, x: F.softshrink(x, -1.0), "lambd"),
    "glu odd": (RuntimeError, lambda t, F, x: F.glu(x), "even size along dim -1"),
    "glu 0-d": (RuntimeError, lambda t, F, x: F.glu(x.sum()), "0-d"),
    "glu dim": (IndexError, lambda t, F, x: F.glu(x, 2), "dim 2 is out of range"),
    "glu ints": (RuntimeError, lambda t, F, x: F.glu(t.arange(4)), "int64"),
    "prelu dtype": (RuntimeError, lambda t, F, x: F.prelu(x, t.ones(1).double()), "float64"),
    "prelu 2-d": (RuntimeError, lambda t, F, x: F.prelu(x, t.ones(5, 1)), "one dim at most"),
    "prelu channels": (RuntimeError, lambda t, F, x: F.prelu(x, t.ones(2)), "2 weights for the 5"),
    "prelu vector": (RuntimeError, lambda t, F, x: F.prelu(x[0], t.ones(5)), "for the 1 channels"),
    "module crossed": (AssertionError, lambda t, F, x: t.nn.Hardtanh(1.0, 1.0), "above min_val"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    kind, call, words = ERRORS[name]
    with pytest.raises(kind, match=words):
        call(tg, F, tg.ones(3, 5))
    with pytest.raises(kind):
        call(torch, TF, torch.ones(3, 5))


def test_prelu_of_a_scalar_and_of_a_vector():
    for shape in ((), (7,)):
        x = np.linspace(-1, 1, 7)[: int(np.prod(shape, dtype=int))].reshape(shape)
        for weight in ((), (1,)):
            mine, theirs = (
                f.prelu(t.tensor(x), t.full(weight, 0.5, dtype=t.float64))
                for t, f in ((tg, F), (torch, TF))
            )
            assert_same([mine], [theirs])
