"""Schedules beside PyTorch's: every option over sixty steps, alone, chained, one after another."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad as tg
from tensorgrad.optim import lr_scheduler

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
