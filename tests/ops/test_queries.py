"""What a tensor says of itself: sizes, strides, types; and the operators that are no arithmetic."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch
from hypothesis import given

import tensorgrad as tg
from tests.ops.compare import DTYPES, SHAPES, both, few, numbers, outcome

ANSWERS = {
    "stride": lambda x: x.stride(),
    "stride of a dim": lambda x: x.stride(-1),
    "is_contiguous": lambda x: x.is_contiguous(),
    "numel": lambda x: (x.numel(), x.nelement(), x.dim(), x.ndim),
    "bytes": lambda x: (x.element_size(), x.itemsize, x.nbytes),
    "kind": lambda x: (x.is_floating_point(), x.is_complex()),
    "len": lambda x: len(x),
}
VIEWS = {
    "itself": lambda x: x,
    "transposed": lambda x: x.T if x.ndim == 2 else x,
    "stepped": lambda x: x[::2] if x.ndim else x,
    "expanded": lambda x: x.expand(2, *x.shape),
    "unsqueezed": lambda x: x.unsqueeze(0),
}


@given(shape=SHAPES)
@few
@pytest.mark.parametrize("view", VIEWS)
def test_answers_are_pytorchs(view, shape):
    """Of dims of size one and zero the stride is free, and NumPy's need not be PyTorch's."""
    views = [VIEWS[view](t.zeros(shape)) for t in (tg, torch)]
    for name, answer in ANSWERS.items():
        mine, theirs = (outcome(lambda x=x, f=answer: f(x)) for x in views)
        if "stride" not in name or view == "itself" or min(views[0].shape, default=2) > 1:
            assert mine == theirs, name


def test_data_ptr_is_where_the_elements_lie():
    x = tg.arange(12.0).reshape(3, 4)
    assert x[1].data_ptr() - x.data_ptr() == 4 * x.element_size() == 16
    assert x.view(-1).data_ptr() == x.data_ptr() != x.clone().data_ptr()
    assert tg.empty(0).data_ptr() == torch.empty(0).data_ptr() == 0
    assert x.data_ptr() == x.array.ctypes.data


@pytest.mark.parametrize("dtype", DTYPES)
def test_type_says_and_converts(dtype):
    mine, theirs = (t.ones(2, dtype=getattr(t, dtype)) for t in (tg, torch))
    assert mine.type() == theirs.type().replace("torch.", "tensorgrad.")
    x = tg.tensor([0.5, 2.0], requires_grad=True)
    for wanted in (getattr(tg, dtype), dtype, mine.type(), theirs.type()):
        assert x.type(wanted).dtype == mine.dtype
    assert x.type(tg.float32) is x
    x.type(tg.float64).sum().backward()
    assert x.grad.tolist() == [1, 1]


def test_types_that_do_not_exist():
    with pytest.raises(ValueError, match="FloTensor"):
        tg.ones(2).type("torch.FloTensor")
    with pytest.raises(TypeError):
        tg.ones(2).type(3.5)


OPERATORS = {
    "+x": lambda t, x: +x,
    "reversed": lambda t, x: reversed(x),
    "reversed 0-d": lambda t, x: reversed(x.sum()),
    "+bool": lambda t, x: +(x > 0),
    "in": lambda t, x: t.tensor([2.5 in t.tensor([1.0, 2.5]), 7 in x, x[0, 0] in x]),
    "in, no number": lambda t, x: "a" in x,
    "in, nothing": lambda t, x: None in x,
    "<<": lambda t, x: (x.detach().long() + 3) << t.tensor([1, 2, 0, 4, 60]),
    ">>": lambda t, x: (x.detach().long() * 100) >> 2,
    "r<<": lambda t, x: 3 << (x.detach().long() + 3),
    "r>>": lambda t, x: 300 >> (x.detach().long() + 3),
    "<< of floats": lambda t, x: x << 1,
    "shift function": lambda t, x: t.bitwise_left_shift(t.tensor([1, 2]), t.tensor([3, 4])),
    "shift of bytes": lambda t, x: t.tensor([200, 3], dtype=t.uint8) << 1,
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name):
    both(OPERATORS[name], numbers((3, 5)))


def test_shifts_are_integers_own():
    x = np.array([1, -9, 12345])
    for shift in (operator.lshift, operator.rshift):
        assert shift(tg.from_numpy(x), 3).tolist() == [shift(int(n), 3) for n in x]
