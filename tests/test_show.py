"""Tensors print as PyTorch's do, but for the names of dtypes and of what made them."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tensorgrad as tg

NUMBERS = st.one_of(
    st.integers(-20, 20).map(float),
    st.floats(-10, 10, width=32),
    st.floats(width=32),
    st.sampled_from([0.0, -0.0, 1e-5, 1e9, float("inf"), float("-inf"), float("nan")]),
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)


def theirs(array):
    return repr(torch.from_numpy(array.copy())).replace("torch.", "")


def joined(text):
    """The notes behind the numbers on their line: "dtype=torch.float64" is longer than ours."""
    return text.replace(",\n       dtype", ", dtype")


@given(hnp.arrays(np.float32, SHAPES, elements=NUMBERS))
@settings(max_examples=150)
def test_floats(array):
    assert repr(tg.from_numpy(array)) == theirs(array)


@given(
    hnp.arrays(
        st.sampled_from([np.int64, np.bool_, np.uint8, np.float64, np.float16, np.int32]), SHAPES
    )
)
@settings(max_examples=100)
def test_other_dtypes(array):
    assert joined(repr(tg.from_numpy(array))) == joined(theirs(array))


@pytest.mark.parametrize("shape", [(1001,), (7, 150), (30, 40), (2, 3, 200), (8, 9, 15), (1, 2000)])
def test_large_tensors_are_abridged(shape):
    draw = np.random.default_rng(0)
    for array in (draw.normal(size=shape).astype(np.float32), draw.integers(-9, 999, shape)):
        assert repr(tg.from_numpy(array)) == theirs(array)


def test_where_it_came_from():
    x = tg.tensor([1.0, 2.5], requires_grad=True)
    assert repr(x) == "tensor([1.0000, 2.5000], requires_grad=True)"
    assert repr(x * 2) == "tensor([2., 5.], grad_fn=<mul>)"
    wide = tg.zeros(9, dtype=tg.float64, requires_grad=True) + 0.5
    text = re.sub(r"<AddBackward0>", "<add>", theirs_with_history())
    assert joined(repr(wide)) == joined(text)
    assert f"{tg.tensor(2.5):.1f}" == "2.5" and f"{x.detach()}" == "tensor([1.0000, 2.5000])"


def theirs_with_history():
    x = torch.zeros(9, dtype=torch.float64, requires_grad=True) + 0.5
    return repr(x).replace("torch.", "")


def test_bfloat16():
    values = [0.1, 1.0, 300.0]
    assert repr(tg.tensor(values, dtype=tg.bfloat16)) == (
        repr(torch.tensor(values, dtype=torch.bfloat16)).replace("torch.", "")
    )
