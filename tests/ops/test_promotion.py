"""dtypes mix as in PyTorch: tensors, 0-d tensors and Python numbers, op by op."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tests.ops.compare import (
    DTYPES,
    dtype_name,
    outcome,
    to_numpy,
)


def of(t, dtype, shape):
    """Ones of a dtype, 0-d tensors included."""
    return t.ones(shape, dtype=getattr(t, dtype) if dtype != "bool" else t.bool)


BINARY = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "floor_divide": lambda x, y: x // y,
    "remainder": lambda x, y: x % y,
    "pow": lambda x, y: x**y,
    "lt": lambda x, y: x < y,
    "eq": lambda x, y: x == y,
}
INTEGERS_ONLY = {"and": lambda x, y: x & y, "or": lambda x, y: x | y, "xor": lambda x, y: x ^ y}


def same_dtype(call):
    mine, theirs = outcome(lambda: call(tg)), outcome(lambda: call(torch))
    if isinstance(theirs, type):
        assert isinstance(mine, type) and issubclass(theirs, mine), (
            f"mine {mine}, PyTorch's {theirs}"
        )
    else:
        assert not isinstance(mine, type), f"mine {mine}, PyTorch's {theirs}"
        assert dtype_name(mine) == dtype_name(theirs)
        np.testing.assert_array_equal(
            to_numpy(mine).astype(np.float64), to_numpy(theirs).astype(np.float64)
        )


# On bools PyTorch has no division with rest; here they count as 0 and 1.
def undefined(name, *dtypes):
    return name in ("floor_divide", "remainder", "pow") and all(d in ("bool", bool) for d in dtypes)


@pytest.mark.parametrize("name", [*BINARY, *INTEGERS_ONLY])
def test_promotion_of_tensors(name):
    """All pairs of dtypes; a 0-d tensor only decides by its category."""
    call = {**BINARY, **INTEGERS_ONLY}[name]
    for a, b in itertools.product(DTYPES, DTYPES):
        for shapes in ([(3,), (3,)], [(3,), ()], [(), (3,)], [(), ()]):
            if not undefined(name, a, b):
                same_dtype(lambda t, s=shapes, a=a, b=b: call(of(t, a, s[0]), of(t, b, s[1])))


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("number", [True, 2, 2.5], ids=str)
def test_promotion_with_python_numbers(name, number):
    """A number only decides by its category, from either side."""
    for dtype, shape in itertools.product(DTYPES, [(3,), ()]):
        if not undefined(name, dtype, type(number)):
            same_dtype(lambda t, d=dtype, s=shape: BINARY[name](of(t, d, s), number))
            same_dtype(lambda t, d=dtype, s=shape: BINARY[name](number, of(t, d, s)))


UNARY = [
    "exp", "log", "sqrt", "sin", "tanh", "sigmoid", "erf", "reciprocal", "square", "sign",
    "floor", "round", "relu", "isnan", "logical_not", "neg", "abs", "sum", "mean", "prod", "max",
    "any", "cumsum", "argmax", "var",
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UNARY)
def test_result_dtypes_of_one_tensor(name, dtype):
    if dtype == "bool" and name in ("sign", "square", "floor", "round", "abs", "relu", "argmax"):
        pytest.skip("undefined for bools in PyTorch, or by accident of NumPy's")
    args = (0,) if name == "cumsum" else ()
    same_dtype(lambda t: getattr(of(t, dtype, (3,)), name)(*args).float().round(decimals=0))
    mine, theirs = (
        outcome(lambda t=t: getattr(of(t, dtype, (3,)), name)(*args)) for t in (tg, torch)
    )
    if not isinstance(theirs, type):
        assert dtype_name(mine) == dtype_name(theirs)


def test_numpy_scalars_count_as_python_numbers():
    x = tg.ones(3)
    for scalar in (np.float64(2), np.float32(2), np.int64(2), np.bool_(True)):
        assert (x * scalar).dtype == tg.float32 and (scalar * x).dtype == tg.float32
        assert isinstance(scalar * x, tg.Tensor)
    assert isinstance(np.ones(3) + x, tg.Tensor)


@pytest.mark.parametrize("zero", [0, "tensor"])
@pytest.mark.parametrize("name", ["floor_divide", "remainder", "fmod"])
def test_integers_are_not_divided_by_zero(name, zero):
    x = tg.tensor([1, 2])
    with pytest.raises(RuntimeError, match="zero"):
        getattr(tg, name)(x, tg.tensor([1, 0]) if zero == "tensor" else 0)


def test_products_of_different_dtypes_are_errors():
    for call in (
        lambda t, x, y: x @ y,
        lambda t, x, y: t.mv(x, y[:, 0]),
        lambda t, x, y: t.bmm(x[None], y[None]),
    ):
        for t in (tg, torch):
            with pytest.raises(RuntimeError, match=r"dtype|scalar type"):
                call(t, t.ones(3, 3), t.ones(3, 3).double())
