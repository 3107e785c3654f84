"""Medians, quantiles, sums without NaN, searches: ties, NaN, dims, dtypes, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tensorgrad as tg
from tests.ops.answers import same_answer, same_error
from tests.ops.compare import SHAPES, both, few, numbers, run

inf, nan = math.inf, math.nan


def x(t):
    return t.arange(24.0).reshape(2, 3, 4)


def gaps(t):
    return t.tensor([[1, nan, 2, nan], [4, 3, 2, 1], [nan, nan, nan, nan]])


def order(t):
    return t.tensor([1.0, 2, 2, 3])


SAME = {
    "median": lambda t: t.median(t.tensor([3, 1, 2, 2])),
    "median of nothing": lambda t: [
        t.median(t.ones(0)), t.median(t.ones(0).long()), t.median(t.ones(0, dtype=t.uint8)),
    ],
    "median over no layers": lambda t: t.median(t.ones(3, 0), 0),
    "median 0-d": lambda t: [t.median(t.tensor(2.0)), *t.median(t.tensor(2.0), 0)],
    "median NaN": lambda t: [t.median(gaps(t)), t.median(gaps(t), 1).values],
    "median halves": lambda t: t.median(t.tensor([3.0, 1, 2, nan]).bfloat16(), 0),
    "median keepdim": lambda t: t.tensor([[3.0, 1, 2]]).median(dim=1, keepdim=True),
    "nanmedian": lambda t: [t.nanmedian(gaps(t)), t.nanmedian(gaps(t), 1).values],
    "nanmedian of NaN": lambda t: t.nanmedian(t.tensor([nan, nan])),
    "nanmedian of ints": lambda t: t.nanmedian(t.tensor([1, 5, 3]), 0),
    "nanmedian halves": lambda t: t.nanmedian(gaps(t).bfloat16(), 1).values,
    "nansum": lambda t: [t.nansum(gaps(t)), t.nansum(gaps(t), 1, keepdim=True)],
    "nansum of ints": lambda t: t.nansum(t.tensor([1, 2], dtype=t.int32)),
    "nansum of bools": lambda t: t.nansum(t.tensor([True, True])),
    "nansum dtype": lambda t: t.nansum(gaps(t), 0, dtype=t.float64),
    "nanmean": lambda t: [t.nanmean(gaps(t)), t.nanmean(gaps(t), 1), t.nanmean(t.ones(0))],
    "nanmean dtype": lambda t: t.nanmean(gaps(t), (0, 1), dtype=t.float64),
    "quantile 0-d": lambda t: t.quantile(t.tensor(3.0), 0.5, dim=0, keepdim=True),
    "quantile keepdim": lambda t: t.quantile(x(t), t.tensor([0.1, 0.5]), keepdim=True),
    "quantile dim": lambda t: t.quantile(x(t), t.tensor([0.1, 0.5]), dim=1),
    "quantile dim keepdim": lambda t: x(t).quantile(t.tensor([0.1]), -1, keepdim=True),
    "quantile NaN": lambda t: t.quantile(gaps(t), 0.4, dim=1),
    "quantile inf": lambda t: t.quantile(t.tensor([1, inf, inf]), 0.75),
    "quantile at the ends": lambda t: [t.quantile(x(t), 0), t.quantile(x(t), 1)],
    "quantile none": lambda t: t.quantile(x(t), t.tensor([])),
    "nanquantile": lambda t: t.nanquantile(gaps(t), t.tensor([0.2, 0.5, 1]), dim=1),
    "searchsorted": lambda t: t.searchsorted(order(t), t.tensor([[2, 0.5], [3, 9]])),
    "searchsorted right": lambda t: t.searchsorted(order(t), order(t), right=True),
    "searchsorted side": lambda t: t.searchsorted(order(t), order(t), side="right"),
    "searchsorted number": lambda t: t.searchsorted(order(t), 2),
    "searchsorted number in ints": lambda t: t.searchsorted(t.tensor([1, 2, 3]), 1.5),
    "searchsorted 0-d": lambda t: t.searchsorted(order(t), t.tensor(2.0)),
    "searchsorted NaN": lambda t: t.searchsorted(t.tensor([1, nan]), t.tensor([nan, 0, 5])),
    "searchsorted int32": lambda t: t.searchsorted(order(t), order(t), out_int32=True),
    "searchsorted in nothing": lambda t: t.searchsorted(t.ones(0), order(t)),
    "searchsorted nothing": lambda t: t.searchsorted(order(t), t.ones(0)),
    "searchsorted halves": lambda t: t.searchsorted(order(t).half(), order(t).half()),
    "bucketize": lambda t: t.bucketize(t.tensor([[1.5, 2], [0, 9]]), order(t), right=True),
    "bucketize number": lambda t: t.bucketize(2.0, order(t)),
    "dist": lambda t: t.dist(t.ones(2, 1), t.zeros(3), 1),
    "dist promotes": lambda t: t.dist(t.ones(2), t.zeros(2).double(), inf),
    "dist of nothing": lambda t: t.dist(t.ones(0), t.ones(0)),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME)
def test_same_answers(case):
    same_answer(SAME[case])


WRONG = {
    "median": lambda t: t.median(t.ones(3, 0), 1),
    "median dim": lambda t: t.median(t.ones(3), 1),
    "median bools": lambda t: t.median(t.tensor([True])),
    "nansum twice": lambda t: t.nansum(x(t), (0, 0)),
    "nanmean": lambda t: t.nanmean(t.tensor([1, 2])),
    "nanmean dtype": lambda t: t.nanmean(t.tensor([1, 2]), dtype=t.float64),
    "quantile half": lambda t: t.quantile(x(t).half(), 0.5),
    "quantile int": lambda t: t.quantile(x(t).long(), 0.5),
    "quantile 1.5": lambda t: t.quantile(x(t), 1.5),
    "quantile -1": lambda t: t.quantile(x(t), t.tensor([0.5, -1])),
    "quantile dtype": lambda t: t.quantile(x(t), t.tensor(0.5).double()),
    "quantile rank": lambda t: t.quantile(x(t), t.ones(2, 2)),
    "quantile list": lambda t: t.quantile(x(t), [0.5]),
    "quantile nothing": lambda t: t.quantile(t.ones(0, 3), 0.5, dim=1),
    "quantile interpolation": lambda t: t.quantile(x(t), 0.5, interpolation="cubic"),
    "quantile dim": lambda t: t.quantile(x(t), 0.5, dim=3),
    "searchsorted sizes": lambda t: t.searchsorted(t.ones(2, 3), t.ones(1)),
    "searchsorted 0-d": lambda t: t.searchsorted(t.tensor(3.0), t.ones(1)),
    "searchsorted sides": lambda t: t.searchsorted(order(t), order(t), side="left", right=True),
    "searchsorted side": lambda t: t.searchsorted(order(t), order(t), side="middle"),
    "searchsorted number": lambda t: t.searchsorted(t.ones(2, 3), 1.0),
    "searchsorted sorter": lambda t: t.searchsorted(order(t), order(t), sorter=order(t)),
    "searchsorted sorter's size": lambda t: t.searchsorted(
        order(t), order(t), sorter=t.tensor([1])
    ),
    "searchsorted sorter's range": lambda t: t.searchsorted(
        order(t), order(t), sorter=t.tensor([0, 1, 2, 9])
    ),
    "bucketize": lambda t: t.bucketize(order(t), t.ones(2, 2)),
    "norm of a dist": lambda t: t.dist(t.ones(0), t.ones(0), inf),
}


@pytest.mark.parametrize("case", WRONG)
def test_same_errors(case):
    same_error(WRONG[case], case.split()[0])


def test_ties_share_the_gradient_of_the_median():
    tied = np.array([3.0, 2, 2, 1, 2, 5, nan])
    both(lambda t, x: t.median(x[:6]), tied)
    both(lambda t, x: t.nanmedian(x), tied)
    both(lambda t, x: t.median(x), np.array([1.0, nan, 2, nan]))


@given(SHAPES, st.data())
@few
def test_medians_of_any_shape(shape, data):
    dim = data.draw(st.integers(-len(shape) - 1, len(shape)))
    keepdim = data.draw(st.booleans())
    array = numbers(shape)
    both(lambda t, x: t.median(x, dim, keepdim), array)
    both(lambda t, x: t.median(x), array)
    holed = np.where(np.abs(array) < 1, nan, array)
    if -array.ndim <= dim < array.ndim:  # of NaN alone any may be taken
        array = np.where(np.isnan(holed).all(dim, keepdims=True), array, holed)
    both(lambda t, x: t.nanmedian(x, dim, keepdim).values, array)
    dims = data.draw(st.sampled_from([None, dim, (0, -1)]))
    both(lambda t, x: t.nansum(x, dims, keepdim), array)
    both(lambda t, x: t.nanmean(x, dims, keepdim), np.where(np.isnan(array), 2.0, array))


@pytest.mark.parametrize("how", ["linear", "lower", "higher", "midpoint", "nearest"])
@given(shape=SHAPES, data=st.data())
@few
def test_quantiles_of_any_shape(how, shape, data):
    assume(len(shape) < 4)
    dim = data.draw(st.one_of(st.none(), st.integers(-len(shape) - 1, len(shape))))
    keepdim = data.draw(st.booleans())
    q = data.draw(hnp.arrays(np.float64, st.sampled_from([(), (1,), (3,)]), elements=SHARES))
    array = numbers(shape)

    def call(t, x, q):
        return t.quantile(x, q, dim, keepdim, interpolation=how)

    both(call, array, q)
    both(
        lambda t, x, q: t.nanquantile(x, q, dim, keepdim, interpolation=how),
        np.where(np.abs(array) < 1, nan, array), q,
    )  # fmt: skip


SHARES = st.floats(0.01, 0.99).map(lambda q: round(q, 4) + 1e-6)
"""None falls on an element for the sizes drawn: there the gradient for q would hang on rounding."""


def test_the_gradient_of_a_quantile_for_q():
    """The slope of the line between two neighbours, (n - 1) (above - below)."""
    array, q = np.array([5.0, 1, 2, 8]), np.array(0.4)
    _, (_, slope) = run(tg, lambda t, x, q: t.quantile(x, q), [array, q])
    _, (_, other) = run(torch, lambda t, x, q: t.quantile(x, q), [array, q])
    assert slope.item() == pytest.approx(other.item(), rel=1e-12)


@given(st.data())
@few
def test_searches_in_rows(data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5))
    rows = np.sort(np.round(numbers(shape)), -1)
    values = np.round(numbers((*shape[:-1], data.draw(st.integers(0, 4))), 1))
    right = data.draw(st.booleans())
    same_answer(lambda t: t.searchsorted(t.as_tensor(rows), t.as_tensor(values), right=right))
    if rows.ndim == 1:
        same_answer(lambda t: t.bucketize(t.as_tensor(values), t.as_tensor(rows), right=right))


def test_half_sums_without_nan_add_up_in_float32():
    x = tg.ones(5000, dtype=tg.float16)
    assert tg.nansum(x).item() == 5000 and tg.nanmean(x).item() == 1
