"""New tensors, from nothing, from data, from each other: shapes, values, dtypes are PyTorch's."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad as tg
from tests.ops.compare import assert_same, dtype_name, to_numpy

MAKERS = {
    "zeros": lambda t: t.zeros(3, 5),
    "zeros of a tuple": lambda t: t.zeros((3, 5), dtype=t.int32),
    "zeros of nothing": lambda t: t.zeros(()),
    "ones": lambda t: t.ones([2, 0, 3]),
    "full": lambda t: t.full((3, 5), 2.5),
    "full of ints": lambda t: t.full((3,), 2),
    "full of bools": lambda t: t.full((3,), True),
    "full with a dtype": lambda t: t.full((3,), 2, dtype=t.float64),
    "arange": lambda t: t.arange(7),
    "arange from, to": lambda t: t.arange(2, 7),
    "arange step": lambda t: t.arange(7, 2, -2),
    "arange floats": lambda t: t.arange(0.0, 1.0, 0.3),
    "arange float end": lambda t: t.arange(3.0),
    "arange dtype": lambda t: t.arange(5, dtype=t.float64),
    "arange keywords": lambda t: t.arange(start=1, end=4),
    "arange nothing": lambda t: t.arange(0),
    "arange tensors": lambda t: t.arange(t.tensor(3)),
    "linspace": lambda t: t.linspace(-1, 1, 7),
    "linspace one": lambda t: t.linspace(3, 4, 1),
    "linspace double": lambda t: t.linspace(0, 1, 11, dtype=t.float64),
    "eye": lambda t: t.eye(3),
    "eye wide": lambda t: t.eye(3, 5, dtype=t.int64),
    "zeros_like": lambda t: t.zeros_like(t.arange(6).reshape(2, 3)),
    "zeros_like dtype": lambda t: t.zeros_like(t.arange(6), dtype=t.float64),
    "ones_like": lambda t: t.ones_like(t.zeros(2, 3)),
    "full_like": lambda t: t.full_like(t.zeros(2, 3), 7),
    "new_zeros": lambda t: t.ones(2, dtype=t.float64).new_zeros(3, 5),
    "new_ones": lambda t: t.ones(2).new_ones((3, 5), dtype=t.int32),
    "new_full": lambda t: t.ones(2).new_full((3,), 2.5),
    "new_tensor": lambda t: t.ones(2).new_tensor([1, 2]),
    "tril_indices": lambda t: t.tril_indices(4, 3),
    "tril_indices below": lambda t: t.tril_indices(3, 5, -1),
    "triu_indices": lambda t: t.triu_indices(3, 5, offset=1),
    "tensor of floats": lambda t: t.tensor([[1.5, 2], [3, 4]]),
    "tensor of ints": lambda t: t.tensor([1, 2]),
    "tensor of bools": lambda t: t.tensor([True, False]),
    "tensor of both": lambda t: t.tensor([True, 2, 3.5]),
    "tensor of a number": lambda t: t.tensor(2.5),
    "tensor of nothing": lambda t: t.tensor([]),
    "tensor of empties": lambda t: t.tensor([[], []]),
    "tensor of an array": lambda t: t.tensor(np.arange(3.0)),
    "tensor of arrays": lambda t: t.tensor(np.array([np.arange(3, dtype=np.float32)] * 2)),
    "tensor of a NumPy number": lambda t: t.tensor(np.float64(2)),
    "tensor with a dtype": lambda t: t.tensor([1, 2], dtype=t.float16),
    "tensor of tensors": lambda t: t.tensor([t.tensor(1.0), t.tensor(2.0)]),
    "as_tensor": lambda t: t.as_tensor([1, 2], dtype=t.float32),
    "from_numpy": lambda t: t.from_numpy(np.arange(6, dtype=np.int16).reshape(2, 3)),
    "to dtype": lambda t: t.ones(3).to(t.int64),
    "to like another": lambda t: t.ones(3).to(t.zeros(1, dtype=t.float64)),
    "long": lambda t: t.tensor([1.7, -1.7]).long(),
    "bool": lambda t: t.tensor([1.7, 0.0]).bool(),
    "int8 wraps": lambda t: t.tensor([300, -300]).to(t.int8),
    "half": lambda t: t.tensor([1e-3, 1e5]).half(),
    "type_as": lambda t: t.arange(3).type_as(t.ones(1)),
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_made_as_in_pytorch(name):
    assert_same([MAKERS[name](tg)], [MAKERS[name](torch)], rtol=1e-7)


@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(1, 7))
def test_arange_of_ints(start, end, step):
    step = step if end >= start else -step
    assert_same([tg.arange(start, end, step)], [torch.arange(start, end, step)])


@given(st.floats(-5, 5), st.floats(0, 5), st.sampled_from([0.1, 0.25, 0.3, 1.0]))
def test_arange_of_floats(start, length, step):
    mine, theirs = (t.arange(start, start + length, step, dtype=t.float64) for t in (tg, torch))
    assert_same([mine], [theirs])


@given(st.floats(-5, 5), st.floats(-5, 5), st.integers(0, 9))
def test_linspace(start, end, steps):
    mine, theirs = (t.linspace(start, end, steps, dtype=t.float64) for t in (tg, torch))
    assert_same([mine], [theirs])


@pytest.mark.parametrize("name", ["zeros", "ones", "empty"])
def test_requires_grad(name):
    x = getattr(tg, name)(3, requires_grad=True)
    assert x.requires_grad and x.is_leaf and x.dtype == tg.float32
    for like in (tg.zeros_like(x, requires_grad=True), tg.tensor(x.detach(), requires_grad=True)):
        assert like.requires_grad and like.is_leaf
    assert not tg.ones_like(x).requires_grad


def test_tensor_copies_and_from_numpy_shares():
    array = np.arange(3.0)
    copy, shared, wrapped = tg.tensor(array), tg.from_numpy(array), tg.as_tensor(array)
    array[0] = 9
    assert copy.tolist() == [0, 1, 2] and shared.tolist() == [9, 1, 2] == wrapped.tolist()
    assert shared.numpy() is array
    shared += 1
    assert array.tolist() == [10, 2, 3]
    x = tg.ones(3)
    assert tg.as_tensor(x) is x and x.to(tg.float32) is x and x.float() is x and x.cpu() is x
    assert x.to(tg.float32, copy=True) is not x and x.clone().array is not x.array


def test_negative_strides_need_no_copy():
    array = np.arange(5.0)[::-1]
    x = tg.from_numpy(array).requires_grad_()
    assert x.tolist() == [4, 3, 2, 1, 0]
    (x * x).sum().backward()
    assert x.grad.tolist() == [8, 6, 4, 2, 0]


def test_casts_are_recorded():
    x = tg.ones(3, requires_grad=True)
    x.double().sum().backward()
    assert x.grad.dtype == tg.float32
    y = x.to(tg.float16) * 2
    y.sum().backward()
    assert x.grad.tolist() == [3, 3, 3] and x.grad.dtype == tg.float32
    assert not x.long().requires_grad


def test_dlpack_both_ways():
    theirs = torch.arange(6.0).reshape(2, 3)
    mine = tg.from_dlpack(theirs)
    theirs[0, 0] = 7
    assert mine[0, 0].item() == 7
    back = torch.from_dlpack(mine)
    assert torch.equal(back, theirs)
    assert np.from_dlpack(mine).shape == (2, 3)
    with pytest.raises(BufferError, match="detach"):
        torch.from_dlpack(tg.ones(3, requires_grad=True))


def test_numpy_understands_tensors():
    x = tg.tensor([[1.0, 2.0]])
    assert np.asarray(x) is x.array
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    assert np.sum(x.numpy()) == 3
    with pytest.raises(RuntimeError, match="detach"):
        np.asarray(tg.ones(3, requires_grad=True))


def test_python_values():
    x = tg.tensor([[1, 2], [3, 4]])
    assert x.tolist() == [[1, 2], [3, 4]] and x[0, 1].item() == 2 and int(x[1, 1]) == 4
    assert float(tg.tensor(2.5)) == 2.5 and bool(tg.tensor([True])) and len(x) == 2
    assert [row.tolist() for row in x] == [[1, 2], [3, 4]] and 3 in x and 7 not in x
    assert [10, 20, 30][tg.tensor(1)] == 20 and complex(tg.tensor(2.0)) == 2
    assert x.shape == (2, 2) and x.size() == (2, 2) and x.size(-1) == 2 and x.numel() == 4
    assert x.dim() == x.ndim == 2 and isinstance(x[0, 0].item(), int)


def test_the_default_dtype():
    """In a process of its own: it is a setting of all tensors."""
    script = """
import torch, tensorgrad as tg
for dtype in ("float64", "float16", "bfloat16", "float32"):
    for t in (tg, torch):
        t.set_default_dtype(getattr(t, dtype))
        made = [t.zeros(2), t.tensor([1.0]), t.arange(3.0), t.linspace(0, 1, 3)]
        made += [t.tensor([1]) / 2, t.tensor([1]) * 0.5]
        assert all(str(x.dtype).removeprefix("torch.") == dtype for x in made), (t, dtype, made)
        assert str(t.get_default_dtype()).removeprefix("torch.") == dtype
try:
    tg.set_default_dtype(tg.int64)
except TypeError as error:
    assert "float" in str(error)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int32", "bool"])
def test_casts_between_all(dtype):
    values = np.array([0.0, 1.0, -2.5, 1e-3, 300.0, 7.99])
    for other in ("float16", "bfloat16", "float32", "float64", "int64"):
        mine, theirs = (
            t.tensor(values.tolist(), dtype=getattr(t, other)).to(getattr(t, dtype))
            for t in (tg, torch)
        )
        assert dtype_name(mine) == dtype_name(theirs)
        np.testing.assert_array_equal(
            to_numpy(mine).astype(np.float64), to_numpy(theirs).astype(np.float64)
        )
