"""Taking and placing elements: x[...] and gather.  Each rule is the other's op."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.backend import is_array, xp_of
from tensorgrad.dtypes import category
from tensorgrad.kinds import linear
from tensorgrad.ops.shape import _reshape, broadcast, one_dim
from tensorgrad.publish import public, publish
from tensorgrad.tensor import Tensor
from tensorgrad.tracer import Tracer
from tensorgrad.twins import ask, ask_any

# ---- x[...]

_slice = linear(
    "slice", lambda xp, x, /, index: x[index], view=True,
    dx=lambda g, x_shape, index: _place(g, x_shape, index),
)  # fmt: skip
_place = linear(
    "place",
    lambda xp, x, /, shape, index: _placed(xp, x, shape, index),
    dx=lambda g, index: _slice(g, index),
)
_take = linear(
    "index", lambda xp, x, /, index: x[index], dx=lambda g, x_shape, index: _put(g, x_shape, index)
)
_put = linear(
    "index_put",
    lambda xp, x, /, shape, index: _added(xp, x, shape, index),
    dx=lambda g, index: _take(g, index),
)

_slice.op.register(np.ndarray, np.ndarray.__getitem__)


def _view(x: Any, index: Any) -> Any:
    """x[index] for a basic index, a view even of a single element, which NumPy would copy."""
    return x[(*index, ...) if type(index) is tuple else (index, ...)]


_slice.op.element = _view


def _placed(xp: Any, x: Any, shape: tuple[int, ...], index: Any) -> Any:
    out = xp.zeros(shape, x.dtype)
    out[index] = x
    return out


def _added(xp: Any, x: Any, shape: tuple[int, ...], index: Any) -> Any:
    out = xp.zeros(shape, x.dtype)
    if not x.size:
        return out
    rows: Any = index[0] if isinstance(index, tuple) and len(index) == 1 else index
    if (
        is_array(rows)
        and rows.dtype.kind in "iu"
        and len(shape) > 1
        and xp is np
        and x.dtype.kind == "f"
    ):
        flat = x.reshape(-1, _product(shape[1:]))
        if rows.size and rows.min() < 0:
            rows = np.where(rows < 0, rows + shape[0], rows)
        index = rows.reshape(-1)
        answer = ask_any("embedding_backward", flat, flat, index, shape[0])
        return _segment_sum(flat, index, shape) if answer is None else answer.reshape(shape)
    if xp is np:
        np.add.at(out, index, x)
    else:
        import cupyx

        cupyx.scatter_add(out, index, x)
    return out


def _product(sizes: tuple[int, ...]) -> int:
    count = 1
    for n in sizes:
        count *= n
    return count


def _segment_sum(rows: Any, index: Any, shape: tuple[int, ...]) -> Any:
    """Rows added up by index: sorted, then one reduceat; in order, so the same every time."""
    out = np.zeros((shape[0], rows.shape[1]), rows.dtype)
    if index.size:
        order = np.argsort(index, kind="stable")
        ordered = index[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        out[ordered[starts]] = np.add.reduceat(rows[order], starts, axis=0)
    return out.reshape(shape)


def _plain(part: Any) -> Any:
    """One entry of an index without its tensor: arrays, ints, slices."""
    if isinstance(part, Tracer):
        return _plain(part.value)
    if isinstance(part, Tensor):
        return _plain(part.array)
    if is_array(part):
        if part.dtype == np.uint8:
            return part.astype(bool)  # PyTorch's masks of old
        return part if part.ndim or part.dtype.kind not in "iu" else part.item()
    if isinstance(part, slice):
        if part.step is not None and part.step.__index__() < 1:
            raise ValueError("index: the step of a slice must be positive; use flip() to reverse")
        return part
    if isinstance(part, (list, tuple, range)):
        return np.asarray([_plain(p) for p in part], dtype=None if len(part) else np.int64)
    return part


_BASIC = (int, slice, type(None), type(Ellipsis))


def split_index(x: Any, index: Any) -> tuple[Any, bool]:
    """The index as NumPy takes it, and whether it is basic (ints, slices, None, ...: a view)."""
    kind = type(index)
    if kind is int or (kind is slice and index.step is None) or index is None or index is Ellipsis:
        return index, True
    parts = index if kind is tuple else (index,)
    plain = tuple(_plain(p) for p in parts)
    basic = True
    for p in plain:
        if isinstance(p, (bool, np.bool_)):
            basic = False
        elif is_array(p):
            basic = False
            if p.dtype.kind not in "iub":
                raise IndexError(
                    f"index: tensors used as indices must be integer or bool, not {p.dtype}"
                )
        elif not isinstance(p, _BASIC):
            raise (IndexError if isinstance(p, float) else TypeError)(
                f"index: expected ints, slices, None, Ellipsis or tensors, not {type(p).__name__}"
            )
    return (plain if basic else _spelled(plain, x.ndim)), basic


def _spelled(plain: tuple[Any, ...], ndim: int) -> tuple[Any, ...]:
    """An index with the slices that its Ellipsis stands for: it parts arrays even where none."""
    places = [i for i, p in enumerate(plain) if p is Ellipsis]
    if len(places) != 1:
        return plain
    taken = sum(_dims_taken(p) for p in plain)
    i = places[0]
    return (*plain[:i], *[slice(None)] * (ndim - taken), *plain[i + 1 :])


def _dims_taken(part: Any) -> int:
    """How many dims of the tensor one entry of an index stands for."""
    if is_array(part):
        return int(part.ndim) if part.dtype == bool else 1
    return int(type(part) in (int, slice))


def in_steps(plain: Any) -> tuple[Any, Any] | None:
    """x[a][b] for an index with ints apart from its arrays, which PyTorch takes first.

    None where that makes no difference, and the index can stay whole.
    """
    if type(plain) is not tuple or not any(type(p) is int for p in plain):
        return None
    arrays = [is_array(p) or isinstance(p, (bool, np.bool_)) for p in plain]
    if _together([a for a, p in zip(arrays, plain) if type(p) is not int]) == _together(
        [a or type(p) is int for a, p in zip(arrays, plain)]
    ):
        return None
    first: list[Any] = []
    second: list[Any] = []
    for p, is_advanced in zip(plain, arrays):
        if is_advanced:
            first += [slice(None)] * _dims_taken(p)
            second.append(p)
        else:
            first.append(p)
            if type(p) is not int:
                second.append(p if p is Ellipsis else slice(None))
    return tuple(first), tuple(second)


def _together(marks: list[bool]) -> bool:
    """Whether the marked entries follow each other without a gap."""
    return sum(mark and not before for mark, before in zip(marks, [False, *marks])) < 2


@public("__getitem__", method=False)
def index(x: Any, index: Any) -> Any:
    """x[index]: a view for ints, slices, None and Ellipsis; a copy for integer and bool tensors."""
    if type(index) is int:
        return _slice(x, index)
    plain, basic = split_index(x, index)
    if basic:
        return _slice(x, plain)
    steps = in_steps(plain)
    return _take(x, plain) if steps is None else _take(_slice(x, steps[0]), steps[1])


# ---- x with other elements at an index

_set_item = linear(
    "set_item", lambda xp, x, value, /, index: _with_item(x, value, index),
    dx=lambda g, index: _erase(g, index), dvalue=lambda g, index: _read(g, index),
)  # fmt: skip
_erase = linear(
    "erase_item",
    lambda xp, x, /, index: _with_item(x, 0, index),
    dx=lambda g, index: _erase(g, index),
)


def _with_item(x: Any, value: Any, index: Any) -> Any:
    out = x.copy()
    out[index] = value
    return out


def _read(g: Any, index: Any) -> Any:
    """g[index] for an index that is ready."""
    parts = index if isinstance(index, tuple) else (index,)
    return (_take if any(is_array(p) or isinstance(p, bool) for p in parts) else _slice)(g, index)


# ---- along one dim

_gather = linear(
    "gather",
    lambda xp, x, index, /, dim: _gathered(xp, x, index, dim),
    dx=lambda g, x_shape, index, dim: _scatter_add(g, index, x_shape, dim),
)  # fmt: skip
_scatter_add = linear(
    "scatter_add_zeros", lambda xp, x, index, /, shape, dim: _scattered(xp, x, index, shape, dim),
    dx=lambda g, index, dim: _gather(g, index, dim),
)  # fmt: skip


def _gathered(xp: Any, x: Any, index: Any, dim: int) -> Any:
    answer = ask("gather_forward", x, x, index, dim)
    if answer is not None:
        return answer
    _in_range("gather", index, x.shape[dim])
    return xp.take_along_axis(x[_corner(index.shape, dim)], index, dim)


def _corner(shape: tuple[int, ...], dim: int) -> tuple[slice, ...]:
    return tuple(slice(None) if d == dim else slice(n) for d, n in enumerate(shape))


def _scattered(xp: Any, x: Any, index: Any, shape: tuple[int, ...], dim: int) -> Any:
    answer = ask("gather_backward", x, x, index, shape, dim)
    if answer is not None:
        return answer
    out = xp.zeros(shape, x.dtype)
    places = list(xp.ogrid[tuple(slice(n) for n in index.shape)])
    places[dim] = index
    if xp is np:
        np.add.at(out, tuple(places), x)
    else:
        import cupyx

        cupyx.scatter_add(out, tuple(places), x)
    return out


@public()
def select(x: Any, dim: int, index: int) -> Any:
    """x[:, ..., index]: one layer along a dim, without it; a view."""
    if not x.ndim:
        raise IndexError("select: a 0-d tensor has no dim to select from")
    return _slice(x, (slice(None),) * one_dim("select", dim, x.ndim) + (_in_bounds(x, dim, index),))


def _in_bounds(x: Any, dim: int, index: int) -> int:
    n = x.shape[dim]
    if not -n <= index < n:
        raise IndexError(f"select: index {index} is out of range for dim {dim} of shape {x.shape}")
    return index


@public()
def narrow(x: Any, dim: int, start: Any, length: int) -> Any:
    """x[:, ..., start:start + length]: a stretch of a dim; a view."""
    if not x.ndim:
        raise RuntimeError("narrow: a 0-d tensor has no dim to narrow")
    d, begin = one_dim("narrow", dim, x.ndim), int(start)
    n = x.shape[d]
    if not -n <= begin <= n:
        raise IndexError(f"narrow: start {begin} is out of range for dim {dim} of shape {x.shape}")
    begin += n if begin < 0 else 0
    if length < 0 or begin + length > n:
        raise RuntimeError(
            f"narrow: {length} elements from {begin} on exceed dim {dim} of shape {x.shape}"
        )
    return _slice(x, (slice(None),) * d + (slice(begin, begin + length),))


@public()
def index_select(x: Any, dim: int, index: Any) -> Any:
    """The layers along a dim that a vector of indices names, in its order."""
    d = one_dim("index_select", dim, x.ndim)
    if index.ndim > 1:
        raise IndexError(f"index_select: expected a vector of indices, not of shape {index.shape}")
    if category(index.dtype) != 1:
        raise RuntimeError(f"index_select: expected integer indices, not {index.dtype}")
    vector = _reshape(index, (index.numel(),))
    _in_range("index_select", vector, x.shape[d] if x.ndim else 1)
    if not x.ndim:
        return _reshape(_take(_reshape(x, (1,)), (_plain(vector),)), ())
    return _take(x, (slice(None),) * d + (_plain(vector),))


@public()
def masked_select(x: Any, mask: Any) -> Any:
    """A vector of the elements where the mask is True; both are stretched to one shape."""
    if mask.dtype != bool:
        raise RuntimeError(f"masked_select: expected a mask of dtype bool, not {mask.dtype}")
    shape = _common("masked_select", x.shape, mask.shape)
    wide = broadcast(mask, shape)
    return _take(broadcast(x, shape), (_plain(wide),))


def _common(name: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise RuntimeError(f"{name}: shapes {shapes} do not broadcast together") from None


@public()
def take_along_dim(x: Any, indices: Any, dim: int | None = None) -> Any:
    """gather, both stretched to one shape but for the dim; without one, of the flattened tensor."""
    if dim is None:
        return gather(_reshape(x, (x.numel(),)), 0, _reshape(indices, (indices.numel(),)))
    if indices.ndim != x.ndim:
        raise RuntimeError(f"take_along_dim: shapes {x.shape} and {indices.shape} differ in rank")
    d = one_dim("take_along_dim", dim, x.ndim)
    rest = _common("take_along_dim", *((*s[:d], 1, *s[d + 1 :]) for s in (x.shape, indices.shape)))
    wide = [broadcast(v, rest[:d] + v.shape[d : d + 1] + rest[d + 1 :]) for v in (x, indices)]
    return gather(wide[0], d, wide[1])


@public()
def gather(x: Any, dim: int, index: Any) -> Any:
    """out[i][j][k] = x[index[i][j][k]][j][k] (for dim 0): elements picked along a dim."""
    d = one_dim("gather", dim, x.ndim)
    if category(index.dtype) != 1:
        raise RuntimeError(f"gather: expected an index of int64, not {index.dtype}")
    if (index.ndim or 1) != (x.ndim or 1):
        raise RuntimeError(
            f"gather: the index, {index.shape}, needs as many dims as the tensor, {x.shape}"
        )
    if any(index.shape[i] > x.shape[i] for i in range(x.ndim) if i != d):
        raise RuntimeError(
            f"gather: the index, {index.shape}, exceeds the tensor, {x.shape}, outside dim {dim}"
        )
    if not x.ndim or not index.ndim:
        x, flat = _reshape(x, (x.numel(),)), _reshape(index, (index.numel(),))
        return _reshape(_gather(x, flat, 0), index.shape)
    return _gather(x, index, d)


def _in_range(name: str, index: Any, size: int, error: type[Exception] = RuntimeError) -> None:
    values = index.array if isinstance(index, Tensor) else index
    if is_array(values) and values.size and xp_of(values) is np and not all_below(values, size):
        bad = values[(values < 0) | (values >= size)].flat[0]
        raise error(f"{name}: index {bad} is out of range [0, {size - 1}]")


def all_below(values: Any, size: int) -> bool:
    """Whether every integer lies in [0, size): one pass, in which negative ones are huge."""
    unsigned = values.view(np.uint64) if values.dtype == np.int64 else values
    if unsigned.dtype.kind != "u" and values.min() < 0:
        return False
    return bool(np.maximum.reduce(unsigned, axis=None) < size)


__all__ = publish(globals())
