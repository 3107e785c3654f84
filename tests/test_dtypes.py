"""dtypes under PyTorch's names, and how they mix."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad.dtypes import as_dtype, category, is_differentiable, is_floating, result_type
from tests.ops.compare import DTYPES

ALL = [*DTYPES, "complex64", "complex128"]


def dtype(t, name):
    return t.bool if name == "bool" else getattr(t, name)


def name_of(dtype):
    return str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("name", ALL)
def test_names(name):
    mine = dtype(tg, name)
    assert isinstance(mine, tg.dtype) and name_of(mine) == name == name_of(dtype(torch, name))
    assert mine.itemsize == dtype(torch, name).itemsize
    assert as_dtype(name) == as_dtype(mine) == mine
    assert is_floating(mine) == dtype(torch, name).is_floating_point
    assert (category(mine) == 3) == dtype(torch, name).is_complex
    assert is_differentiable(mine) == is_floating(mine)


def test_short_names():
    for short in ("double", "half", "long", "int", "short", "float"):
        assert name_of(getattr(tg, short)) == name_of(getattr(torch, short))
    assert as_dtype(float) == tg.float32 and as_dtype(int) == tg.int64 and as_dtype(bool) == tg.bool
    assert as_dtype(np.float32) == tg.float32
    for wrong in ("float33", None.__class__, 3.5):
        with pytest.raises(TypeError, match="dtype"):
            as_dtype(wrong)


def test_promote_types():
    for a, b in itertools.product(ALL, ALL):
        mine = tg.promote_types(dtype(tg, a), dtype(tg, b))
        assert name_of(mine) == name_of(torch.promote_types(dtype(torch, a), dtype(torch, b))), (
            a,
            b,
        )


def test_result_type_of_three_ranks():
    """Tensors with dims, then 0-d ones, then numbers; each decides only by a higher category."""
    numbers = [True, 2, 2.5]
    for a, b in itertools.product(DTYPES, DTYPES):
        x, y = ((t.ones(3, dtype=dtype(t, a)), t.ones((), dtype=dtype(t, b))) for t in (tg, torch))
        assert name_of(result_type(*x)) == name_of(torch.result_type(*y)), (a, b)
        for number in numbers:
            mine, theirs = ((t.ones((), dtype=dtype(t, a)) * number).dtype for t in (tg, torch))
            assert name_of(mine) == name_of(theirs), (a, number)


def test_questions_to_tensors():
    for name in ALL:
        mine, theirs = tg.ones(2, dtype=dtype(tg, name)), torch.ones(2, dtype=dtype(torch, name))
        assert mine.is_floating_point() == theirs.is_floating_point()
        assert mine.is_complex() == theirs.is_complex()
        assert mine.dtype.itemsize == theirs.element_size()
