"""Rows of a table by their numbers, and the gradient of a table of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad import memory
from tensorgrad.backend import xp_of
from tensorgrad.dtypes import category
from tensorgrad.kinds import linear
from tensorgrad.ops.indexing import _added, _in_range, _place
from tensorgrad.tensor import Operable, Tensor
from tensorgrad.tracer import Tracer

_embedding = linear(
    "embedding", lambda xp, weight, index, /, skip: weight.take(index, 0),
    dweight=lambda g, weight_shape, index, skip: _embedding_sum(g, index, weight_shape, skip),
)  # fmt: skip
_embedding_sum = linear(
    "embedding_sum", lambda xp, x, index, /, shape, skip: _collected(xp, x, index, shape, skip),
    dx=lambda g, index, skip: _embedding(_without_row(g, skip), index, skip),
)  # fmt: skip


def _without_row(weight: Any, skip: int | None) -> Any:
    return (
        weight
        if skip is None
        else weight - _place(weight[skip : skip + 1], weight.shape, slice(skip, skip + 1))
    )


def _collected(xp: Any, x: Any, index: Any, shape: tuple[int, ...], skip: int | None) -> Any:
    out = _added(xp, x.reshape(index.size, shape[1]), shape, index.reshape(-1))
    if skip is not None:
        out[skip] = 0
    return out


_embedding_by_frequency = linear(
    "embedding_by_frequency", lambda xp, weight, index, /, skip: weight.take(index, 0),
    dweight=lambda g, weight_shape, index, skip: _embedding_sum(
        g / _frequency(index, weight_shape[0], g.dtype), index, weight_shape, skip
    ),
)  # fmt: skip


def _frequency(index: Any, rows: int, dtype: Any) -> Any:
    """How often each entry of the index occurs in it: (...) -> (..., 1)."""
    index = _raw(index)
    counts = xp_of(index).bincount(index.reshape(-1), minlength=rows)
    return counts[index][..., None].astype(dtype)


def _raw(x: Any) -> Any:
    while isinstance(x, Operable):
        x = x.value if isinstance(x, Tracer) else x.array
    return x


def _shorten(weight: Any, index: Any, max_norm: float, norm_type: float) -> None:
    """Scale the rows that are asked for, in place, to a norm of max_norm at most."""
    xp = xp_of(weight.array)
    rows = xp.unique(_raw(index))
    picked = weight.array[rows]
    if picked.dtype.itemsize == 2:
        picked = picked.astype(np.float32)
    norms = xp.linalg.norm(picked, norm_type, -1, keepdims=True)
    weight.array[rows] = xp.where(norms > max_norm, picked * (max_norm / (norms + 1e-7)), picked)
    memory.stamp(weight.array)


def embedding(
    input: Any, weight: Any, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Any:  # fmt: skip
    """out = weight[input]: (...) ints, (V, C) -> (..., C); row padding_idx receives no gradient.

    max_norm: first shorten, in place, the rows of a larger norm among those asked for.
    scale_grad_by_freq: divide a row's gradient by how often the input asks for it.
    """
    if sparse:
        raise RuntimeError("embedding: there are no sparse gradients; leave out sparse=True")
    if category(input.dtype) != 1:
        raise RuntimeError(f"embedding: expected integer indices, not {input.dtype}")
    if weight.ndim != 2:
        raise RuntimeError(f"embedding: the weight must be 2-d, its shape is {weight.shape}")
    rows = weight.shape[0]
    if padding_idx is not None:
        if not -rows <= padding_idx < rows:
            raise AssertionError(
                f"embedding: padding_idx {padding_idx} is out of range for {rows} rows"
            )
        padding_idx %= rows
    _in_range("embedding", input, rows, IndexError)
    if max_norm is not None:
        if not isinstance(weight, Tensor):
            raise RuntimeError("embedding: max_norm changes the weight, which is being traced")
        _shorten(weight, input, max_norm, norm_type)
    return (_embedding_by_frequency if scale_grad_by_freq else _embedding)(
        weight, input, padding_idx
    )
