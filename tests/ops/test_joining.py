"""Tensors joined, turned, cut, and parts of them taken or replaced: edges, errors, any shapes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tensorgrad as tg
from tests.ops.answers import same_answer, same_error
from tests.ops.compare import SHAPES, both, few, numbers


def x(t):
    return t.arange(15.0).reshape(3, 5)


SAME = {
    "hstack 0-d": lambda t: t.hstack([t.tensor(1.0), t.tensor(2.0)]),
    "hstack promotes": lambda t: t.hstack([t.ones(2).long(), t.ones(2)]),
    "vstack 0-d": lambda t: t.vstack([t.tensor(1.0), t.tensor(2.0)]),
    "dstack 0-d": lambda t: t.dstack([t.tensor(1.0), t.tensor(2.0)]),
    "dstack vectors": lambda t: t.dstack([t.ones(2), t.zeros(2)]),
    "atleast_1d": lambda t: t.atleast_1d(t.tensor(1.0)),
    "atleast_2d": lambda t: t.atleast_2d(t.tensor(1.0), t.ones(3)),
    "atleast_3d": lambda t: t.atleast_3d([t.tensor(1.0), t.ones(3), x(t), t.ones(1, 2, 3, 4)]),
    "meshgrid 0-d": lambda t: t.meshgrid(t.ones(2), t.tensor(3.0), indexing="ij"),
    "meshgrid one": lambda t: t.meshgrid(t.ones(2), indexing="xy"),
    "meshgrid empty": lambda t: t.meshgrid(t.ones(0), t.ones(3), indexing="xy"),
    "tensor_split many": lambda t: t.tensor_split(x(t), 7, 1),
    "tensor_split tensor": lambda t: t.tensor_split(x(t), t.tensor(2)),
    "tensor_split vector": lambda t: t.tensor_split(x(t), t.tensor([1, 3]), 1),
    "tensor_split backwards": lambda t: t.tensor_split(x(t), (3, 1), 1),
    "tensor_split beyond": lambda t: t.tensor_split(x(t), (-2, 9), 1),
    "tensor_split nowhere": lambda t: t.tensor_split(x(t), ()),
    "tensor_split nothing": lambda t: t.tensor_split(t.ones(0, 2), 3),
    "take": lambda t: t.take(x(t), t.tensor([[0, -1], [14, -15]])),
    "take 0-d": lambda t: t.take(t.tensor(2.0), t.tensor([0, -1])),
    "take by 0-d": lambda t: t.arange(4).take(t.tensor(2)),
    "take nothing": lambda t: t.take(t.ones(0), t.tensor([], dtype=t.int64)),
    "unfold 0-d": lambda t: [t.tensor(3.0).unfold(0, 1, 1), t.tensor(3.0).unfold(0, 0, 1)],
    "unfold 0": lambda t: x(t).unfold(1, 0, 2),
    "unfold bools": lambda t: (x(t) > 3).unfold(0, 2, 1),
    "unfold halves": lambda t: x(t).bfloat16().unfold(1, 2, 1),
    "unfold with gaps": lambda t: x(t).unfold(-1, 1, 3),
    "unfold transposed": lambda t: x(t).T.unfold(0, 3, 2),
    "select_scatter casts": lambda t: t.select_scatter(x(t).long(), t.ones(3) * 2.7, 1, -1),
    "slice_scatter from the end": lambda t: t.slice_scatter(x(t), t.zeros(3, 2), 1, -3, -1),
    "slice_scatter beyond": lambda t: t.slice_scatter(x(t), t.zeros(3, 4), 1, 1, 99),
    "slice_scatter all": lambda t: t.slice_scatter(x(t), t.zeros(3, 5)),
    "diagonal_scatter": lambda t: t.diagonal_scatter(t.full((3, 3), math.nan), t.zeros(2), 1),
    "diagonal_scatter dims": lambda t: t.diagonal_scatter(t.ones(2, 3, 4), t.zeros(3, 2), -1, 2, 0),
}


@pytest.mark.parametrize("case", SAME)
def test_same_answers(case):
    same_answer(SAME[case])


WRONG = {
    "hstack": lambda t: t.hstack([]),
    "vstack": lambda t: t.vstack([]),
    "dstack": lambda t: t.dstack([]),
    "cat in vstack": lambda t: t.vstack([t.ones(2), t.ones(3)]),
    "meshgrid": lambda t: t.meshgrid(),
    "meshgrid dtypes": lambda t: t.meshgrid(t.ones(2), t.ones(3).double(), indexing="ij"),
    "meshgrid rank": lambda t: t.meshgrid(t.ones(2, 2), indexing="ij"),
    "meshgrid indexing": lambda t: t.meshgrid(t.ones(2), indexing="yx"),
    "rot90": lambda t: t.rot90(t.ones(2)),
    "rot90 same": lambda t: t.rot90(x(t), 1, (0, -2)),
    "rot90 dim": lambda t: t.rot90(x(t), 1, (0, 5)),
    "rot90 dims": lambda t: t.rot90(x(t), 1, (0,)),
    "transpose": lambda t: t.swapaxes(x(t), 0, 5),
    "transpose 0-d": lambda t: t.tensor(1.0).transpose(0, 1),
    "tensor_split": lambda t: t.tensor_split(x(t), 0),
    "tensor_split -1": lambda t: x(t).tensor_split(-1),
    "tensor_split 0-d": lambda t: t.tensor_split(t.tensor(1.0), 1),
    "tensor_split dim": lambda t: t.tensor_split(x(t), (1,), 5),
    "take": lambda t: t.take(x(t), t.tensor([15])),
    "take -": lambda t: t.take(x(t), t.tensor([-16])),
    "take int32": lambda t: t.take(x(t), t.tensor([1], dtype=t.int32)),
    "take from nothing": lambda t: t.take(t.ones(0), t.tensor([0])),
    "unfold": lambda t: x(t).unfold(0, 4, 1),
    "unfold step": lambda t: x(t).unfold(0, 2, 0),
    "unfold negative": lambda t: x(t).unfold(0, -1, 1),
    "unfold dim": lambda t: x(t).unfold(2, 1, 1),
    "select_scatter": lambda t: t.select_scatter(x(t), t.ones(5), 1, 0),
    "select in select_scatter": lambda t: t.select_scatter(x(t), t.ones(3), 1, 7),
    "select_scatter dim": lambda t: t.select_scatter(x(t), t.ones(3), 4, 0),
    "slice_scatter": lambda t: t.slice_scatter(x(t), t.ones(5), 0, 1, 2),
    "slice_scatter step": lambda t: t.slice_scatter(x(t), t.ones(3, 5), 1, step=0),
    "diagonal_scatter": lambda t: t.diagonal_scatter(x(t), t.zeros(5)),
    "diagonal_scatter dims": lambda t: t.diagonal_scatter(x(t), t.zeros(3), 0, 1, -1),
}


@pytest.mark.parametrize("case", WRONG)
def test_same_errors(case):
    same_error(WRONG[case], case.split()[0])


@given(SHAPES, st.data())
@few
def test_turns_and_cuts_of_any_shape(shape, data):
    array, rank = numbers(shape), len(shape)
    a, b, k = (data.draw(st.integers(-rank - 1, rank)) for _ in range(3))
    both(lambda t, x: t.rot90(x, k, (a, b)), array)
    both(lambda t, x: t.swapaxes(x, a, b), array)
    places = data.draw(st.one_of(st.integers(-1, 6), st.lists(st.integers(-6, 6), max_size=3)))
    both(lambda t, x: t.tensor_split(x, places, a), array)
    size, step = data.draw(st.integers(0, 6)), data.draw(st.integers(0, 3))
    both(lambda t, x: x.unfold(a, size, step), array)


@given(SHAPES, st.data())
@few
def test_replaced_slices_of_any_shape(shape, data):
    array, rank = numbers(shape), len(shape)
    dim = data.draw(st.integers(-rank - 1, rank))
    ends = st.one_of(st.none(), st.integers(-6, 6))
    start, end, step = data.draw(ends), data.draw(ends), data.draw(st.integers(1, 3))
    index = data.draw(st.integers(-6, 6))
    if not -rank <= dim < rank:
        part, layer = array, array
    else:
        before = (slice(None),) * (dim % rank)
        part = array[(*before, slice(start, end, step))] * 2
        layer = array.sum(dim) if rank > 1 else np.asarray(array.sum())
    both(lambda t, x, y: t.slice_scatter(x, y, dim, start, end, step), array, part)
    both(lambda t, x, y: t.select_scatter(x, y, dim, index), array, layer)


@given(hnp.array_shapes(min_dims=0, max_dims=1, min_side=0, max_side=5), st.integers(1, 4))
@few
def test_grids(shape, count):
    arrays = [numbers(shape, i) for i in range(count)]
    both(lambda t, *xs: t.stack(t.meshgrid(*xs, indexing="xy")), *arrays)


def test_windows_share_the_memory():
    """A view, as in PyTorch; read-only where windows overlap."""
    for make in (lambda x: x, lambda x: x.T, lambda x: x[:, 1::2], lambda x: x.bfloat16()):
        x = make(tg.arange(35.0).reshape(5, 7).clone())
        parts, overlapping = x.unfold(0, 2, 2), x.unfold(1, 2, 1)
        parts[0, 0, 1] = -3.0
        assert x[1, 0] == -3 and overlapping[1, 0, 0] == -3
        with pytest.raises(RuntimeError, match="clone"):
            overlapping += 1


def test_a_change_in_windows_has_a_gradient():
    x = tg.ones(6, requires_grad=True)
    y = x * 1
    y.unfold(0, 2, 3)[1, 0] = 5.0
    (y * y).sum().backward()
    assert y.tolist() == [1, 1, 1, 5, 1, 1] and x.grad.tolist() == [2, 2, 2, 0, 2, 2]


def test_overlapping_windows_keep_the_gradient_of_what_they_were():
    x = tg.ones(5, requires_grad=True)
    y = x * 1
    windows = y.unfold(0, 3, 1)
    y.mul_(2.0)
    windows.sum().backward()
    assert windows[0].tolist() == [1, 1, 1] and x.grad.tolist() == [1, 2, 3, 2, 1]
