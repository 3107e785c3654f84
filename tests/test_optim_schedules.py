"""Schedules beside PyTorch's: every option over sixty steps, alone, chained, one after another."""

import functools
import json
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorgrad as tg
from tensorgrad.optim import lr_scheduler


def halving(step):
    return 0.5 ** (step // 5)


SINGLE = {
    "LambdaLR": lambda s, o: s.LambdaLR(o, lambda step: 0.9**step),
    "LambdaLR two": lambda s, o: s.LambdaLR(o, [lambda step: 1 / (step + 1), halving]),
    "MultiplicativeLR": lambda s, o: s.MultiplicativeLR(o, lambda step: 0.95),
    "MultiplicativeLR two": lambda s, o: s.MultiplicativeLR(o, (lambda i: 1 - i / 99, halving)),
    "StepLR": lambda s, o: s.StepLR(o, 3),
    "StepLR gamma": lambda s, o: s.StepLR(o, step_size=2, gamma=0.7),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [5, 3, 3, 41]),
    "MultiStepLR gamma": lambda s, o: s.MultiStepLR(o, (0, 7, 30), gamma=0.7),
    "ConstantLR": lambda s, o: s.ConstantLR(o),
    "ConstantLR factor": lambda s, o: s.ConstantLR(o, factor=0.7),
    "ConstantLR total": lambda s, o: s.ConstantLR(o, 1.0, total_iters=0),
    "LinearLR": lambda s, o: s.LinearLR(o),
    "LinearLR up": lambda s, o: s.LinearLR(o, start_factor=0.2, total_iters=13),
    "LinearLR down": lambda s, o: s.LinearLR(o, 1.0, end_factor=0.0, total_iters=11),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.9),
    "ExponentialLR nothing": lambda s, o: s.ExponentialLR(o, gamma=0.0),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o),
    "PolynomialLR power": lambda s, o: s.PolynomialLR(o, total_iters=17, power=2.5),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 7),
    "CosineAnnealingLR eta_min": lambda s, o: s.CosineAnnealingLR(o, T_max=13, eta_min=0.01),
    "WarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 7),
    "WarmRestarts longer": lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2, eta_min=0.01),
}
CYCLES = {
    "OneCycleLR": {},
    "OneCycleLR epochs": {"total_steps": None, "epochs": 5, "steps_per_epoch": 13},
    "OneCycleLR pct_start": {"pct_start": 0.5},
    "OneCycleLR all up": {"pct_start": 1.0},
    "OneCycleLR all down": {"pct_start": 0.0},
    "OneCycleLR linear": {"anneal_strategy": "linear"},
    "OneCycleLR lr only": {"cycle_momentum": False},
    "OneCycleLR momenta": {"base_momentum": [0.5, 0.6], "max_momentum": 0.7},
    "OneCycleLR factors": {"div_factor": 10.0, "final_div_factor": 7.0},
    "OneCycleLR three": {"three_phase": True},
    "OneCycleLR all": {
        "three_phase": True, "pct_start": 0.4, "anneal_strategy": "linear", "div_factor": 5.0,
        "final_div_factor": 3.0, "base_momentum": 0.1, "max_momentum": [0.2, 0.3],
    },
}  # fmt: skip
for _name, _options in CYCLES.items():
    SINGLE[_name] = functools.partial(
        lambda s, o, options: s.OneCycleLR(o, [0.3, 0.7], **{"total_steps": 61, **options}),
        options=_options,
    )
COMBINED = {
    "Sequential": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1), s.ExponentialLR(o, 0.9), s.CosineAnnealingLR(o, 11)], [5, 20]
    ),
    "Sequential cycles": lambda s, o: s.SequentialLR(
        o, [s.ConstantLR(o, 0.1), s.CosineAnnealingWarmRestarts(o, 5), s.OneCycleLR(o, 0.5, 40)],
        milestones=[7, 23],
    ),
    "Sequential at once": lambda s, o: s.SequentialLR(o, [s.StepLR(o, 5), s.StepLR(o, 7)], [0]),
    "Chained": lambda s, o: s.ChainedScheduler(
        [s.ConstantLR(o, 0.1, 20), s.ExponentialLR(o, 0.9), s.CosineAnnealingLR(o, 11, 0.01)]
    ),
    "Chained otherwise": lambda s, o: s.ChainedScheduler(
        [s.CosineAnnealingLR(o, 11, 0.01), s.ConstantLR(o, 0.1, 20), s.ExponentialLR(o, 0.9)], o
    ),
    "Chained sequence": lambda s, o: s.ChainedScheduler(
        [s.SequentialLR(o, [s.LinearLR(o, 0.1), s.ExponentialLR(o, 0.9)], [7]), s.StepLR(o, 9)]
    ),
}  # fmt: skip
SCHEDULES = SINGLE | COMBINED
schedules = pytest.mark.parametrize("name", SCHEDULES)


def two_groups(framework, adam=False):
    a, b = (framework.ones(3, requires_grad=True) for _ in range(2))
    make = framework.optim.Adam if adam else framework.optim.SGD
    return make([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=0.1)


def now(optimizer):
    """The lr of each group, and what OneCycleLR changes besides."""
    groups = optimizer.param_groups
    return [g["lr"] for g in groups] + [
        g["betas"][0] if "betas" in g else g["momentum"] for g in groups
    ]


def rates(framework, make, steps=60, adam=False):
    optimizer = two_groups(framework, adam)
    schedule = make(framework.optim.lr_scheduler, optimizer)
    found = []
    for _ in range(steps):
        assert now(optimizer)[:2] == schedule.get_last_lr()
        found.append(now(optimizer))
        optimizer.step()
        schedule.step()
    return found


def close(mine, theirs):
    np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-15)


@schedules
@pytest.mark.parametrize("adam", [False, True])
def test_sixty_steps_equal_torch(name, adam):
    close(rates(tg, SCHEDULES[name], adam=adam), rates(torch, SCHEDULES[name], adam=adam))


@pytest.mark.parametrize("name", SINGLE)
def test_steps_that_do_not_follow_each_other(name):
    """step(epoch): from base_lrs, in PyTorch with a warning."""

    def jumps(framework):
        optimizer = two_groups(framework)
        schedule = SINGLE[name](framework.optim.lr_scheduler, optimizer)
        found = []
        for epoch in (11, 3, None, 30, None, None, 0):
            optimizer.step()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                schedule.step(epoch)
            found.append(now(optimizer))
        return found

    close(jumps(tg), jumps(torch))


@pytest.mark.parametrize("name", [n for n in SINGLE if "OneCycle" not in n])
@pytest.mark.parametrize("last", [0, 4, 6, 20])
def test_going_on_from_last_epoch(name, last):
    """A new schedule on an optimizer whose groups hold what an earlier run left in them."""

    def resumed(framework):
        optimizer = two_groups(framework)
        lrs = framework.optim.lr_scheduler
        first = SINGLE[name](lrs, optimizer)
        for _ in range(last):
            optimizer.step()
            first.step()

        class From:
            """The schedules of PyTorch's module, begun at `last`."""

            def __getattr__(self, kind):
                return functools.partial(getattr(lrs, kind), last_epoch=last)

        second = SINGLE[name](From(), optimizer)
        found = [now(optimizer)]
        for _ in range(20):
            optimizer.step()
            second.step()
            found.append(now(optimizer))
        return found

    close(resumed(tg), resumed(torch))


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

    def make(s, o):
        return s.WarmupCosineLR(o, warmup, total, least)

    found = [r[:2] for r in rates(tg, make, total + 5)]
    expected = [
        [nanogpt_lr(i, b, warmup, total, least) for b in (0.1, 0.5)] for i in range(total + 5)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    assert found[total:] == [[least, least]] * 5  # it does not climb again


@pytest.mark.parametrize("name", [*SCHEDULES, "WarmupCosineLR"])
@pytest.mark.parametrize("adam", [False, True])
def test_schedules_go_on_from_their_state(name, adam):
    """The optimizer's state loaded before the schedule is made, or after."""
    make = SCHEDULES.get(name, lambda s, o: s.WarmupCosineLR(o, 3, 11, 0.01))
    expected = rates(tg, make, 40, adam)
    for stop in (0, 1, 7, 20):
        o = two_groups(tg, adam)
        schedule = make(lr_scheduler, o)
        for _ in range(stop):
            schedule.step()
        state = json.loads(json.dumps([schedule.state_dict(), o.state_dict()]))
        for after in (False, True):
            o2 = two_groups(tg, adam)
            if not after:
                o2.load_state_dict(state[1])
            resumed = make(lr_scheduler, o2)
            resumed.load_state_dict(state[0])
            if after:
                o2.load_state_dict(state[1])
            for lrs in expected[stop:]:
                assert now(o2) == lrs
                resumed.step()


@schedules
def test_states_travel_both_ways(name):
    """PyTorch's state in our schedule and ours in PyTorch's."""
    make = SCHEDULES[name]
    expected = rates(torch, make)
    for source, target in ((tg, torch), (torch, tg)):
        o = two_groups(source)
        schedule = make(source.optim.lr_scheduler, o)
        for _ in range(17):
            o.step()
            schedule.step()
        o2 = two_groups(target)
        second = make(target.optim.lr_scheduler, o2)
        second.load_state_dict(schedule.state_dict())
        o2.load_state_dict(o.state_dict())
        for lrs in expected[17:]:
            close(now(o2), lrs)
            o2.step()
            second.step()


KINDS = [
    lambda s, o: s.StepLR(o, 3, 0.7),
    lambda s, o: s.MultiStepLR(o, [2, 4, 4, 9], 0.7),
    lambda s, o: s.ConstantLR(o, 0.3, 6),
    lambda s, o: s.LinearLR(o, 0.2, 0.8, 7),
    lambda s, o: s.ExponentialLR(o, 0.9),
    lambda s, o: s.PolynomialLR(o, 30, 1.5),
    lambda s, o: s.CosineAnnealingLR(o, 6, 0.01),
    lambda s, o: s.CosineAnnealingWarmRestarts(o, 4, 2),
    lambda s, o: s.LambdaLR(o, lambda step: 0.95**step),
    lambda s, o: s.MultiplicativeLR(o, lambda step: 0.95),
]
several = st.lists(st.integers(0, len(KINDS) - 1), min_size=1, max_size=4)


@given(several)
def test_any_chain(kinds):
    def make(s, o):
        return s.ChainedScheduler([KINDS[k](s, o) for k in kinds])

    close(rates(tg, make, 25), rates(torch, make, 25))


@given(several, st.data())
def test_any_sequence(kinds, data):
    steps = st.lists(
        st.integers(1, 20), unique=True, min_size=len(kinds) - 1, max_size=len(kinds) - 1
    )
    milestones = sorted(data.draw(steps))

    def make(s, o):
        return s.SequentialLR(o, [KINDS[k](s, o) for k in kinds], milestones)

    close(rates(tg, make, 25), rates(torch, make, 25))


def test_combinations_inside_a_sequence_begin_at_their_beginning():
    """Where PyTorch begins at their second step, or cannot go on."""
    o = two_groups(tg)
    s = lr_scheduler
    chain = s.ChainedScheduler([s.ExponentialLR(o, 0.5), s.LinearLR(o, 0.5, total_iters=2)])
    inner = s.SequentialLR(o, [s.ConstantLR(o, 0.5, 9), s.ConstantLR(o, 0.1, 9)], [2])
    outer = s.SequentialLR(o, [chain, inner], [3])
    found = []
    for _ in range(7):
        found.append(outer.get_last_lr()[0])
        o.step()
        outer.step()
    np.testing.assert_allclose(found[:3], [0.1 * 0.5, 0.1 * 0.5 * 0.75, 0.1 * 0.25])
    np.testing.assert_allclose(found[3:], [0.05, 0.05, 0.01, 0.01])


# ---- ReduceLROnPlateau

metrics = st.lists(
    st.sampled_from([3.0, 2.9999, 2.5, 2.0, -1.0, 3.1, math.inf]), min_size=5, max_size=40
)


@settings(max_examples=200)
@given(
    metrics,
    st.fixed_dictionaries(
        {},
        optional={
            "mode": st.sampled_from(["min", "max"]), "factor": st.sampled_from([0.5, 0.9]),
            "patience": st.integers(0, 3), "threshold": st.sampled_from([0.0, 0.1, 1.0]),
            "threshold_mode": st.sampled_from(["rel", "abs"]), "cooldown": st.integers(0, 3),
            "min_lr": st.sampled_from([0.05, [0.01, 0.2]]), "eps": st.sampled_from([0.0, 0.04]),
        },
    ),
)  # fmt: skip
def test_plateaus(values, options):
    def reduced(framework):
        optimizer = two_groups(framework)
        schedule = framework.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, **{"patience": 2, **options}
        )
        found = []
        for i, value in enumerate(values):
            optimizer.step()
            schedule.step(framework.tensor(value) if i % 2 else value)
            assert schedule.get_last_lr() == [g["lr"] for g in optimizer.param_groups]
            found.append([*schedule.get_last_lr(), schedule.best, schedule.num_bad_epochs])
        return found

    close(reduced(tg), reduced(torch))


def test_a_plateau_goes_on_from_its_state():
    values = [3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0]

    def run(schedule, values):
        for value in values:
            schedule.step(value)
        return schedule.get_last_lr(), schedule.cooldown_counter, schedule.in_cooldown

    def make(framework):
        optimizer = two_groups(framework)
        plateau = framework.optim.lr_scheduler.ReduceLROnPlateau
        return plateau(optimizer, patience=1, cooldown=3), optimizer

    whole = run(make(tg)[0], values)
    for source, target in ((tg, tg), (tg, torch), (torch, tg)):
        for stop in (0, 4, 6):
            (first, o), (second, o2) = make(source), make(target)
            run(first, values[:stop])
            second.load_state_dict(first.state_dict())
            o2.load_state_dict(o.state_dict())
            assert run(second, values[stop:]) == whole
    o = two_groups(tg)
    schedule = lr_scheduler.ReduceLROnPlateau(o, patience=0, min_lr=[0.01, 0.02])
    o.add_param_group({"params": [tg.ones(2, requires_grad=True)]})
    schedule.step(1.0)
    with pytest.raises(RuntimeError, match="2 values of min_lr for 3 parameter groups"):
        schedule.step(1.0)
    schedule = lr_scheduler.ReduceLROnPlateau(two_groups(tg), patience=0)
    schedule.optimizer.add_param_group({"params": [tg.ones(2, requires_grad=True)]})
    schedule.step(1.0)
    schedule.step(1.0)
    np.testing.assert_allclose(schedule.get_last_lr(), [0.01, 0.05, 0.01])


# ---- functions, subclasses, errors


class Decay:
    """A callable that remembers."""

    def __init__(self, rate):
        self.rate, self.calls = rate, 0

    def __call__(self, step):
        self.calls += 1
        return self.rate**step


@pytest.mark.parametrize("kind", ["LambdaLR", "MultiplicativeLR"])
def test_callable_objects_travel_in_the_state(kind):
    states = []
    for framework in (tg, torch):
        o = two_groups(framework)
        schedule = getattr(framework.optim.lr_scheduler, kind)(o, [Decay(0.9), halving])
        for _ in range(3):
            o.step()
            schedule.step()
        states.append(schedule.state_dict())
    assert states[0]["lr_lambdas"] == states[1]["lr_lambdas"] and states[0]["lr_lambdas"][1] is None
    fresh = Decay(0.1)
    getattr(lr_scheduler, kind)(two_groups(tg), [fresh, math.exp]).load_state_dict(states[1])
    assert vars(fresh) == states[0]["lr_lambdas"][0] and fresh.rate == 0.9


def test_a_schedule_of_ones_own():
    """Written as for PyTorch, it runs with both."""

    def made(base):
        class Sawtooth(base):
            def get_lr(self):
                return [lr * (1 + self.last_epoch % 3) for lr in self.base_lrs]

        return lambda s, o: Sawtooth(o)

    close(
        rates(tg, made(lr_scheduler.LRScheduler)),
        rates(torch, made(torch.optim.lr_scheduler.LRScheduler)),
    )
    assert lr_scheduler.LRScheduler(two_groups(tg)).get_last_lr() == [0.1, 0.5]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda s, o: s.StepLR([], 3), TypeError, "is not an Optimizer"),
        (lambda s, o: s.ReduceLROnPlateau([]), TypeError, "is not an Optimizer"),
        (lambda s, o: s.OneCycleLR([], 0.1, 5), TypeError, "is not an Optimizer"),
        (lambda s, o: s.StepLR(o, 3, last_epoch=5), KeyError, "initial_lr"),
        (lambda s, o: s.LambdaLR(o, [halving]), ValueError, "1"),
        (lambda s, o: s.MultiplicativeLR(o, 0.5), TypeError, "lr_lambda should be a function"),
        (lambda s, o: s.ConstantLR(o, 1.5), ValueError, "between 0 and 1"),
        (lambda s, o: s.LinearLR(o, 0.0), ValueError, "greater than 0"),
        (lambda s, o: s.LinearLR(o, 0.5, 1.5), ValueError, "between 0 and 1"),
        (lambda s, o: s.CosineAnnealingWarmRestarts(o, 0), ValueError, "positive integer"),
        (lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 1.5), ValueError, "1.5"),
        (lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, eta_min="1"), ValueError, "eta_min"),
        (lambda s, o: s.CosineAnnealingWarmRestarts(o, 3).step(-1), ValueError, "-1"),
        (lambda s, o: s.OneCycleLR(o, 0.1), ValueError, "total_steps"),
        (lambda s, o: s.OneCycleLR(o, 0.1, epochs=3), ValueError, "steps_per_epoch"),
        (lambda s, o: s.OneCycleLR(o, 0.1, 0), ValueError, "positive integer"),
        (lambda s, o: s.OneCycleLR(o, 0.1, epochs=0, steps_per_epoch=3), ValueError, "epochs"),
        (lambda s, o: s.OneCycleLR(o, 0.1, 5, pct_start=1), ValueError, "float between 0 and 1"),
        (lambda s, o: s.OneCycleLR(o, 0.1, 5, anneal_strategy="sin"), ValueError, "sin"),
        (lambda s, o: s.OneCycleLR(o, [0.1] * 3, 5), ValueError, "3 values"),
        (lambda s, o: s.ReduceLROnPlateau(o, factor=1.0), ValueError, "(?i)factor"),
        (lambda s, o: s.ReduceLROnPlateau(o, "up"), ValueError, "unknown"),
        (lambda s, o: s.ReduceLROnPlateau(o, threshold_mode="x"), ValueError, "unknown"),
        (lambda s, o: s.ReduceLROnPlateau(o, min_lr=[0.1]), ValueError, "1"),
        (lambda s, o: s.SequentialLR(o, [], []), ValueError, "at least one scheduler"),
        (lambda s, o: s.ChainedScheduler([]), ValueError, "at least one scheduler"),
        (lambda s, o: s.SequentialLR(o, [3], []), TypeError, "optimizer"),
        (lambda s, o: s.SequentialLR(o, [s.StepLR(o, 1)], [3]), ValueError, "milestone"),
        (
            lambda s, o: s.ChainedScheduler([s.ReduceLROnPlateau(o)]),
            ValueError, "does not support",
        ),
    ],
)  # fmt: skip
def test_errors_as_in_torch(make, error, message):
    for framework in (tg, torch):
        with pytest.raises(error, match=message):
            make(framework.optim.lr_scheduler, two_groups(framework))


def test_errors_of_our_own():
    o, other = two_groups(tg), two_groups(tg)
    s = lr_scheduler
    with pytest.raises(KeyError, match=r"StepLR: param_groups\[0\] has no 'initial_lr'"):
        s.StepLR(o, 3, last_epoch=5)
    with pytest.raises(ValueError, match=r"schedulers\[1\] belongs to another optimizer"):
        s.ChainedScheduler([s.StepLR(o, 3), s.StepLR(other, 3)])
    with pytest.raises(TypeError, match=r"schedulers\[0\] is a int, without an optimizer"):
        s.ChainedScheduler([3])
    with pytest.raises(ValueError, match="Adagrad has neither momentum nor betas"):
        s.OneCycleLR(tg.optim.Adagrad([tg.ones(2, requires_grad=True)]), 0.1, 5)
    for warmup, total in ((5, 5), (-1, 5)):
        with pytest.raises(ValueError, match="WarmupCosineLR: 0 <= warmup < total"):
            s.WarmupCosineLR(o, warmup, total)
    cycle = s.OneCycleLR(o, 0.1, 2)
    for _ in range(2):
        cycle.step()
    with pytest.raises(ValueError, match="tried to step 3 times, total_steps is 2"):
        cycle.step()
    rise = s.ConstantLR(two_groups(tg), 0.0, 2)
    rise.step()
    with pytest.raises(ZeroDivisionError, match="start from a small factor"):
        rise.step()


def test_one_step_up():
    """A phase of no length, where PyTorch divides by zero."""
    assert s_rates(0.25, 4)[0] == pytest.approx(0.3) and s_rates(0.25, 4)[-1] < 1e-4


def s_rates(pct_start, steps):
    return [
        r[0]
        for r in rates(tg, lambda s, o: s.OneCycleLR(o, 0.3, steps, pct_start=pct_start), steps)
    ]
