"""Sums of products: factors of zero, dtypes, empty and stretched operands, errors."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ops.answers import same_answer, same_error
from tests.ops.compare import SHAPES, both, few, numbers

nan = math.nan


def cube(t, dtype="float32"):
    return t.arange(30).reshape(2, 3, 5).to(getattr(t, dtype))


def other(t, dtype="float32"):
    return t.arange(70).reshape(2, 5, 7).to(getattr(t, dtype))


SAME = {
    "addmm beta 0": lambda t: t.addmm(t.full((2, 2), nan), t.eye(2), t.eye(2), beta=0),
    "addmm alpha 0": lambda t: t.addmm(t.eye(2), t.full((2, 2), nan), t.eye(2), alpha=0),
    "addmm 0-d": lambda t: t.addmm(t.tensor(2.0), t.eye(2), t.eye(2), alpha=True),
    "addmm ints": lambda t: t.addmm(
        t.ones(3, 3).long(), t.ones(3, 3).long(), t.ones(3, 3).long(), alpha=0.5, beta=2.7
    ),
    "addbmm ints": lambda t: t.addbmm(t.ones(7).long(), cube(t, "int64"), other(t, "int64")),
    "addbmm nothing": lambda t: t.addbmm(t.ones(3, 7), cube(t)[:0], other(t)[:0], beta=2),
    "addmv": lambda t: t.addmv(t.tensor(2.0), cube(t)[0], t.ones(5)),
    "addmv beta 0": lambda t: t.addmv(t.full((1,), nan), cube(t)[0], t.ones(5), beta=0),
    "addr": lambda t: t.addr(t.tensor(1.0), t.arange(3.0), t.arange(2.0)),
    "addr promotes": lambda t: t.addr(t.ones(3, 3).long(), t.ones(3), t.ones(3)),
    "addr beta 0": lambda t: t.addr(t.full((2, 2), nan), t.ones(2), t.ones(2), beta=0),
    "inner 0-d": lambda t: t.inner(t.tensor(2.0).double(), t.ones(3)),
    "inner empty": lambda t: t.inner(t.ones(2, 0), t.ones(3, 0)),
    "vdot ints": lambda t: t.vdot(t.tensor([1, 2]), t.tensor([1, 2])),
    "kron promotes": lambda t: t.kron(t.tensor([1, 2]), t.ones(2)),
    "kron 0-d": lambda t: t.kron(t.tensor(2.0), t.ones(2, 2)),
    "kron bools": lambda t: t.kron(t.tensor([True, False]), t.tensor([True])),
    "trace ints": lambda t: t.trace(t.ones(3, 2, dtype=t.int32)),
    "trace empty": lambda t: t.trace(t.ones(0, 3)),
    "trace half": lambda t: t.trace(t.full((99, 99), 100.0).half()),
    "tensordot 0": lambda t: t.tensordot(t.arange(3.0), t.arange(2.0), dims=0),
    "tensordot ints": lambda t: t.tensordot(cube(t, "int64"), other(t, "int64"), ([0, 2], [0, 1])),
    "tensordot tensor": lambda t: t.tensordot(t.ones(2, 3), t.ones(3, 2), t.tensor([[1], [0]])),
    "tensordot empty": lambda t: t.tensordot(t.ones(2, 0), t.ones(0, 3), 1),
    "tensordot of one": lambda t: t.tensordot(
        t.arange(6.0).reshape(2, 3), t.arange(2.0).reshape(2, 1), dims=([1], [1])
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_same_answers(case):
    same_answer(SAME[case])


WRONG = {
    "addmm": lambda t: t.addmm(t.ones(3, 3), t.eye(3).double(), t.eye(3).double()),
    "expand in addmm": lambda t: t.addmm(t.ones(2), t.eye(3), t.eye(3)),
    "expand with beta 0": lambda t: t.addmm(t.ones(2), t.eye(3), t.eye(3), beta=0),
    "expand in baddbmm": lambda t: t.baddbmm(t.ones(2), cube(t), other(t)),
    "addbmm": lambda t: t.addbmm(t.ones(3, 3), cube(t), cube(t)),
    "addbmm rank": lambda t: t.addbmm(t.ones(3, 3), cube(t)[0], other(t)),
    "addbmm dtype": lambda t: t.addbmm(t.ones(3, 7).double(), cube(t), other(t)),
    "mv in addmv": lambda t: t.addmv(t.ones(3), t.ones(3), t.ones(3)),
    "matmul in addmv": lambda t: t.addmv(t.ones(3), cube(t)[0], t.ones(3)),
    "outer in addr": lambda t: t.addr(t.ones(3, 3), t.ones(3, 1), t.ones(3)),
    "addr": lambda t: t.addr(t.ones(2, 2).long(), t.ones(2).long(), t.ones(2).long(), alpha=0.5),
    "inner": lambda t: t.inner(t.ones(2), t.ones(3)),
    "inner dtype": lambda t: t.inner(t.ones(3), t.ones(3).double()),
    "dot in vdot": lambda t: t.vdot(t.ones(3, 1), t.ones(3)),
    "matmul in vdot": lambda t: t.vdot(t.ones(2), t.ones(3)),
    "trace": lambda t: t.trace(t.ones(3)),
    "tensordot": lambda t: t.tensordot(cube(t), other(t), dims=1),
    "tensordot count": lambda t: t.tensordot(cube(t), other(t), dims=5),
    "tensordot negative": lambda t: t.tensordot(cube(t), other(t), dims=-1),
    "tensordot dtype": lambda t: t.tensordot(t.eye(2), t.eye(2).double(), dims=1),
    "tensordot pairs": lambda t: t.tensordot(t.eye(2), t.eye(2), dims=([0, 1], [1])),
    "tensordot twice": lambda t: t.tensordot(t.eye(2), t.eye(2), dims=([0, 0], [1, 1])),
    "tensordot dim": lambda t: t.tensordot(t.eye(2), t.eye(2), dims=([5], [1])),
}


@pytest.mark.parametrize("case", WRONG)
def test_same_errors(case):
    same_error(WRONG[case], case.split()[0])


@given(SHAPES, SHAPES)
@few
def test_products_of_any_shapes(a, b):
    x, y = numbers(a), numbers(b, 1)
    both(lambda t, x, y: t.inner(x, y), x, y)
    both(lambda t, x, y: t.kron(x, y), x, y)
    both(lambda t, x: t.trace(x), x)


@given(SHAPES, st.data())
@few
def test_tensordot_over_any_dims(shape, data):
    rank = len(shape)
    chosen = data.draw(st.lists(st.sampled_from(range(rank)), unique=True) if rank else st.just([]))
    order = data.draw(st.permutations(chosen))
    x, y = numbers(shape), numbers((*(shape[d] for d in order), 2), 1)
    both(lambda t, x, y: t.tensordot(x, y, (order, list(range(len(order))))), x, y)
