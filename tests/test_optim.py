"""Optimisers beside torch.optim: fifty steps with every option, kernels, groups, closures."""

import math
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad import nn, optim, twins
from tensorgrad.optim.adam import adam
from tensorgrad.optim.blocks import BLOCK, blocks

SHAPES = [(3, 5), (7,), (), (2, 0, 3)]


@pytest.fixture
def formulas(monkeypatch):
    """Without kernels."""
    monkeypatch.setattr(twins, "enabled", False)


def parameters(framework, shapes=SHAPES, dtype="float64"):
    rng = np.random.default_rng(11)
    make = framework.tensor
    return [make(rng.standard_normal(s).astype(dtype), requires_grad=True) for s in shapes]


def run(framework, make, steps=50, shapes=SHAPES, dtype="float64", params=None, first=0):
    """Steps with drawn gradients; every third time one of them is missing."""
    params = parameters(framework, shapes, dtype) if params is None else params
    optimizer = make(framework.optim, params) if callable(make) else make
    shapes = tuple(tuple(p.shape) for p in params)
    for i in range(first, first + steps):
        for j, (p, g) in enumerate(zip(params, drawn(i, shapes, dtype), strict=True)):
            p.grad = None if (i + j) % 3 == 0 and i else framework.tensor(g)
        optimizer.step()
    return params, optimizer


@cache
def drawn(i, shapes, dtype):
    """The gradients of step i."""
    rng = np.random.default_rng(i)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def close(ours, theirs, rtol=1e-12, atol=1e-14):
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol, atol)


OPTIONS = {
    "SGD": {
        "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1, "nesterov": True, "maximize": True,
    },
    "Adam": {
        "betas": (0.5, 0.7), "eps": 1e-3, "weight_decay": 0.1, "amsgrad": True, "maximize": True,
        "decoupled_weight_decay": True,
    },
    "AdamW": {
        "betas": (0.5, 0.7), "eps": 1e-3, "weight_decay": 0, "amsgrad": True, "maximize": True,
    },
    "RMSprop": {
        "alpha": 0.7, "eps": 1e-3, "weight_decay": 0.1, "momentum": 0.9, "centered": True,
        "maximize": True,
    },
    "Adagrad": {
        "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3,
        "maximize": True,
    },
    "Lion": {"betas": (0.5, 0.7), "weight_decay": 0.1, "maximize": True},
}  # fmt: skip
"""Every option of every optimiser of PyTorch, with a value unlike the default."""


def combinations(name):
    """Every subset of the options, each switched on or left as it is."""
    names = list(OPTIONS[name])
    for chosen in product([False, True], repeat=len(names)):
        options = {n: OPTIONS[name][n] for n, on in zip(names, chosen, strict=True) if on}
        if options.get("nesterov") and ("momentum" not in options or "dampening" in options):
            continue
        yield options


def with_all(name):
    """None of the options, each alone, and as many as go together."""
    found = list(combinations(name))
    most = max(map(len, found))
    return [o for o in found if len(o) < 2 or len(o) == most or (len(o) == 2 and "nesterov" in o)]


NAMES = list(OPTIONS)
CASES = [(name, options) for name in NAMES for options in with_all(name)]
cases = pytest.mark.parametrize(("name", "options"), CASES, ids=str)


class Lion(torch.optim.Optimizer):
    """Algorithm 2 of Chen et al. 2023, line by line: what PyTorch would have."""

    def __init__(self, params, lr, betas=(0.9, 0.99), weight_decay=0.0, maximize=False):
        options = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, options)

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            (b1, b2), lr = group["betas"], group["lr"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                g = -p.grad if group["maximize"] else p.grad
                m = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                c = b1 * m + (1 - b1) * g
                p -= lr * (torch.sign(c) + group["weight_decay"] * p)
                m.copy_(b2 * m + (1 - b2) * g)


@pytest.fixture(autouse=True)
def lion_in_torch(monkeypatch):
    monkeypatch.setattr(torch.optim, "Lion", Lion, raising=False)


@pytest.mark.parametrize("name", NAMES)
def test_fifty_steps_with_every_option_on_and_off(name):
    for options in combinations(name):

        def make(optim, params, options=options):
            return getattr(optim, name)(params, lr=0.03, **options)

        close(run(tg, make)[0], run(torch, make)[0])


@cases
def test_float32_stays_float32(name, options):
    def make(optim, params):
        return getattr(optim, name)(params, lr=0.03, **options)

    ours, theirs = run(tg, make, dtype="float32")[0], run(torch, make, dtype="float32")[0]
    assert all(p.dtype == tg.float32 for p in ours)
    close(ours, theirs, 1e-6, 1e-6)


@cases
def test_long_and_strided_parameters(name, options, formulas):
    """Blocks of a long array, and an array that is not contiguous, against torch."""
    n = 2 * BLOCK + 7

    def make(optim, params):
        return getattr(optim, name)(params, lr=0.03, **options)

    ours, theirs = (run(f, make, 3, [(n,), (53, 47)])[0] for f in (tg, torch))
    close(ours, theirs, 1e-11)
    params = parameters(tg, [(n,), (47, 53)])
    params[1] = nn.Parameter(params[1].detach().T)
    others = [torch.tensor(p.detach().numpy(), requires_grad=True) for p in params]
    close(run(tg, make, 3, params=params)[0], run(torch, make, 3, params=others)[0], 1e-11)


def test_blocks_cover_everything_once():
    for shape in [(), (3, 0), (7,), (BLOCK,), (BLOCK + 1,), (3, BLOCK)]:
        x = np.zeros(shape)
        parts = list(blocks(x, x))
        for a, b in parts:
            assert a is b or np.shares_memory(a, b) or not a.size
            a += 1
        assert (x == 1).all() and sum(a.size for a, _ in parts) == x.size
    strided = np.zeros((211, BLOCK // 100)).T
    assert [a is strided for (a,) in blocks(strided)] == [True]


# ---- the kernel


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_kernel_equals_the_formula(dtype):
    """Two thousand elements and more go to the compiled twin; fused=False keeps the formula."""
    if not twins.enabled:
        pytest.skip("kernels are switched off")
    shapes = [(twins.WORTH + 3,), (101, 103)]

    def made(fused):
        return lambda optim, params: optim.AdamW(params, lr=0.03, betas=(0.9, 0.95), fused=fused)

    compiled = run(tg, made(None), 20, shapes, dtype)[0]
    formula = run(tg, made(False), 20, shapes, dtype)[0]
    rtol = 1e-12 if dtype == "float64" else 1e-5
    close(compiled, formula, rtol, rtol)


def test_the_kernel_is_asked(monkeypatch):
    calls = []

    def kernel(*args, **options):
        calls.append(options)
        return False

    monkeypatch.setattr("tensorgrad.optim.adam._kernel", lambda p: kernel)
    monkeypatch.setattr(twins, "WORTH", 0)
    for options in ({}, {"amsgrad": True}, {"fused": False}):
        ours = run(tg, lambda o, p, w=options: o.AdamW(p, **w), 2)[0]
        theirs = run(torch, lambda o, p, w=options: o.AdamW(p, amsgrad=w.get("amsgrad", False)), 2)[
            0
        ]
        close(ours, theirs)  # a kernel that declines leaves the work to the formula
    run(tg, lambda o, p: o.Adam(p, weight_decay=0.1), 2)
    assert len(calls) == 7 and calls[0]["weight_decay"] == 0.01 and calls[-1]["step_number"] == 2


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays(dtype):
    params = [tg.ones(5).to(getattr(tg, dtype)).requires_grad_()]
    params[0].grad = tg.ones(5).to(getattr(tg, dtype))
    for name in NAMES:
        kwargs = {"eps": 1e-3} if "eps" in OPTIONS[name] else {}
        kwargs |= {"momentum": 0.9} if name == "SGD" else {}
        getattr(optim, name)(params, lr=0.1, **kwargs).step()
        assert params[0].dtype == getattr(tg, dtype)
    assert (params[0].float().detach().numpy() < 0.5).all()


@pytest.mark.gpu
@cases
def test_steps_on_the_gpu(name, options):
    def make(optim, params):
        return getattr(optim, name)(params, lr=0.03, **options)

    here = run(tg, make, 5)[0]
    there = [p.detach().cuda().requires_grad_() for p in parameters(tg)]
    optimizer = getattr(optim, name)(there, lr=0.03, **options)
    for i in range(5):
        rng = np.random.default_rng(i)
        for j, p in enumerate(there):
            g = tg.tensor(rng.standard_normal(p.shape))
            p.grad = None if (i + j) % 3 == 0 and i else g.cuda()
        optimizer.step()
    close(here, [p.cpu() for p in there], 1e-11)


# ---- groups, gradients, closures


def test_groups_have_their_own_options():
    def make(optim, params):
        o = optim.AdamW(
            [{"params": params[:1], "lr": 0.1}, {"params": params[1], "weight_decay": 0.5}], lr=0.01
        )
        o.add_param_group({"params": params[2:], "betas": (0.5, 0.6)})
        return o

    ours, o = run(tg, make)
    theirs, t = run(torch, make)
    close(ours, theirs)
    for mine, other in zip(o.param_groups, t.param_groups, strict=True):
        assert {k: v for k, v in mine.items() if k != "params"}.items() <= other.items()


def test_a_model_trains_as_in_torch():
    tg.manual_seed(5)
    torch.manual_seed(5)
    ours = nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 2)).double()
    theirs = torch.nn.Sequential(
        torch.nn.Linear(3, 7), torch.nn.Tanh(), torch.nn.Linear(7, 2)
    ).double()
    o, t = optim.AdamW(ours.parameters(), lr=0.01), torch.optim.AdamW(theirs.parameters(), lr=0.01)
    x, y = np.random.default_rng(0).standard_normal((2, 11, 3))[..., :3]
    for _ in range(50):
        o.zero_grad()
        loss = nn.functional.mse_loss(ours(tg.tensor(x)), tg.tensor(y[:, :2]))
        loss.backward()
        nn.utils.clip_grad_norm_(ours.parameters(), 0.5)
        o.step()
        t.zero_grad()
        other = torch.nn.functional.mse_loss(theirs(torch.tensor(x)), torch.tensor(y[:, :2]))
        other.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        t.step()
        assert math.isclose(loss.item(), other.item(), rel_tol=1e-10)
    close(ours.parameters(), theirs.parameters(), 1e-9)


def test_zero_grad_and_missing_gradients():
    p, q = (tg.ones(3, requires_grad=True) for _ in range(2))
    o = optim.SGD([p, q], lr=0.5)
    p.sum().backward()
    o.step()
    assert p.tolist() == [0.5] * 3 and q.tolist() == [1.0] * 3
    kept = p.grad.array
    o.zero_grad(set_to_none=False)
    assert p.grad.array is kept and p.grad.tolist() == [0.0] * 3 and q.grad is None
    o.zero_grad()
    assert p.grad is None


def test_closures():
    p = tg.tensor([3.0], requires_grad=True)
    o = optim.SGD([p], lr=0.25)

    def closure():
        o.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    with tg.no_grad():
        assert o.step(closure).item() == 9
    assert p.item() == 1.5 and o.step() is None


def test_steps_are_seen_by_backward():
    p = tg.ones(3, requires_grad=True)
    loss = (p * p).sum()
    loss.backward(retain_graph=True)
    optim.SGD([p], lr=0.1).step()
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_a_gradient_is_not_changed():
    for name in NAMES:
        p = tg.ones(3, requires_grad=True)
        p.grad = tg.full((3,), 2.0)
        getattr(optim, name)([p], weight_decay=0.1, maximize=True).step()
        assert p.grad.tolist() == [2, 2, 2]


def test_step_number_counts_from_one():
    """Mathematics: the first step of Adam has length lr wherever the gradient is not tiny."""
    p, m, v = np.zeros(3), np.zeros(3), np.zeros(3)
    g = np.array([1e-3, -2.0, 5e4])
    options = {"b1": 0.9, "b2": 0.999, "eps": 0.0, "weight_decay": 0.0, "decoupled": True}
    adam(p, g, m, v, step_number=1, lr=0.1, **options)
    np.testing.assert_allclose(p, [-0.1, 0.1, -0.1], rtol=1e-12)
