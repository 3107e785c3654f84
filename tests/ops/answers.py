"""One call in both frameworks without gradients: the same answer, or the same class of error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tests.ops.compare import dtype_name, tensors, to_numpy

ROOM = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 2e-6, "float64": 1e-10}
"""Two roundings of each dtype."""


def same_answer(call: Callable[[Any], Any]) -> None:
    """Results equal in number, shape, dtype and value."""
    mine, theirs = tensors(call(tg)), tensors(call(torch))
    assert len(mine) == len(theirs)
    for a, b in zip(mine, theirs, strict=True):
        assert dtype_name(a) == dtype_name(b) and tuple(a.shape) == tuple(b.shape), f"{a}, {b}"
        x, y = (to_numpy(v).astype(np.float64) for v in (a, b))
        room = ROOM.get(dtype_name(a), 0)
        np.testing.assert_allclose(x, y, room, room, equal_nan=True)


def same_error(call: Callable[[Any], Any], name: str) -> None:
    """PyTorch's class of error, or a base of it, and a sentence that begins with the op's name."""
    with pytest.raises(Exception) as theirs:
        call(torch)
    with pytest.raises(Exception) as mine:
        call(tg)
    if issubclass(theirs.type, torch.linalg.LinAlgError):
        assert mine.type is tg.linalg.LinAlgError
    else:
        assert issubclass(theirs.type, mine.type), f"{mine.value!r}, PyTorch: {theirs.value!r}"
    text = str(mine.value)
    assert text.partition(":")[0] == name and len(text.split()) > 4, text
