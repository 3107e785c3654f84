"""New tensors: zeros, ones, full, arange, linspace, eye and their kin."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensorgrad.backend import xp_for, xp_of
from tensorgrad.dtypes import as_dtype, get_default_dtype, int64, result_type
from tensorgrad.ops.shape import sizes_of
from tensorgrad.publish import public, publish
from tensorgrad.tensor import Tensor


def made(array: Any, requires_grad: bool) -> Tensor:
    """A new leaf on this array."""
    return Tensor(array).requires_grad_(True) if requires_grad else Tensor(array)


def _dtype(dtype: Any) -> Any:
    return get_default_dtype() if dtype is None else as_dtype(dtype)


def _sizes(name: str, size: tuple[Any, ...]) -> tuple[int, ...]:
    sizes = sizes_of(size)
    if any(n < 0 for n in sizes):
        raise RuntimeError(f"{name}: sizes must not be negative, these are {sizes}")
    return sizes


def zeros(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros."""
    return made(xp_for(device).zeros(_sizes("zeros", size), _dtype(dtype)), requires_grad)


def ones(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of ones."""
    return made(xp_for(device).ones(_sizes("ones", size), _dtype(dtype)), requires_grad)


def empty(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor whose values are whatever the memory held."""
    return made(xp_for(device).empty(_sizes("empty", size), _dtype(dtype)), requires_grad)


def full(
    size: Any,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor filled with one value, whose type gives the dtype."""
    value = fill_value.item() if isinstance(fill_value, Tensor) else fill_value
    if dtype is None:
        dtype = result_type(value)
    sizes = (size,) if isinstance(size, int) else tuple(size)
    return made(xp_for(device).full(_sizes("full", sizes), value, as_dtype(dtype)), requires_grad)


def arange(
    start: Any,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """start, start + step, ... up to but without end; int64 for ints, else the default dtype."""
    if end is None:
        start, end = 0, start
    start, end, step = (v.item() if isinstance(v, Tensor) else v for v in (start, end, step))
    if step == 0:
        raise RuntimeError("arange: step must not be zero")
    if (end - start) * step < 0:
        raise RuntimeError(f"arange: step {step} leads away from end {end} (start {start})")
    whole = all(isinstance(v, (int, np.integer)) for v in (start, end, step))
    dtype = as_dtype(dtype) if dtype is not None else int64 if whole else get_default_dtype()
    count = math.ceil((end - start) / step)
    xp = xp_for(device)
    return made((start + step * xp.arange(count)).astype(dtype), requires_grad)


def linspace(
    start: Any,
    end: Any,
    steps: int,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`steps` values from start to end, both included."""
    if steps < 0:
        raise RuntimeError(f"linspace: the number of steps must not be negative, it is {steps}")
    return made(xp_for(device).linspace(start, end, steps, dtype=_dtype(dtype)), requires_grad)


def eye(
    n: int,
    m: int | None = None,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Ones on the diagonal, zeros elsewhere."""
    _sizes("eye", (n, n if m is None else m))
    return made(xp_for(device).eye(n, m, dtype=_dtype(dtype)), requires_grad)


def tril_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None
) -> Tensor:
    """(2, n): rows and columns of the elements of a lower triangle, row by row."""
    return _triangle(lambda i, j: j - i <= offset, row, col, dtype, device)


def triu_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None
) -> Tensor:
    """(2, n): rows and columns of the elements of an upper triangle, row by row."""
    return _triangle(lambda i, j: j - i >= offset, row, col, dtype, device)


def _triangle(inside: Any, row: int, col: int, dtype: Any, device: Any) -> Tensor:
    xp = xp_for(device)
    found = xp.argwhere(inside(xp.arange(row)[:, None], xp.arange(col)))
    return Tensor(found.T.astype(int64 if dtype is None else as_dtype(dtype), order="C"))


def _like(name: str, x: Any, dtype: Any, device: Any, requires_grad: bool, *value: Any) -> Tensor:
    xp = xp_of(x.array) if device is None else xp_for(device)
    return made(
        getattr(xp, name)(x.shape, *value, dtype=x.dtype if dtype is None else as_dtype(dtype)),
        requires_grad,
    )


def empty_like(
    x: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    return _like("empty", x, dtype, device, requires_grad)


def full_like(
    x: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    return _like("full", x, dtype, device, requires_grad, fill_value)


@public()
def new_zeros(x: Any, *size: Any, dtype: Any = None) -> Tensor:
    return Tensor(
        xp_of(x.array).zeros(
            _sizes("new_zeros", size), x.dtype if dtype is None else as_dtype(dtype)
        )
    )


@public()
def new_ones(x: Any, *size: Any, dtype: Any = None) -> Tensor:
    return Tensor(
        xp_of(x.array).ones(_sizes("new_ones", size), x.dtype if dtype is None else as_dtype(dtype))
    )


@public()
def new_full(x: Any, size: Any, fill_value: Any, dtype: Any = None) -> Tensor:
    return full(size, fill_value, dtype=x.dtype if dtype is None else dtype, device=x.device)


@public()
def new_tensor(x: Any, data: Any, dtype: Any = None) -> Tensor:
    """A copy of data with this tensor's dtype and device."""
    from tensorgrad.convert import tensor

    return tensor(data, dtype=x.dtype if dtype is None else dtype, device=x.device)


publish(globals())
__all__ = [
    "arange", "empty", "empty_like", "eye", "full", "full_like", "linspace", "ones",
    "tril_indices", "triu_indices", "zeros",
]  # fmt: skip
