"""Running extremes, the running log-sum-exp, differences: ties, NaN, infinities, dims, dtypes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad as tg
from tests.ops.answers import same_answer, same_error
from tests.ops.compare import SHAPES, assert_same, both, few, numbers, run

inf, nan = math.inf, math.nan

SAME = {
    "cummax NaN": lambda t: t.cummax(t.tensor([1, nan, 2, nan, 3]), 0),
    "cummin NaN": lambda t: t.cummin(t.tensor([1, nan, 2, nan, 3]), 0),
    "cummax ties": lambda t: t.cummax(t.tensor([1, 1, 0, 2, 2, 1]), 0),
    "cummin ties": lambda t: t.cummin(t.tensor([1, 1, 0, 0, 2, 0]), 0),
    "cummax bools": lambda t: t.cummax(t.tensor([True, False]), 0),
    "cummin halves": lambda t: t.cummin(t.tensor([2.0, 3, 1]).bfloat16(), 0),
    "cummax 0-d": lambda t: t.cummax(t.tensor(2.0), -1),
    "cummax empty": lambda t: t.cummax(t.ones(2, 0), 1),
    "logcumsumexp 0-d": lambda t: t.logcumsumexp(t.tensor(2.0), 0),
    "logcumsumexp empty": lambda t: t.logcumsumexp(t.ones(0, 3), 0),
    "logcumsumexp halves": lambda t: t.logcumsumexp(t.tensor([9.0, 9, 3]).half(), 0),
    "diff ints": lambda t: t.diff(t.tensor([1, 5, 2], dtype=t.int8)),
    "diff uint8": lambda t: t.diff(t.tensor([1, 5, 2], dtype=t.uint8)),
    "diff bools": lambda t: t.diff(t.tensor([True, False, True, True]), n=2),
    "diff 0": lambda t: t.diff(t.arange(3), n=0, prepend=t.arange(2)),
    "diff all": lambda t: t.diff(t.ones(3), n=3),
    "diff more": lambda t: t.diff(t.ones(3), n=5),
    "diff nothing": lambda t: t.diff(t.ones(0)),
    "diff promotes": lambda t: t.diff(t.ones(2), prepend=t.ones(2).double()),
}


@pytest.mark.parametrize("case", SAME)
def test_same_answers(case):
    same_answer(SAME[case])


WRONG = {
    "cummax": lambda t: t.cummax(t.ones(2), 1),
    "cummin": lambda t: t.ones(2).cummin(-2),
    "logcumsumexp": lambda t: t.logcumsumexp(t.ones(2), 1),
    "logcumsumexp ints": lambda t: t.logcumsumexp(t.tensor([1, 2]), 0),
    "diff": lambda t: t.diff(t.tensor(1.0)),
    "diff n": lambda t: t.diff(t.ones(3), n=-1),
    "diff dim": lambda t: t.diff(t.ones(3), dim=2),
    "diff rank": lambda t: t.diff(t.ones(3), prepend=t.tensor(1.0)),
    "cat size": lambda t: t.diff(t.ones(2, 2), prepend=t.ones(1, 3)),
}


@pytest.mark.parametrize("case", WRONG)
def test_same_errors(case):
    same_error(WRONG[case], case.split()[0])


@given(SHAPES, st.data())
@few
def test_any_shape_and_dim(shape, data):
    dim = data.draw(st.integers(-len(shape) - 1, len(shape)))
    x = np.asarray(np.round(numbers(shape)))  # with ties
    if x.size or -len(shape) <= dim < len(shape):  # of nothing PyTorch takes any dim
        both(lambda t, x: t.cummax(x, dim), x)
        both(lambda t, x: t.cummin(x, dim), x)
    both(lambda t, x: t.logcumsumexp(x, dim), x)
    n = data.draw(st.integers(0, 3))
    both(lambda t, x: t.diff(x, n, dim), x)


def test_gradients_at_ties_and_nan():
    x = np.array([1.0, 1, 2, 2, nan, 3, nan, 1])
    both(lambda t, x: t.cummax(x, 0).values, x)
    both(lambda t, x: t.cummin(x, 0).values, x)


def test_logcumsumexp_over_a_wide_range():
    """Numbers whose exp overflows or vanishes."""
    x = np.array([-700.0, 3, 900, -900, 899, 0, 1000, -1000, 2])
    both(lambda t, x: t.logcumsumexp(x, 0), x)
    both(lambda t, x: t.logcumsumexp(x, 0), np.array([2.0, 1, nan, 3]))


def test_logcumsumexp_of_infinities():
    """PyTorch's gradient at an infinity is NaN where the function is the identity."""
    x = np.array([-inf, -inf, 1.0, 2.0, inf, 1])
    mine, theirs = (run(t, lambda t, x: t.logcumsumexp(x, 0), [x]) for t in (tg, torch))
    assert_same(mine[0], theirs[0])
    grad, other = mine[1][0].array, theirs[1][0].numpy()
    known = np.isfinite(other)
    np.testing.assert_allclose(grad[known], other[known], rtol=1e-12)
    assert np.isfinite(grad).all() and not known[[0, 1, 4]].any()


def test_logcumsumexp_halves_add_up_in_float32():
    x = tg.zeros(3000, dtype=tg.float16)
    assert tg.logcumsumexp(x, 0)[-1].item() == pytest.approx(math.log(3000), rel=1e-3)
