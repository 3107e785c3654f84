"""Tensors side by side, in grids and in pieces: each is cat, split or a view of shape.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorgrad.ops.indexing import _slice
from tensorgrad.ops.shape import (
    _flip,
    _reshape,
    _sequence,
    _swap,
    all_dims,
    broadcast,
    cat,
    movedim,
    one_dim,
    split,
    transpose,
)
from tensorgrad.publish import public, publish
from tensorgrad.tensor import Operable

swapaxes = swapdims = transpose
moveaxis = movedim


def _at_least(x: Any, rank: int) -> Any:
    """With dims of size one in front, and one behind for the third, until there are `rank`."""
    shape = x.shape if x.shape else (1,)
    if len(shape) < 2 <= rank:
        shape = (1, *shape)
    return _reshape(x, (*shape, 1) if len(shape) < rank else shape)


def _each(tensors: tuple[Any, ...], rank: int) -> Any:
    xs = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    out = tuple(_at_least(x, rank) for x in xs)
    return out[0] if xs is tensors and len(out) == 1 else out


@public(method=False)
def atleast_1d(*tensors: Any) -> Any:
    """Each tensor with at least one dim."""
    return _each(tensors, 1)


@public(method=False)
def atleast_2d(*tensors: Any) -> Any:
    """Each tensor with at least two dims: a vector becomes a row."""
    return _each(tensors, 2)


@public(method=False)
def atleast_3d(*tensors: Any) -> Any:
    """Each tensor with at least three dims: (n) becomes (1, n, 1), (n, m) becomes (n, m, 1)."""
    return _each(tensors, 3)


def _raised(name: str, tensors: Any, rank: int) -> tuple[Any, ...]:
    return tuple(_at_least(x, rank) for x in _sequence(name, tensors, RuntimeError))


@public(method=False)
def hstack(tensors: Any) -> Any:
    """Tensors joined along dim 1; vectors along their only dim."""
    xs = _raised("hstack", tensors, 1)
    return cat(xs, 0 if xs[0].ndim == 1 else 1)


@public(method=False)
def vstack(tensors: Any) -> Any:
    """Tensors joined along dim 0, vectors as rows."""
    return cat(_raised("vstack", tensors, 2), 0)


@public(method=False)
def dstack(tensors: Any) -> Any:
    """Tensors joined along dim 2, matrices as layers."""
    return cat(_raised("dstack", tensors, 3), 2)


@public(method=False)
def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Any, ...]:
    """out[k][i0, i1, ...] = tensors[k][i_k]: vectors stretched to one grid; views.

    indexing="xy" exchanges the first two dims of every grid.
    """
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    xs = _sequence("meshgrid", given, RuntimeError)
    if indexing not in ("ij", "xy"):
        raise RuntimeError(f"meshgrid: indexing must be 'ij' or 'xy', not {indexing!r}")
    for x in xs:
        if x.ndim > 1:
            raise RuntimeError(f"meshgrid: expected vectors, not a tensor of shape {x.shape}")
        if x.dtype != xs[0].dtype:
            raise RuntimeError(f"meshgrid: dtypes {xs[0].dtype} and {x.dtype} differ")
    shape, n = tuple(x.numel() for x in xs), len(xs)
    grids = tuple(
        broadcast(_reshape(x, tuple(x.numel() if i == k else 1 for i in range(n))), shape)
        for k, x in enumerate(xs)
    )
    return grids if indexing == "ij" or n < 2 else tuple(_swap(grid, 0, 1) for grid in grids)


@public()
def rot90(x: Any, k: int = 1, dims: Sequence[int] = (0, 1)) -> Any:
    """Turned k times by 90 degrees, from the first of two dims towards the second."""
    if len(dims) != 2 or x.ndim < 2:
        raise RuntimeError(f"rot90: expected two of at least two dims, not {dims} of {x.shape}")
    a, b = all_dims("rot90", tuple(dims), x.ndim)
    turns = k % 4
    if turns == 0:
        return x.clone()
    if turns == 2:
        return _flip(x, (a, b))
    return _swap(_flip(x, (b,)), a, b) if turns == 1 else _flip(_swap(x, a, b), (b,))


@public()
def tensor_split(x: Any, indices_or_sections: Any, dim: int = 0) -> tuple[Any, ...]:
    """Pieces along a dim: so many, equal but for one element, or x[:i], x[i:j], ...  Views."""
    if not x.ndim:
        raise RuntimeError("tensor_split: a 0-d tensor cannot be split")
    d, places = one_dim("tensor_split", dim, x.ndim), indices_or_sections
    if isinstance(places, Operable):
        places = places.tolist()
    if isinstance(places, int):
        if places < 1:
            raise RuntimeError(f"tensor_split: the number of pieces must be positive, not {places}")
        full, more = divmod(x.shape[d], places)
        return split(x, [full + (i < more) for i in range(places)], d)
    return tuple(
        _slice(x, (slice(None),) * d + (slice(start, stop),))
        for start, stop in zip((0, *places), (*places, None))
    )


__all__ = publish(globals())
