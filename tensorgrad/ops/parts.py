"""Parts of a tensor taken or put back: take, sliding windows, scatter into a layer or a slice."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad import memory
from tensorgrad.convert import cast
from tensorgrad.dtypes import int64
from tensorgrad.kinds import linear
from tensorgrad.ops.choices import where
from tensorgrad.ops.compare import ones_like
from tensorgrad.ops.diagonal import _diagonal, _on_diagonal
from tensorgrad.ops.indexing import _plain, _set_item, _slice, _take, select
from tensorgrad.ops.shape import _reshape, one_dim
from tensorgrad.ops.windows import wide
from tensorgrad.publish import public, publish

# ---- elements of the flattened tensor


@public()
def take(x: Any, index: Any) -> Any:
    """out[i] = x.flatten()[index[i]], in the shape of the index."""
    if index.dtype != int64:
        raise RuntimeError(f"take: expected an index of int64, not {index.dtype}")
    n, places = x.numel(), _plain(_reshape(index, (index.numel(),)))
    if index.numel() and not n:
        raise IndexError("take: an empty tensor has nothing to take")
    if places.size and not bool(((places >= -n) & (places < n)).all()):
        bad = places[(places < -n) | (places >= n)][0]
        raise IndexError(f"take: index {bad} is out of range for {n} elements")
    return _reshape(_take(_reshape(x, (n,)), (places,)), index.shape)


# ---- windows that slide along one dim

_unfold = linear(
    "unfold_dim", lambda xp, x, /, dim, size, step: _windows(xp, x, dim, size, step), view=True,
    dx=lambda g, x_shape, dim, size, step: _fold(g, x_shape, dim, size, step),
)  # fmt: skip
_unfold_copy = linear(
    "unfold_copy", lambda xp, x, /, dim, size, step: _windows(xp, x, dim, size, step).copy(),
    dx=lambda g, x_shape, dim, size, step: _fold(g, x_shape, dim, size, step),
)  # fmt: skip
_fold = linear(
    "fold_dim", lambda xp, g, /, shape, dim, size, step: _added(xp, g, shape, dim, size, step),
    dg=lambda g, dim, size, step: _unfold_copy(g, dim, size, step),
)  # fmt: skip


def _windows(xp: Any, x: Any, dim: int, size: int, step: int) -> Any:
    count, jump = (x.shape[dim] - size) // step + 1, x.strides[dim]
    shape = (*x.shape[:dim], count, *x.shape[dim + 1 :], size)
    strides = (*x.strides[:dim], jump * step, *x.strides[dim + 1 :], jump)
    root = memory.root_of(x)
    root = root if root.flags.c_contiguous else root.T
    if xp is not np or not root.flags.c_contiguous or not x.size:
        return xp.lib.stride_tricks.as_strided(x, shape, strides)
    # as_strided hides whose memory it is, by which changes in place are seen
    plain = np.dtype(f"V{x.itemsize}") if x.dtype.kind == "V" else x.dtype
    offset = x.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    out = np.ndarray(shape, plain, root.view(plain), offset, strides)
    out = out if plain is x.dtype else out.view(x.dtype)
    out.flags.writeable = out.flags.writeable and (step >= size or count < 2)
    return out


def _added(xp: Any, g: Any, shape: tuple[int, ...], dim: int, size: int, step: int) -> Any:
    """Each element's sum over the windows that it is in, one place of the windows at a time."""
    dtype, g, last = g.dtype, wide(g), (g.shape[dim] - 1) * step + 1
    out = xp.zeros(shape, g.dtype)
    for k in range(size):
        out[(slice(None),) * dim + (slice(k, k + last, step),)] += g[..., k]
    return out.astype(dtype, copy=False)


@public("unfold", method=False)
def _unfolded(x: Any, dimension: int, size: int, step: int) -> Any:
    """All windows of `size` elements along a dim, `step` apart, as a new last dim.

    (*, n, *) -> (*, (n - size) // step + 1, *, size).  A view; where windows overlap read-only,
    and a copy if x requires grad, for a later change of x would reach several places at once.
    """
    d, n = one_dim("unfold", dimension, x.ndim), x.shape[dimension] if x.ndim else 1
    if not 0 <= size <= n or step < 1:
        raise RuntimeError(
            f"unfold: size must lie in [0, {n}] for dim {dimension} of shape {x.shape} and step be "
            f"positive; they are {size} and {step}"
        )
    if not x.ndim:
        return _slice(_reshape(x, (1,)), slice(0, size))
    return (_unfold_copy if step < size and x.requires_grad else _unfold)(x, d, size, step)


# ---- a part replaced


def _embedded(name: str, x: Any, src: Any, part: tuple[int, ...], index: Any) -> Any:
    """x but with src, of the shape of the part that it replaces, at the index."""
    if src.shape != part:
        raise RuntimeError(f"{name}: src has shape {src.shape}, the part that it replaces {part}")
    return _set_item(x, src if src.dtype == x.dtype else cast(src, x.dtype), index)


@public()
def select_scatter(x: Any, src: Any, dim: int, index: int) -> Any:
    """out = x, but src is its layer x.select(dim, index)."""
    d, part = one_dim("select_scatter", dim, x.ndim), select(x, dim, index).shape
    return _embedded("select_scatter", x, src, part, (slice(None),) * d + (index,))


@public()
def slice_scatter(
    x: Any, src: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    """out = x, but src is its slice start:end:step along a dim."""
    if step < 1:
        raise RuntimeError(f"slice_scatter: step must be positive, not {step}")
    d = one_dim("slice_scatter", dim, x.ndim)
    index = (slice(None),) * d + (slice(start, end, step),)
    return _embedded("slice_scatter", x, src, _slice(x, index).shape, index)


@public()
def diagonal_scatter(x: Any, src: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """out = x, but src is x.diagonal(offset, dim1, dim2)."""
    a, b = (one_dim("diagonal_scatter", d, x.ndim) for d in (dim1, dim2))
    if a == b:
        raise RuntimeError(f"diagonal_scatter: dims {dim1} and {dim2} are the same")
    part = _diagonal(x, offset, a, b)
    if src.shape != part.shape:
        raise RuntimeError(
            f"diagonal_scatter: src has shape {src.shape}, the diagonal {part.shape}"
        )
    src = src if src.dtype == x.dtype else cast(src, x.dtype)
    there = _on_diagonal(ones_like(part), x.shape, offset, a, b) != 0
    return where(there, _on_diagonal(src, x.shape, offset, a, b), x)


__all__ = publish(globals())
