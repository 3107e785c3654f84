"""What optimisers remember: states to PyTorch and back, copies, parameter groups; their errors."""

import copy
import math

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad import nn, optim
from tests.test_optim import cases, close, lion_in_torch, run

__all__ = ["lion_in_torch"]


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


def test_adagrad_remembers_from_the_beginning():
    """As in PyTorch the sums are there before the first step, and for parameters added later."""

    def make(framework):
        p, q = (framework.ones(n, requires_grad=True) for n in (3, 2))
        o = framework.optim.Adagrad([p], initial_accumulator_value=0.5)
        o.add_param_group({"params": [q]})
        q.grad = framework.ones(2)
        o.step()
        o.step()
        return o

    mine, theirs = (make(f).state_dict()["state"] for f in (tg, torch))
    for i in (0, 1):
        assert mine[i]["sum"].tolist() == theirs[i]["sum"].tolist()
        assert mine[i]["step"].item() == theirs[i]["step"].item()


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
        (lambda o, p: o.RMSprop([p], alpha=-0.1), ValueError, "-0.1"),
        (lambda o, p: o.RMSprop([p], momentum=-0.1), ValueError, "-0.1"),
        (lambda o, p: o.RMSprop([p], eps=-0.1), ValueError, "-0.1"),
        (lambda o, p: o.Adagrad([p], lr=-0.1), ValueError, "-0.1"),
        (lambda o, p: o.Adagrad([p], lr_decay=-0.1), ValueError, "-0.1"),
        (lambda o, p: o.Adagrad([p], initial_accumulator_value=-0.1), ValueError, "-0.1"),
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
