"""Optimisers and schedules beside torch.optim: fifty steps with every option, states, errors."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad as tg
from tensorgrad import nn, optim, twins
from tensorgrad.optim import lr_scheduler
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
    for i in range(first, first + steps):
        rng = np.random.default_rng(i)
        for j, p in enumerate(params):
            g = rng.standard_normal(p.shape).astype(dtype)
            p.grad = None if (i + j) % 3 == 0 and i else framework.tensor(g)
        optimizer.step()
    return params, optimizer


def close(ours, theirs, rtol=1e-12, atol=1e-14):
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol, atol)


OPTIONS = {
    "SGD": [
        {},
        {"weight_decay": 0.1},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True},
        {"maximize": True},
    ],
    "Adam": [
        {},
        {"weight_decay": 0.1},
        {"amsgrad": True},
        {"betas": (0.5, 0.7), "eps": 1e-3},
        {"maximize": True, "weight_decay": 0.1, "amsgrad": True},
        {"decoupled_weight_decay": True, "weight_decay": 0.1},
    ],
    "AdamW": [
        {},
        {"weight_decay": 0},
        {"weight_decay": 0.3, "betas": (0.9, 0.95)},
        {"amsgrad": True},
        {"maximize": True},
    ],
}
CASES = [(name, options) for name in OPTIONS for options in OPTIONS[name]]
cases = pytest.mark.parametrize(("name", "options"), CASES, ids=str)


@cases
def test_fifty_steps_equal_torch(name, options):
    def make(optim, params):
        return getattr(optim, name)(params, lr=0.03, **options)

    close(run(tg, make)[0], run(torch, make)[0])
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
    for make in (optim.SGD, optim.Adam, optim.AdamW):
        kwargs = {"momentum": 0.9} if make is optim.SGD else {"eps": 1e-3}
        make(params, lr=0.1, **kwargs).step()
        assert params[0].dtype == getattr(tg, dtype)
    assert (params[0].float().detach().numpy() < 0.8).all()


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
    for make in (optim.SGD, optim.Adam, optim.AdamW):
        p = tg.ones(3, requires_grad=True)
        p.grad = tg.full((3,), 2.0)
        make([p], weight_decay=0.1, maximize=True).step()
        assert p.grad.tolist() == [2, 2, 2]


# ---- states


def to_torch(state):
    return {
        "state": {
            i: {k: torch.tensor(v.numpy()) for k, v in entries.items()}
            for i, entries in state["state"].items()
        },
        "param_groups": state["param_groups"],
    }


def from_torch(state):
    return {
        "state": {
            i: {k: v.numpy() for k, v in entries.items() if v is not None}
            for i, entries in state["state"].items()
        },
        "param_groups": state["param_groups"],
    }


@cases
def test_states_travel_both_ways(name, options):
    def make(optim, params):
        groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.07}]
        return getattr(optim, name)(groups, lr=0.03, **options)

    ours, o = run(tg, make, 10)
    theirs, t = run(torch, make, 10)
    mine, other = o.state_dict(), t.state_dict()
    assert [g["params"] for g in mine["param_groups"]] == [[0, 1], [2, 3]]
    used = {i: sorted(k for k, v in e.items() if v is not None) for i, e in other["state"].items()}
    assert {i: sorted(e) for i, e in mine["state"].items()} == {i: k for i, k in used.items() if k}

    here = [p.detach().clone().requires_grad_() for p in ours]  # torch's state, our steps
    o2 = make(optim, here)
    o2.load_state_dict(copy.deepcopy(from_torch(other)))
    there = [p.detach().clone().requires_grad_() for p in theirs]  # our state, torch's steps
    t2 = make(torch.optim, there)
    t2.load_state_dict(to_torch(mine))
    run(tg, o2, 10, params=here, first=10)
    run(torch, t2, 10, params=there, first=10)
    run(torch, t, 10, params=theirs, first=10)
    close(here, theirs)
    close(there, theirs)


def test_a_loaded_state_is_a_copy_in_the_parameters_dtype():
    params, o = run(tg, lambda o, p: o.Adam(p), 2, dtype="float32")
    twin = [p.detach().double().requires_grad_() for p in params]
    o2 = optim.Adam(twin)
    o2.load_state_dict(o.state_dict())
    entry = o2.state[twin[0]]
    assert entry["exp_avg"].dtype == tg.float64 and entry["step"].dtype == tg.float32
    entry["exp_avg"].array[...] = 0
    assert o.state[params[0]]["exp_avg"].array.any()
    assert o.state_dict()["state"][0]["exp_avg"] is o.state[params[0]]["exp_avg"]


def test_states_that_do_not_fit():
    params, o = run(tg, lambda o, p: o.Adam(p), 2, [(3, 5), (7,)])
    state = o.state_dict()
    before = o.state[params[0]]["exp_avg"].tolist()
    with pytest.raises(
        ValueError, match="different number of parameter groups: 1, this optimizer 2"
    ):
        optim.Adam([{"params": params[:1]}, {"params": params[1:]}]).load_state_dict(state)
    with pytest.raises(ValueError, match=r"doesn't match the size .*\[2\] parameters, .* \[1\]"):
        optim.Adam(params[:1]).load_state_dict(state)
    with pytest.raises(ValueError, match=r"exp_avg of parameter 0 has shape \(3, 5\).*\(7,\)"):
        optim.Adam(params[::-1]).load_state_dict(state)
    bad = {**state, "state": {**state["state"], 9: {}}}
    bad["param_groups"] = [{**state["param_groups"][0], "lr": 7.0}]
    with pytest.raises(ValueError, match="has a parameter 9"):
        o.load_state_dict(bad)
    assert o.param_groups[0]["lr"] == 1e-3 and o.state[params[0]]["exp_avg"].tolist() == before


# ---- errors

P = tg.ones(3, requires_grad=True)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda o, p: o.SGD([]), ValueError, "empty parameter list"),
        (lambda o, p: o.SGD(iter([])), ValueError, "empty parameter list"),
        (lambda o, p: o.SGD(p), TypeError, "should be an iterable of Tensors or dicts"),
        (lambda o, p: o.SGD([{"params": {p}}]), TypeError, "list instead"),
        (lambda o, p: o.SGD([3]), TypeError, "can only optimize Tensors"),
        (lambda o, p: o.SGD([p * 2]), ValueError, "can't optimize a non-leaf Tensor"),
        (lambda o, p: o.SGD([{"params": p}, {"params": [p]}]), ValueError, "more than one"),
        (lambda o, p: o.SGD([("a", p), p * 0]), ValueError, "names"),
        (lambda o, p: o.SGD([p], lr=-1), ValueError, "-1"),
        (lambda o, p: o.SGD([p], momentum=-0.5), ValueError, "-0.5"),
        (lambda o, p: o.SGD([p], weight_decay=-2), ValueError, "-2"),
        (lambda o, p: o.SGD([p], nesterov=True), ValueError, "a momentum and zero dampening"),
        (lambda o, p: o.AdamW([p], lr=-1.5), ValueError, "-1.5"),
        (lambda o, p: o.AdamW([p], eps=-1.0), ValueError, "-1.0"),
        (lambda o, p: o.AdamW([p], betas=(1.0, 0.9)), ValueError, "1.0"),
        (lambda o, p: o.AdamW([p], betas=(0.9, -0.1)), ValueError, "-0.1"),
        (lambda o, p: o.AdamW([p], weight_decay=-1), ValueError, "-1"),
        (lambda o, p: o.SGD([p]).add_param_group([p]), TypeError, "must be a dict"),
    ],
)  # fmt: skip
def test_errors_as_in_torch(make, error, message):
    for framework in (tg, torch):
        with pytest.raises(error, match=message):
            make(framework.optim, framework.ones(3, requires_grad=True))


def test_errors_of_our_own():
    with pytest.raises(ValueError, match="SGD: some parameters appear more than once"):
        optim.SGD([P, P])
    with pytest.raises(TypeError, match=r"SGD: parameters in a set .* use a list instead"):
        optim.SGD({P})
    with pytest.raises(ValueError, match="AdamW: lr must be at least 0, it is nan"):
        optim.AdamW([{"params": [P], "lr": math.nan}])
    o = optim.SGD([P])
    with pytest.raises(ValueError, match="lr must be at least 0"):
        o.add_param_group({"params": [tg.ones(2, requires_grad=True)], "lr": -1})
    assert len(o.param_groups) == 1
    P.grad = tg.ones(1)
    with pytest.raises(
        RuntimeError, match=r"a gradient of shape \(1,\) for a parameter of shape \(3,\)"
    ):
        o.step()
    P.grad = tg.ones(3)
    with pytest.raises(TypeError, match="Optimizer has no update"):
        optim.Optimizer([P], {}).step()
    P.grad = None


def test_names_and_repr():
    model = nn.Linear(3, 2)
    o = optim.SGD(model.named_parameters(), lr=0.5)
    assert o.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]
    with pytest.raises(ValueError, match="with names, or all without"):
        o.add_param_group({"params": [P]})
    text = repr(optim.SGD([P], lr=0.5))
    assert text.startswith("SGD (\nParameter Group 0\n    dampening: 0\n    lr: 0.5\n")
    assert "    weight_decay: 0\n)" in text


def test_an_optimizer_of_ones_own():
    class Signs(optim.Optimizer):
        """p <- p - lr sign(g)"""

        def update(self, param, g, group):
            param.array -= group["lr"] * np.sign(g)

    p = tg.zeros(2, requires_grad=True)
    p.grad = tg.tensor([3.0, -2.0])
    Signs([p], {"lr": 0.5}).step()
    assert p.tolist() == [-0.5, 0.5]


def test_step_number_counts_from_one():
    """Mathematics: the first step of Adam has length lr wherever the gradient is not tiny."""
    p, m, v = np.zeros(3), np.zeros(3), np.zeros(3)
    g = np.array([1e-3, -2.0, 5e4])
    options = {"b1": 0.9, "b2": 0.999, "eps": 0.0, "weight_decay": 0.0, "decoupled": True}
    adam(p, g, m, v, step_number=1, lr=0.1, **options)
    np.testing.assert_allclose(p, [-0.1, 0.1, -0.1], rtol=1e-12)


# ---- schedules

SCHEDULES = {
    "LambdaLR": lambda s, o: s.LambdaLR(o, lambda step: 0.9**step),
    "LambdaLR, two": lambda s, o: s.LambdaLR(o, [lambda step: 1 / (step + 1), lambda step: 2.0]),
    "StepLR": lambda s, o: s.StepLR(o, 3),
    "StepLR, gamma": lambda s, o: s.StepLR(o, step_size=2, gamma=0.7),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 7, eta_min=0.01),
}


def two_groups(framework):
    a, b = (framework.ones(3, requires_grad=True) for _ in range(2))
    return framework.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=0.1)


def rates(framework, make, steps=23):
    optimizer = two_groups(framework)
    schedule = make(framework.optim.lr_scheduler, optimizer)
    found = []
    for _ in range(steps):
        assert [g["lr"] for g in optimizer.param_groups] == schedule.get_last_lr()
        found.append(list(schedule.get_last_lr()))
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_equal_torch(name):
    make = SCHEDULES[name]
    np.testing.assert_allclose(rates(tg, make), rates(torch, make), rtol=1e-12, atol=1e-15)


def nanogpt_lr(step, base, warmup, total, least):
    """Up in a line, down a half cosine, then the least rate: the formula of nanoGPT."""
    if step < warmup:
        return base * (step + 1) / (warmup + 1)
    if step > total:
        return least
    return least + 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) * (
        base - least
    )


@given(st.integers(0, 11), st.integers(1, 13), st.floats(0, 0.05))
def test_warmup_cosine(warmup, rest, least):
    total = warmup + rest
    found = rates(tg, lambda s, o: s.WarmupCosineLR(o, warmup, total, least), total + 5)
    expected = [
        [nanogpt_lr(i, b, warmup, total, least) for b in (0.1, 0.5)] for i in range(total + 5)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    assert found[total:] == [[least, least]] * 5  # it does not climb again


@pytest.mark.parametrize("name", [*SCHEDULES, "WarmupCosineLR"])
def test_schedules_go_on_from_their_state(name):
    make = SCHEDULES.get(name, lambda s, o: s.WarmupCosineLR(o, 3, 11, 0.01))
    expected = rates(tg, make)
    for stop in (0, 1, 7):
        o = two_groups(tg)
        schedule = make(lr_scheduler, o)
        for _ in range(stop):
            schedule.step()
        state = json.loads(json.dumps([schedule.state_dict(), o.state_dict()]))
        o2 = two_groups(tg)
        o2.load_state_dict(state[1])
        resumed = make(lr_scheduler, o2)
        resumed.load_state_dict(state[0])
        for lrs in expected[stop:]:
            assert [g["lr"] for g in o2.param_groups] == lrs
            resumed.step()


def test_schedule_from_a_later_step():
    o = two_groups(tg)
    with pytest.raises(KeyError, match=r"StepLR: param_groups\[0\] has no 'initial_lr'"):
        lr_scheduler.StepLR(o, 3, last_epoch=5)
    lr_scheduler.StepLR(o, 3)
    assert lr_scheduler.StepLR(o, 3, last_epoch=5).get_last_lr() == [0.1 * 0.1**2, 0.5 * 0.1**2]
    schedule = lr_scheduler.StepLR(o, 3)
    schedule.step(7)
    assert schedule.last_epoch == 7


def test_schedule_errors():
    o = two_groups(tg)
    with pytest.raises(TypeError, match="StepLR: list is not an Optimizer"):
        lr_scheduler.StepLR([], 3)
    with pytest.raises(ValueError, match="LambdaLR: 1 functions for 2 parameter groups"):
        lr_scheduler.LambdaLR(o, [lambda step: 1.0])
    for warmup, total in ((5, 5), (-1, 5)):
        with pytest.raises(ValueError, match="WarmupCosineLR: 0 <= warmup < total"):
            lr_scheduler.WarmupCosineLR(o, warmup, total)
    assert lr_scheduler.LRScheduler(o).get_last_lr() == [0.1, 0.5]
