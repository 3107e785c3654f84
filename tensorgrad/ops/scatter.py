"""Elements placed, or added, where an index says: scatter along a dim, and its row-wise kin."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.backend import is_array, move
from tensorgrad.dtypes import category
from tensorgrad.kinds import linear
from tensorgrad.ops.choices import masked_fill, where
from tensorgrad.ops.compare import zeros_like
from tensorgrad.ops.indexing import (
    _common,
    _corner,
    _gather,
    _in_range,
    _put,
    _scatter_add,
    _set_item,
    _slice,
    split_index,
)
from tensorgrad.ops.shape import _reshape, broadcast, expand, one_dim
from tensorgrad.publish import public, publish
from tensorgrad.tensor import Operable, Tensor

_scatter = linear(
    "scatter", lambda xp, x, src, index, /, dim: _scattered(xp, x, src, index, dim),
    dx=lambda g, index, dim: _scatter(g, zeros_like(_gather(g, index, dim)), index, dim),
    dsrc=lambda g, index, dim: _gather(g, index, dim),
)  # fmt: skip


def _places(xp: Any, index: Any, dim: int) -> tuple[Any, ...]:
    places = list(xp.ogrid[tuple(slice(n) for n in index.shape)])
    places[dim] = index
    return tuple(places)


def _scattered(xp: Any, x: Any, src: Any, index: Any, dim: int) -> Any:
    out = x.copy()
    out[_places(xp, index, dim)] = src
    return out


def _checked(name: str, x: Any, dim: int, index: Any, src: Any = None) -> tuple[Any, ...]:
    """x, dim, index and src, of one rank; as much of src as the index reads."""
    d = one_dim(name, dim, x.ndim)
    if category(index.dtype) != 1:
        raise RuntimeError(f"{name}: expected an index of int64, not {index.dtype}")
    tensors = [x, index] if src is None else [x, index, src]
    if index.numel() and len({v.ndim or 1 for v in tensors}) > 1:
        raise RuntimeError(
            f"{name}: tensor, index and src need equally many dims, their shapes are "
            + ", ".join(str(v.shape) for v in tensors)
        )
    tensors = [v if v.ndim else _reshape(v, (1,)) for v in tensors]
    for i, n in enumerate(tensors[1].shape):
        if (i != d and n > tensors[0].shape[i]) or (src is not None and n > tensors[2].shape[i]):
            raise RuntimeError(
                f"{name}: an index of shape {index.shape} exceeds a tensor of shape {x.shape}"
                + (f" or src of shape {src.shape}" if src is not None else "")
            )
    _in_range(name, tensors[1], tensors[0].shape[d])
    if src is not None:
        if src.dtype != x.dtype:
            raise RuntimeError(f"{name}: src has dtype {src.dtype}, the tensor {x.dtype}")
        if tensors[2].shape != tensors[1].shape:
            tensors[2] = _slice(tensors[2], _corner(tensors[1].shape, -1))
    return (tensors[0], d, *tensors[1:])


@public()
def scatter(x: Any, dim: int, index: Any, src: Any = None, *, value: Any = None) -> Any:
    """out = x but out[index[i][j]][j] = src[i][j] (for dim 0); src is a tensor or a number."""
    src = value if src is None else src
    if isinstance(src, Operable):
        a, d, places, source = _checked("scatter", x, dim, index, src)
        return _reshape(_scatter(a, source, places, d), x.shape) if index.numel() else x.clone()
    a, d, places = _checked("scatter", x, dim, index)
    if not index.numel():
        return x.clone()
    hit = np.zeros(a.shape, bool)
    hit[_places(np, places.cpu().array, d)] = True
    return _reshape(masked_fill(a, Tensor(hit).to(x.device), src), x.shape)


@public()
def scatter_add(x: Any, dim: int, index: Any, src: Any) -> Any:
    """out = x with src[i][j] added at out[index[i][j]][j] (for dim 0)."""
    a, d, places, source = _checked("scatter_add", x, dim, index, src)
    if not index.numel():
        return x.clone()
    return x + _reshape(_scatter_add(source, places, a.shape, d), x.shape)


def _layers(name: str, x: Any, dim: int, index: Any, source: Any) -> tuple[int, Any]:
    """The dim and a vector of indices along it, one per layer of source."""
    d = one_dim(name, dim, x.ndim)
    if index.ndim > 1:
        raise IndexError(f"{name}: expected a vector of indices, not of shape {index.shape}")
    if category(index.dtype) != 1:
        raise RuntimeError(f"{name}: expected integer indices, not {index.dtype}")
    vector = _reshape(index, (index.numel(),))
    n = x.shape[d] if x.ndim else 1
    if name == "index_fill":
        vector = where(vector < 0, vector + n, vector)
    _in_range(name, vector, n, RuntimeError if name == "index_add" else IndexError)
    if source is not None:
        if source.dtype != x.dtype:
            raise RuntimeError(f"{name}: source has dtype {source.dtype}, the tensor {x.dtype}")
        wanted = (*x.shape[:d], vector.shape[0], *x.shape[d + 1 :]) if x.ndim else ()
        if source.shape != wanted:
            raise RuntimeError(
                f"{name}: {vector.shape[0]} indices along dim {dim} of {x.shape} need a source "
                f"of shape {wanted}, not {source.shape}"
            )
    return d, vector


@public()
def index_add(x: Any, dim: int, index: Any, source: Any, *, alpha: Any = 1) -> Any:
    """out = x with the layers of alpha source added at the places that a vector names."""
    d, vector = _layers("index_add", x, dim, index, source)
    if not x.ndim:
        return x + alpha * source
    added = _put(source, x.shape, (slice(None),) * d + (vector.array,))
    return x + (added if alpha == 1 else alpha * added)


@public()
def index_copy(x: Any, dim: int, index: Any, source: Any) -> Any:
    """out = x with the layers of source in the places that a vector of indices names."""
    d, vector = _layers("index_copy", x, dim, index, source)
    if not x.ndim:
        return source.clone()
    return _scatter(x, source, _along(vector, source.shape, d), d) if source.numel() else x.clone()


@public()
def index_fill(x: Any, dim: int, index: Any, value: Any) -> Any:
    """out = x with one number in the layers that a vector of indices names."""
    d, vector = _layers("index_fill", x, dim, index, None)
    n = x.shape[d] if x.ndim else 1
    hit = np.zeros(n, bool)
    hit[vector.cpu().array] = True
    shape = tuple(n if i == d else 1 for i in range(x.ndim))
    return masked_fill(x, Tensor(hit.reshape(shape)).to(x.device), value)


@public()
def index_put(x: Any, indices: Any, values: Any, accumulate: bool = False) -> Any:
    """out = x but out[indices] = values, or with accumulate values added there, repeats included.

    indices: a tuple of integer or bool tensors; values of x's dtype, stretched to x[indices].
    """
    if not isinstance(indices, (tuple, list)) or not all(isinstance(i, Operable) for i in indices):
        raise TypeError("index_put: indices must be a tuple of tensors; see also x[...] = value")
    if not isinstance(values, Operable):
        raise TypeError(f"index_put: values must be a tensor, not {type(values).__name__}")
    if values.dtype != x.dtype:
        raise RuntimeError(f"index_put: values have dtype {values.dtype}, the tensor {x.dtype}")
    if not indices:
        raise RuntimeError("index_put: at least one index is needed")
    places = split_index(x, tuple(indices))[0]
    try:
        shape = np.broadcast_to(np.empty((), bool), x.shape)[_on_cpu(places)].shape
    except (IndexError, ValueError) as error:
        raise IndexError(f"index_put: shape {x.shape}: {error}") from None
    values = expand(values, shape)
    return x + _put(values, x.shape, places) if accumulate else _set_item(x, values, places)


def _on_cpu(index: Any) -> Any:
    parts = index if isinstance(index, tuple) else (index,)
    return tuple(move(p, "cpu") if is_array(p) else p for p in parts)


@public()
def masked_scatter(x: Any, mask: Any, source: Any) -> Any:
    """out = x but where the mask is True the elements of source, one after another, in order."""
    if not isinstance(source, Operable):
        raise TypeError(f"masked_scatter: source must be a tensor, not {type(source).__name__}")
    if mask.dtype != bool:
        raise RuntimeError(f"masked_scatter: expected a mask of dtype bool, not {mask.dtype}")
    if source.dtype != x.dtype:
        raise RuntimeError(f"masked_scatter: source has dtype {source.dtype}, the tensor {x.dtype}")
    shape = _common("masked_scatter", x.shape, mask.shape)
    where = split_index(x, broadcast(mask, shape))[0]
    count = int(where[0].sum() if isinstance(where, tuple) else where.sum())
    if count > source.numel():
        raise RuntimeError(
            f"masked_scatter: the mask has {count} elements that are True, source has "
            f"{source.numel()}"
        )
    values = _slice(_reshape(source, (source.numel(),)), slice(0, count))
    return _set_item(broadcast(x, shape), values, where)


def _along(vector: Any, shape: tuple[int, ...], dim: int) -> Any:
    return expand(_reshape(vector, tuple(-1 if i == dim else 1 for i in range(len(shape)))), shape)


__all__ = publish(globals())
