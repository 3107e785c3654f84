"""Elementwise kernels, row kernels and gather against NumPy in float64, and what they decline."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad as tg
from tensorgrad import twins
from tensorgrad.kernels.cpu import gather, maps, rows, threads

F32 = np.dtype(np.float32)
EDGES = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 1e-40, -1e-40, 88.6, -103, 8.9], F32)
EVERY = np.arange(0, 2**31 - 2**23, 49_999, dtype=np.int64).astype(np.int32).view(F32)
shapes = st.lists(st.sampled_from([1, 2, 3, 7, 13, 61]), min_size=1, max_size=3).map(tuple)


def ulps(actual, exact):
    """How many float32 steps the worst of the finite results is off."""
    finite = np.isfinite(exact) & (np.abs(exact) < 3.4e38)
    actual, exact = actual[finite].astype(np.float64), exact[finite]
    return np.max(np.abs(actual - exact) / np.spacing(np.abs(exact).astype(F32)))


@pytest.mark.parametrize(
    ("kernel", "exact", "most"),
    [
        (maps.map_exp, np.exp, 1),
        (maps.map_log, np.log, 1),
        (maps.map_tanh, np.tanh, 2),
        (maps.map_sigmoid, lambda x: 1 / (1 + np.exp(-x)), 3),
        (maps.map_silu, lambda x: x / (1 + np.exp(-x)), 3),
    ],
)
def test_exponentials_over_the_whole_range(kernel, exact, most):
    x = np.concatenate([EVERY, -EVERY, np.linspace(-20, 20, 100_003).astype(F32)])
    with np.errstate(all="ignore"):
        x = x[(np.abs(x) < 88) | (kernel not in (maps.map_sigmoid, maps.map_silu))]  # then 0
        wide = exact(x.astype(np.float64))
        assert ulps(kernel(x), wide) < most
        expected = exact(EDGES.astype(np.float64)).astype(F32)
    found = kernel(EDGES)
    np.testing.assert_allclose(found, expected, 1e-6, 1e-36)
    if kernel is not maps.map_log:  # log(-0) is -inf, a negative number by itself
        zero = expected == 0
        np.testing.assert_array_equal(np.signbit(found[zero]), np.signbit(expected[zero]))


SLOPES = {
    "tanh": (lambda x: x.tanh(), lambda g, x: maps.map_tanh_slope(g, np.tanh(x))),
    "sigmoid": (
        lambda x: x.sigmoid(),
        lambda g, x: maps.map_sigmoid_slope(g, maps.map_sigmoid(x)),
    ),
    "silu": (torch.nn.functional.silu, maps.map_silu_slope),
    "relu": (lambda x: x.relu(), lambda g, x: maps.map_relu_slope(g, maps.map_relu(x))),
    "abs": (lambda x: x.abs(), maps.map_abs_slope),
    "clamp": (lambda x: x.clamp(-0.5, 1), lambda g, x: maps.map_clamp_slope(g, x, -0.5, 1)),
    "clamp_min": (lambda x: x.clamp(-0.5), lambda g, x: maps.map_clamp_slope(g, x, -0.5, None)),
    "clamp_max": (lambda x: x.clamp(max=1), lambda g, x: maps.map_clamp_slope(g, x, None, 1)),
}


@pytest.mark.parametrize("name", SLOPES)
def test_slopes(name):
    rng = np.random.default_rng(3)
    x = np.concatenate([[0.0, -0.5, 1.0], rng.standard_normal(5003) * 3]).astype(F32)
    g = rng.standard_normal(x.size).astype(F32)
    leaf = torch.tensor(x, requires_grad=True)
    call, slope = SLOPES[name]
    call(leaf).backward(torch.tensor(g))
    np.testing.assert_allclose(slope(g, x), leaf.grad.numpy(), 1e-5, 1e-6)


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_slopes_of_the_larger_and_the_smaller(name):
    rng = np.random.default_rng(4)
    x, y = rng.integers(-2, 3, (2, 5003)).astype(F32)
    x[0], y[1] = np.nan, np.nan
    g = rng.standard_normal(x.size).astype(F32)
    a, b = (torch.tensor(v, requires_grad=True) for v in (x, y))
    getattr(torch, name)(a, b).backward(torch.tensor(g))
    mine = [tg.tensor(v, requires_grad=True) for v in (x, y)]
    getattr(tg, name)(*mine).backward(tg.tensor(g))
    np.testing.assert_array_equal(mine[0].grad.numpy()[2:], a.grad.numpy()[2:])
    np.testing.assert_array_equal(mine[1].grad.numpy()[2:], b.grad.numpy()[2:])


def test_threads_change_no_number():
    x = np.random.default_rng(5).standard_normal(1_000_003).astype(F32)
    before, answers = threads.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            threads.set_num_threads(count)
            answers.append((maps.map_exp(x), rows.rows_sum(x), rows.rows_sum(x[:900], (0,))))
    finally:
        threads.set_num_threads(before)
    for other in answers[1:]:
        for a, b in zip(answers[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@given(shapes, st.booleans())
def test_choices(shape, swap):
    rng = np.random.default_rng(6)
    c = rng.integers(0, 2, shape).astype(bool)
    x, y = rng.standard_normal((2, *shape)).astype(F32)
    np.testing.assert_array_equal(maps.map_where(c, x, y), np.where(c, x, y))
    np.testing.assert_array_equal(maps.map_where_slope(x, c), np.where(c, x, 0))
    np.testing.assert_array_equal(maps.map_where_not_slope(x, c), np.where(c, 0, x))


def test_what_maps_decline():
    x = np.ones((4, 6), F32)
    assert maps.map_exp(x.astype(np.float64)) is None
    assert maps.map_exp(x.T) is None
    assert maps.map_exp(x[:, ::2]) is None
    assert maps.map_relu_slope(x, x[:1]) is None
    assert maps.map_relu_slope(x, x.astype(np.float64)) is None
    assert maps.map_where(x > 0, x, 0.0) is None
    assert maps.map_where((x > 0)[:1], x, x) is None


@given(shapes, st.sampled_from([np.float32, np.float64]), st.booleans())
def test_rows(shape, dtype, keepdim):
    x = np.random.default_rng(7).standard_normal(shape).astype(dtype)
    wide, last = x.astype(np.float64), (len(shape) - 1,)
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(
        rows.rows_sum(x, last, keepdim), wide.sum(-1, keepdims=keepdim), rtol, rtol
    )
    np.testing.assert_allclose(rows.rows_sum(x), wide.sum(), rtol, rtol)
    np.testing.assert_array_equal(rows.rows_amax(x, last, keepdim), x.max(-1, keepdims=keepdim))
    np.testing.assert_array_equal(rows.rows_amin(x, last, keepdim), x.min(-1, keepdims=keepdim))
    np.testing.assert_allclose(rows.rows_cumsum(x, -1, False), wide.cumsum(-1), rtol, rtol)
    backwards = wide[..., ::-1].cumsum(-1)[..., ::-1]
    np.testing.assert_allclose(rows.rows_cumsum(x, -1, True), backwards, rtol, rtol)


def test_a_long_sum_keeps_its_digits():
    x = np.full(10_000_019, 0.1, F32)
    exact = float(F32.type(0.1)) * x.size
    assert abs(rows.rows_sum(x) - exact) < 1e-6 * exact


def test_extremes_hand_nan_on():
    x = np.array([[1, np.nan, 3], [4, 5, 6]], F32)
    np.testing.assert_array_equal(rows.rows_amax(x, (1,), False), [np.nan, 6])
    np.testing.assert_array_equal(rows.rows_amin(x, (1,), True), [[np.nan], [4]])


@given(shapes, st.data())
def test_gather(shape, data):
    dim = data.draw(st.integers(0, len(shape) - 1))
    count = data.draw(st.sampled_from([1, 2, 5]))
    rng = np.random.default_rng(8)
    x = rng.standard_normal(shape)
    wanted = (*shape[:dim], count, *shape[dim + 1 :])
    index = rng.integers(0, shape[dim], wanted)
    np.testing.assert_array_equal(
        gather.gather_forward(x, index, dim), np.take_along_axis(x, index, dim)
    )
    g = rng.standard_normal(wanted)
    expected = torch.zeros(shape, dtype=torch.float64).scatter_add_(
        dim, torch.tensor(index), torch.tensor(g)
    )
    np.testing.assert_allclose(gather.gather_backward(g, index, shape, dim), expected.numpy())


def test_gather_declines_what_is_out_of_range():
    x, index = np.ones((3, 5)), np.array([[0], [5], [1]])
    assert gather.gather_forward(x, index, 1) is None
    assert gather.gather_backward(np.ones((3, 1)), index, (3, 5), 1) is None
    assert gather.gather_forward(x, index[:2] * 0, 1) is None  # a smaller index: NumPy's business
    big = tg.tensor(np.ones((40, 50)))
    with pytest.raises((RuntimeError, IndexError), match=r"index 50 is out of range"):
        tg.gather(big, 1, tg.full((40, 50), 50))


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sigmoid", "relu", "abs", "clamp", "pow"])
def test_ops_use_them_and_agree_with_the_formula(name, monkeypatch):
    """One op, large enough for its kernel, with kernels and without."""
    call = {"clamp": lambda x: tg.clamp(x, 0.7, 1.2), "pow": lambda x: x**3}.get(
        name, getattr(tg, name)
    )
    answers = []
    for enabled in (True, False):
        monkeypatch.setattr(twins, "enabled", enabled)
        x = tg.tensor(np.linspace(0.1, 2, 3001).astype(F32), requires_grad=True)
        y = call(x)
        y.backward(tg.linspace(-1, 1, 3001))
        answers.append((y.detach().numpy(), x.grad.numpy()))
    for a, b in zip(*answers, strict=True):
        np.testing.assert_allclose(a, b, 1e-6, 1e-7)
