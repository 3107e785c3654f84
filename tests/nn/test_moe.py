"""Mixtures of experts beside loops over tokens, transformers' balancing loss, and a dense MLP."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.nn import Expert, MixtureOfExperts, SwiGLU, balance_loss
from tensorgrad.optim import AdamW
from tests.ops.compare import few

C = 5


def numbers(*shape, seed=4):
    return np.random.default_rng(seed).standard_normal(shape)


def mixture(E, k, capacity_factor=None, seed=0):
    tg.manual_seed(seed)
    moe = MixtureOfExperts(C, E, k, capacity_factor, lambda: Expert(C, 7)).double()
    nn.init.normal_(moe.router.score.weight)
    return moe


def by_hand(moe, x):
    """Token by token in PyTorch: the output and the gradients by name, and who was dropped."""
    weights = {
        name: torch.tensor(p.detach().numpy(), requires_grad=True)
        for name, p in moe.named_parameters()
    }
    x = torch.tensor(x, requires_grad=True)
    E, k, N = len(moe.experts), moe.router.top_k, len(x)
    p = (x @ weights["router.score.weight"].T).softmax(-1)
    gates, chosen = p.topk(k)
    if k > 1:
        gates = gates / gates.sum(-1, keepdim=True)
    factor = moe.capacity_factor
    room = [N if factor is None else math.ceil(factor * k * N / E)] * E
    rows, dropped = [0 * x[n] for n in range(N)], 0
    for choice in range(k):
        for n in range(N):
            e = int(chosen[n, choice])
            if not room[e]:
                dropped += 1
                continue
            room[e] -= 1
            w = {
                name: weights[f"experts.{e}.{name}"]
                for name, _ in moe.experts[e].named_parameters()
            }
            inner = torch.nn.functional.gelu(
                x[n] @ w["c_fc.weight"].T + w["c_fc.bias"], approximate="tanh"
            )
            y = inner @ w["c_proj.weight"].T + w["c_proj.bias"]
            rows[n] = rows[n] + gates[n, choice] * y
    out = torch.stack(rows)
    out.backward(torch.tensor(numbers(*out.shape, seed=9)))
    grads = {name: p.grad for name, p in weights.items()}
    return {"out": out.detach(), "x": x.grad} | grads, dropped


@pytest.mark.parametrize("E, k", [(1, 1), (3, 1), (4, 2), (3, 3)])
@pytest.mark.parametrize("factor", [None, 0.7, 1.25])
def test_outputs_and_gradients(E, k, factor):
    moe, numbers_in = mixture(E, k, factor), numbers(11, C)
    x = tg.tensor(numbers_in, requires_grad=True)
    out = moe(x)
    out.backward(tg.tensor(numbers(11, C, seed=9)))
    theirs, dropped = by_hand(moe, numbers_in)
    ours = {"out": out.detach(), "x": x.grad} | {n: p.grad for n, p in moe.named_parameters()}
    for name, other in theirs.items():
        if other is None or ours[name] is None:  # an expert whom nobody wanted
            assert (other is None or not other.any()) and ours[name] is None, name
        else:
            assert np.allclose(ours[name].array, other.numpy(), rtol=1e-9, atol=1e-12), name
    assert moe.load.dropped == dropped
    assert dropped > 0 if factor == 0.7 else dropped == 0 or factor


def test_one_expert_is_the_dense_mlp():
    tg.manual_seed(1)
    dense = Expert(C)
    for k_and_factor in ((1, None), (1, 1.0)):
        moe = MixtureOfExperts(C, 1, *k_and_factor)
        moe.experts[0].load_state_dict(dense.state_dict())
        x, y = (tg.tensor(numbers(2, 7, C), dtype=tg.float32, requires_grad=True) for _ in "xy")
        a, b = moe(x), dense(y)
        assert np.allclose(a.detach().array, b.detach().array, rtol=1e-6, atol=1e-7)
        dense.zero_grad()
        a.square().sum().backward()
        b.square().sum().backward()
        assert np.allclose(x.grad.array, y.grad.array, rtol=1e-5, atol=1e-6)
        for p, q in zip(moe.experts.parameters(), dense.parameters(), strict=True):
            assert np.allclose(p.grad.array, q.grad.array, rtol=1e-5, atol=1e-5)
        assert moe.balance_loss.item() == 1.0 and moe.load.imbalance == 1.0


@few
@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 13))
def test_the_balancing_loss_is_that_of_transformers(E, k, N):
    """Theirs adds up what ours averages over the k choices, and counts in float32."""
    k = min(k, E)
    moe = mixture(E, k)
    x = tg.tensor(numbers(N, C))
    moe(x)
    logits = torch.tensor(moe.router.score(x).detach().numpy())
    theirs = load_balancing_loss_func((logits,), E, k) / k
    assert math.isclose(moe.balance_loss.item(), theirs.item(), rel_tol=1e-6)
    assert math.isclose(balance_loss(nn.Sequential(moe)).item(), theirs.item(), rel_tol=1e-6)


def test_what_the_load_says():
    moe = mixture(4, 1, 0.5)
    with tg.no_grad():
        moe.router.score.weight[:] = 0
        moe.router.score.weight[2] = 1
    moe(tg.tensor(np.abs(numbers(2, 6, C))))
    load = moe.load
    assert load.wanted.tolist() == [0, 0, 12, 0] and load.served.tolist() == [0, 0, 2, 0]
    assert load.dropped == 10 and load.imbalance == 4.0
    assert math.isclose(load.probability.sum(), 1)
    assert str(load) == "tokens by expert 0.0% 0.0% 100.0% 0.0%; imbalance 4.00; 10 dropped"


def test_tokens_that_find_no_room_get_zeros_and_later_ones_first():
    moe = mixture(2, 1, 0.5)
    with tg.no_grad():
        moe.router.score.weight[:] = 0
        moe.router.score.weight[1] = 1
    out = moe(tg.tensor(np.abs(numbers(8, C)))).detach().array
    assert (out[:2] != 0).all() and (out[2:] == 0).all()


def skewed(weight, steps=80):
    """A run on a mixture whose router begins by sending nearly all to one expert."""
    tg.manual_seed(2)
    moe = MixtureOfExperts(16, 4, 1, None, lambda: Expert(16, 32))
    with tg.no_grad():
        moe.router.score.weight[0, 0] += 2
    optimizer = AdamW(moe.parameters(), lr=2e-2, weight_decay=0)
    rng = np.random.default_rng(3)
    found = []
    for _ in range(steps):
        x = rng.standard_normal((256, 16)).astype(np.float32)
        x[:, 0] = 1  # what the router goes by at first
        loss = (moe(tg.tensor(x)) - tg.tensor(np.sin(x))).square().mean()
        (loss + weight * balance_loss(moe)).backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append((moe.load.imbalance, loss.item()))
    return found


def test_the_balancing_loss_balances():
    """The busiest of four experts falls from 3.95 times the mean to 1.3; without the loss it stays
    where it was."""
    with_it, without = skewed(0.1), skewed(0.0)
    assert with_it[0][0] == without[0][0] > 3.5
    assert np.mean([x for x, _ in with_it[-20:]]) < 1.6
    assert np.mean([x for x, _ in without[-20:]]) > 3.5
    assert with_it[-1][1] < with_it[0][1], "and the task is learned"


def test_experts_of_ones_own():
    moe = MixtureOfExperts(C, 3, 2, expert=lambda: SwiGLU(C, 4))
    assert isinstance(moe.experts[2], SwiGLU) and moe(tg.ones(2, 3, C)).shape == (2, 3, C)
    assert MixtureOfExperts(C, 2).experts[0].c_fc.weight.shape == (4 * C, C)


def test_nothing_to_route():
    moe = mixture(3, 2)
    assert moe(tg.zeros(0, C, dtype=tg.float64)).shape == (0, C) and moe.load.wanted.sum() == 0


@pytest.mark.parametrize(
    "make, told",
    [
        (
            lambda: MixtureOfExperts(C, 2, 3),
            "top_k must lie between 1 and the number of experts, 2",
        ),
        (lambda: MixtureOfExperts(C, 2, 1, 0.0), "capacity_factor must be above 0"),
        (lambda: balance_loss(nn.Linear(2, 2)), "no MixtureOfExperts"),
    ],
)
def test_errors_say_what_is_wrong(make, told):
    with pytest.raises(ValueError, match=told):
        make()
