"""x[index] and x[index] = value for every kind of index: value and gradient are PyTorch's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tensorgrad as tg
from tests.ops.compare import assert_same, both, leaves, numbers, to_torch
from tests.ops.test_drawn import LAYOUTS


def index_parts(n):
    """One entry of an index for a dim of n elements."""
    basic = st.slices(n).filter(lambda s: s.step is None or s.step > 0)
    kinds = [basic, st.just(slice(None))]
    if n:
        kinds += [
            st.integers(-n, n - 1),
            hnp.arrays(
                np.int64, st.sampled_from([(), (2,), (3, 2), (1,)]), elements=st.integers(-n, n - 1)
            ),
        ]
    return st.one_of(*kinds)


@st.composite
def indexed(draw, max_side=4, min_side=1):
    """A shape and an index that fits it, mixing every kind of entry."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=min_side, max_side=max_side))
    parts, d = [], 0
    stop = draw(st.integers(0, len(shape)))
    while d < stop:
        if draw(st.integers(0, 5)) == 0:
            parts.append(None)
        elif draw(st.integers(0, 4)) == 0:
            wide = draw(st.integers(1, min(2, stop - d)))
            parts.append(draw(hnp.arrays(np.bool_, shape[d : d + wide])))
            d += wide
        else:
            parts.append(draw(index_parts(shape[d])))
            d += 1
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), Ellipsis)
        assume(parts[-1] is Ellipsis or stop == len(shape))
    return shape, tuple(parts)


def in_framework(t, index):
    return tuple(leaves([p], t, False)[0] if isinstance(p, np.ndarray) else p for p in index)


def agreeable(shape, index):
    """Indices whose arrays broadcast together."""
    masks = [p.nonzero()[0] if p.dtype == bool else p for p in index if isinstance(p, np.ndarray)]
    try:
        np.broadcast_shapes(*(m.shape for m in masks))
    except ValueError:
        return False
    return True


@given(indexed())
@settings(max_examples=80)
def test_taking_by_any_index(case):
    shape, index = case
    assume(agreeable(shape, index))
    both(lambda t, x: x[in_framework(t, index)] * 2, numbers(shape))


@given(indexed(), st.booleans())
@settings(max_examples=80)
def test_setting_by_any_index(case, number):
    shape, index = case
    assume(agreeable(shape, index))
    part = torch.zeros(shape)[in_framework(torch, index)]
    arrays = [p for p in index if isinstance(p, np.ndarray) and p.dtype != bool]
    assume(
        not arrays or part.numel() == np.unique(places(shape, index)).size
    )  # twice the same place: open

    def call(t, x, y):
        z = x * 1
        z[in_framework(t, index)] = 2.5 if number else y * 3
        return z

    both(call, numbers(shape), numbers(tuple(part.shape), 1))


@given(indexed(min_side=0))
@settings(max_examples=60)
def test_taking_from_the_empty(case):
    shape, index = case
    assume(agreeable(shape, index))
    both(lambda t, x: x[in_framework(t, index)] * 2, numbers(shape))


@given(indexed(), st.sampled_from(sorted(LAYOUTS)), st.booleans())
@settings(max_examples=80)
def test_taking_and_setting_in_any_layout(case, layout, number):
    """Reversed, stepped, turned memory: PyTorch's has the same elements in order."""
    shape, index = case
    assume(agreeable(shape, index))
    array = numbers(shape)
    found = []
    for t in (tg, torch):
        x = tg.from_numpy(LAYOUTS[layout](array.copy())) if t is tg else to_torch(array)
        part = x[in_framework(t, index)]
        if layout != "read-only" and np.unique(places(shape, index)).size == part.numel():
            x[in_framework(t, index)] = 2.5 if number else part.flip(0) if part.ndim else part * 2
        found.append((part * 1, x))
    assert_same(found[0], found[1])


@given(indexed())
@settings(max_examples=40)
def test_setting_through_a_view(case):
    """The base sees it, and the gradient takes the same way."""
    shape, index = case
    assume(agreeable(shape, index))
    assume(np.unique(places(shape, index)).size == len(places(shape, index).reshape(-1)))

    def call(t, x):
        z = (x * 1).transpose(0, -1)
        view = z.transpose(0, -1)
        view[in_framework(t, index)] = 2.5
        return z * z, view

    both(call, numbers(shape))


def places(shape, index):
    return torch.arange(math.prod(shape)).reshape(shape)[in_framework(torch, index)].numpy()


@pytest.mark.slow
@given(indexed(max_side=6))
@settings(max_examples=3000)
def test_taking_by_many_indices(case):
    shape, index = case
    assume(agreeable(shape, index))
    both(lambda t, x: x[in_framework(t, index)] * 2, numbers(shape))


PLACING = {
    "rows": lambda t, x, v: x.index_put((t.tensor([2, 0]),), v),
    "added": lambda t, x, v: t.index_put(x, (t.tensor([2, 2]),), v, accumulate=True),
    "two": lambda t, x, v: x.index_put((t.tensor([2, 1]), t.tensor([[0], [3]])), v[:, :2]),
    "two added": lambda t, x, v: x.index_put(
        [t.tensor([2, 2]), t.tensor([[0], [0]])], v[:, :2], True
    ),
    "mask": lambda t, x, v: x.index_put((x > 0,), v[0, 0]),
    "mask added": lambda t, x, v: x.index_put((x > 0,), v[0, 0], accumulate=True),
    "rows by mask": lambda t, x, v: x.index_put((t.tensor([True, False, True]),), v),
    "negative": lambda t, x, v: x.index_put((t.tensor([-1, 0]),), v, True),
    "stretched": lambda t, x, v: x.index_put((t.tensor([-1, 0, 1]),), v[0], True),
    "out of range": lambda t, x, v: x.index_put((t.tensor([-1, 7]),), v),
    "added out of range": lambda t, x, v: x.index_put((t.tensor([-1, 7]),), v, True),
    "shape": lambda t, x, v: x.index_put((t.tensor([-1, 1]),), v[:, :2]),
    "added shape": lambda t, x, v: x.index_put((t.tensor([-1, 1]),), v[:, :2], True),
    "dtype": lambda t, x, v: x.index_put((t.tensor([-1, 1]),), v.float()),
    "number": lambda t, x, v: x.index_put((t.tensor([-1, 1]),), 1.0),
    "slice": lambda t, x, v: x.index_put((slice(0, 1),), v),
    "tensor": lambda t, x, v: x.index_put(t.tensor([0]), v),
    "none": lambda t, x, v: x.index_put((), v),
    "floats": lambda t, x, v: x.index_put((t.tensor([1.0]),), v),
    "in place": lambda t, x, v: (x * 1).index_put_((t.tensor([2, 1]),), v * 2),
    "in place, added": lambda t, x, v: (x * 1).index_put_((t.tensor([2, 2]),), v, accumulate=True),
    "masked": lambda t, x, v: x.masked_scatter(x > 1, v),
    "masked rows": lambda t, x, v: t.masked_scatter(x, x[0] > 0, v),
    "masked, stretched": lambda t, x, v: t.masked_scatter(v[0], x > 0, x * 2),
    "masked 0-d": lambda t, x, v: x.sum().masked_scatter(t.tensor(True), v),
    "masked nothing": lambda t, x, v: x.masked_scatter(x > 99, v[:0]),
    "masked too many": lambda t, x, v: x.masked_scatter(x > -9, v),
    "masked dtype": lambda t, x, v: x.masked_scatter(x > 1, v.float()),
    "masked number": lambda t, x, v: x.masked_scatter(x > 1, 2.0),
    "masked by floats": lambda t, x, v: x.masked_scatter(x.detach(), v),
    "masked in place": lambda t, x, v: (x * 1).masked_scatter_(x > 1, v),
    "masked in place, stretched": lambda t, x, v: (v[0] * 1).masked_scatter_(x > 1, v),
}


@pytest.mark.parametrize("name", PLACING)
def test_index_put_and_masked_scatter(name):
    both(PLACING[name], numbers((3, 4)), numbers((2, 4), 1))


INDEX_EDGES = {
    "int beside array, apart": lambda t, x: x[0, :, [0, 1]],
    "0-d tensor is an int": lambda t, x: x[t.tensor(1), :, t.tensor([0, 2])],
    "list": lambda t, x: x[[1, 0]],
    "empty list": lambda t, x: x[[]],
    "list of bools": lambda t, x: x[[True, False]],
    "tuple of lists": lambda t, x: x[[0, 1], [1, 2]],
    "True": lambda t, x: x[True],
    "False": lambda t, x: x[False],
    "0-d mask": lambda t, x: x[t.tensor(True)],
    "mask of all dims": lambda t, x: x[x > 0],
    "negative": lambda t, x: x[-1, ..., -2],
    "int32": lambda t, x: x[t.tensor([1, 0], dtype=t.int32)],
    "beyond the end": lambda t, x: x[:9, 2:1],
    "tensors as bounds": lambda t, x: x[t.tensor(0) : t.tensor(1)],
    "None only": lambda t, x: x[None, :, None],
    "same row twice": lambda t, x: x[t.tensor([0, 0, 1])],
    "too many": lambda t, x: x[0, 0, 0, 0],
    "out of range": lambda t, x: x[5],
    "tensor out of range": lambda t, x: x[t.tensor([5])],
    "float": lambda t, x: x[1.0],
    "str": lambda t, x: x["a"],
    "float tensor": lambda t, x: x[t.tensor([1.0])],
    "mask of another shape": lambda t, x: x[t.zeros(3, dtype=t.bool)],
    "backwards": lambda t, x: x[::-1],
    "0-d": lambda t, x: x.sum()[0],
    "0-d ...": lambda t, x: x.sum()[...] + x.sum()[None],
}


@pytest.mark.parametrize("edge", INDEX_EDGES)
def test_edges_of_indexing(edge):
    both(INDEX_EDGES[edge], numbers((2, 3, 4)))
