"""Ops that move elements without changing them.  Each is linear; its rule moves them back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorgrad.backend import is_array, xp_of
from tensorgrad.fit import broadcast
from tensorgrad.kinds import linear
from tensorgrad.publish import public, publish
from tensorgrad.tensor import Operable, Tensor
from tensorgrad.tracer import Tracer

# ---- the primitives

_reshape = linear(
    "reshape",
    lambda xp, x, /, shape: x.reshape(shape),
    view=True,
    dx=lambda g, x_shape: _reshape(g, x_shape),
)
_permute = linear(
    "permute", lambda xp, x, /, dims: x.transpose(dims), view=True,
    dx=lambda g, dims: _permute(g, _inverse(dims)),
)  # fmt: skip
_swap = linear(
    "transpose",
    lambda xp, x, /, a, b: x.swapaxes(a, b),
    view=True,
    dx=lambda g, a, b: _swap(g, a, b),
)
_flip = linear(
    "flip", lambda xp, x, /, dims: xp.flip(x, dims).copy(), dx=lambda g, dims: _flip(g, dims)
)
_roll = linear(
    "roll", lambda xp, x, /, shifts, dims: xp.roll(x, shifts, dims),
    dx=lambda g, shifts, dims: _roll(g, tuple(-s for s in shifts), dims),
)  # fmt: skip
_cat = linear(
    "cat", lambda xp, xs, /, dim: xp.concatenate(xs, dim), variadic=True,
    joint=lambda g, xs_shape, dim: _split(g, tuple(s[dim] for s in xs_shape), dim),
)  # fmt: skip
_stack = linear(
    "stack",
    lambda xp, xs, /, dim: xp.stack(xs, dim),
    variadic=True,
    joint=lambda g, dim: _unbind(g, dim),
)
_split = linear(
    "split", lambda xp, x, /, sizes, dim: _pieces(x, sizes, dim), view=True, many=True,
    dx=lambda gs, x_shape, sizes, dim: _cat(
        _filled(gs, [_sized(x_shape, n, dim) for n in sizes]), dim
    ),
)  # fmt: skip
_unbind = linear(
    "unbind", lambda xp, x, /, dim: _layers(x, dim), view=True, many=True,
    dx=lambda gs, x_shape, dim: _stack(
        _filled(gs, [x_shape[:dim] + x_shape[dim + 1 :]] * x_shape[dim]), dim
    ),
)  # fmt: skip

for _op, _method in (
    (_reshape, np.ndarray.reshape), (_permute, np.ndarray.transpose), (_swap, np.ndarray.swapaxes),
):  # fmt: skip
    _op.op.register(np.ndarray, _method)  # no Python in between


def _inverse(dims: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(range(len(dims)), key=dims.__getitem__))


def _pieces(x: Any, sizes: Sequence[int], dim: int) -> tuple[Any, ...]:
    pieces, start, before = [], 0, (slice(None),) * dim
    for n in sizes:
        pieces.append(x[(*before, slice(start, start + n))])
        start += n
    return tuple(pieces)


def _layers(x: Any, dim: int) -> tuple[Any, ...]:
    before = (slice(None),) * dim
    return tuple(x[(*before, i, ...)] for i in range(x.shape[dim]))


def _sized(shape: tuple[int, ...], n: int, dim: int) -> tuple[int, ...]:
    return (*shape[:dim], n, *shape[dim + 1 :])


def _filled(gs: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    """The gradients of several outputs, zeros where none arrived."""
    like: Any = next(g for g in gs if g is not None)
    while not is_array(like):
        like = (
            like.value
            if isinstance(like, Tracer)
            else like.array
            if isinstance(like, Tensor)
            else xp_of(like).asarray(like)
        )
    return [xp_of(like).zeros(s, like.dtype) if g is None else g for g, s in zip(gs, shapes)]


# ---- dims


def one_dim(name: str, dim: Any, ndim: int) -> int:
    """A dim counted from the front; IndexError, as in PyTorch, where it is out of range."""
    if not isinstance(dim, int):
        dim = _integer(name, dim)
    rank = ndim or 1
    if not -rank <= dim < rank:
        raise IndexError(
            f"{name}: dim {dim} is out of range [{-rank}, {rank - 1}] for a {ndim}-d tensor"
        )
    found: int = dim + rank if dim < 0 else dim
    return found


def _integer(name: str, value: Any) -> int:
    try:
        return int(value.__index__())
    except AttributeError:
        raise TypeError(f"{name}: dim must be an int, not {type(value).__name__}") from None


def all_dims(name: str, dim: Any, ndim: int) -> tuple[int, ...]:
    """Several dims counted from the front; None and () mean all; a dim twice is an error."""
    if dim is None or dim == ():
        return tuple(range(ndim))
    if isinstance(dim, int) or not hasattr(dim, "__iter__"):
        d = one_dim(name, dim, ndim)
        return (d,) if ndim else ()
    dims = tuple(one_dim(name, d, ndim) for d in dim)
    if len(set(dims)) != len(dims):
        raise RuntimeError(f"{name}: a dim appears twice in {tuple(dim)}")
    return dims if ndim else ()


def sizes_of(args: tuple[Any, ...]) -> tuple[int, ...]:
    """The sizes given as f(2, 3) or as f((2, 3))."""
    if len(args) == 1 and hasattr(args[0], "__iter__") and not isinstance(args[0], Tensor):
        args = tuple(args[0])
    return tuple(n if type(n) is int else n.__index__() for n in args)


# ---- the public functions


@public()
def reshape(x: Any, *shape: Any) -> Any:
    """The elements in row-major order under another shape; one may be -1.  A view if possible."""
    size = shape[0] if len(shape) == 1 and type(shape[0]) is tuple else shape
    try:
        if min(size) >= -1:
            return _reshape(x, size)  # the array library finds the -1, and what does not fit
    except (TypeError, ValueError):
        pass
    return _reshape(x, whole_shape("reshape", x, sizes_of(shape)))


@public()
def view(x: Any, *shape: Any) -> Any:
    """The same memory under another shape; RuntimeError where only reshape(), which copies, can."""
    if len(shape) == 1 and isinstance(shape[0], np.dtype):
        return Tensor(x.array.view(shape[0]))
    out = reshape(x, *shape)
    if type(x) is not Tensor or x.array.flags.c_contiguous or not x.array.size:
        return out
    if not xp_of(x.array).may_share_memory(out.array, x.array):
        raise RuntimeError(
            f"view: {out.shape} needs a copy: the tensor of shape {x.shape} is not contiguous; "
            "use reshape()"
        )
    return out


def whole_shape(name: str, x: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with its -1 computed; RuntimeError where it does not fit the number of elements."""
    have, known, unknown = 1, 1, -1
    for n in x.shape:
        have *= n
    for i, n in enumerate(shape):
        if n == -1 and unknown < 0:
            unknown = i
        elif n < 0:
            raise RuntimeError(
                f"{name}: invalid shape {shape}: sizes are positive, and at most one is -1"
            )
        else:
            known *= n
    if unknown < 0:
        if known != have:
            raise RuntimeError(
                f"{name}: shape {shape} has {known} elements, the tensor, {x.shape}, has {have}"
            )
        return shape
    if known == 0 or have % known:
        raise RuntimeError(
            f"{name}: a tensor of shape {x.shape} with {have} elements cannot become {shape}"
        )
    return (*shape[:unknown], have // known, *shape[unknown + 1 :])


@public()
def reshape_as(x: Any, other: Any) -> Any:
    return reshape(x, other.shape)


@public()
def view_as(x: Any, other: Any) -> Any:
    return reshape(x, other.shape)


@public()
def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Dims start_dim to end_dim made one."""
    start, end = one_dim("flatten", start_dim, x.ndim), one_dim("flatten", end_dim, x.ndim)
    if start > end:
        raise RuntimeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    middle = 1
    for n in x.shape[start : end + 1]:
        middle *= n
    return _reshape(x, (*x.shape[:start], middle, *x.shape[end + 1 :]))


@public()
def ravel(x: Any) -> Any:
    return reshape(x, -1)


@public()
def unflatten(x: Any, dim: int, sizes: Sequence[int]) -> Any:
    """One dim made several: the inverse of flatten; one size may be -1."""
    if len(sizes) == 0:
        raise RuntimeError("unflatten: the sizes must not be empty")
    d = one_dim("unflatten", dim, x.ndim)
    count, known = x.shape[d], 1
    for n in sizes:
        known *= n if n != -1 else 1
    sizes = [n if n != -1 else count // (known or 1) for n in sizes]
    total = 1
    for n in sizes:
        total *= n
    if total != count:
        raise RuntimeError(
            f"unflatten: sizes {tuple(sizes)} do not multiply to {count}, the size of dim {dim}"
        )
    return _reshape(x, (*x.shape[:d], *sizes, *x.shape[d + 1 :]))


@public("swapaxes", "swapdims")
def transpose(x: Any, dim0: int, dim1: int) -> Any:
    """Two dims exchanged; a view."""
    a, b = one_dim("transpose", dim0, x.ndim), one_dim("transpose", dim1, x.ndim)
    return _swap(x, a, b) if x.ndim else x


@public()
def permute(x: Any, *dims: Any) -> Any:
    """All dims in a new order; a view."""
    given = sizes_of(dims)
    order = tuple(one_dim("permute", d, x.ndim) for d in given) if len(given) == x.ndim else given
    if sorted(order) != list(range(x.ndim)):
        raise RuntimeError(
            f"permute: {tuple(dims)} is no order of the {x.ndim} dims of shape {x.shape}"
        )
    return _permute(x, order)


@public("moveaxis")
def movedim(x: Any, source: Any, destination: Any) -> Any:
    """Dims moved to new places, the others in their order."""
    src = all_dims("movedim", source if isinstance(source, int) else tuple(source), x.ndim)
    dst = all_dims(
        "movedim", destination if isinstance(destination, int) else tuple(destination), x.ndim
    )
    order = [d for d in range(x.ndim) if d not in src]
    for d, s in sorted(zip(dst, src)):
        order.insert(d, s)
    return _permute(x, tuple(order))


@public()
def t(x: Any) -> Any:
    """The transpose of a matrix; vectors and scalars as they are."""
    if x.ndim > 2:
        raise RuntimeError(
            f"t: expected a tensor of at most 2 dims, not shape {x.shape}; use transpose or .mT"
        )
    return _swap(x, 0, 1) if x.ndim == 2 else x


def turn(x: Any) -> Any:
    """The last two dims exchanged: the transpose of every matrix of a batch."""
    return _swap(x, -1, -2)


@public()
def squeeze(x: Any, dim: Any = None) -> Any:
    """Without its dims of size one (all, or those named)."""
    dims = () if dim == () else all_dims("squeeze", dim, x.ndim)
    return _reshape(x, tuple(n for i, n in enumerate(x.shape) if n != 1 or i not in dims))


@public()
def unsqueeze(x: Any, dim: int) -> Any:
    """With a dim of size one more, before `dim`."""
    d = one_dim("unsqueeze", dim, x.ndim + 1)
    return _reshape(x, (*x.shape[:d], 1, *x.shape[d:]))


@public()
def expand(x: Any, *sizes: Any) -> Any:
    """Dims of size one stretched without copying; -1 leaves a size as it is."""
    shape = sizes_of(sizes)
    new = len(shape) - x.ndim
    full = tuple(x.shape[i - new] if n == -1 and i >= new else n for i, n in enumerate(shape))
    if new < 0 or any(x.shape[i] not in (1, full[i + new]) for i in range(x.ndim)) or -1 in full:
        raise RuntimeError(f"expand: a tensor of shape {x.shape} cannot be expanded to {shape}")
    return broadcast(x, full)


@public()
def expand_as(x: Any, other: Any) -> Any:
    return expand(x, other.shape)


@public(method=True)
def broadcast_to(x: Any, size: Sequence[int]) -> Any:
    return expand(x, size)


@public()
def flip(x: Any, *dims: Any) -> Any:
    """The order reversed along dims."""
    order = sizes_of(dims)
    chosen = all_dims("flip", order, x.ndim) if order else ()
    return _flip(x, chosen) if chosen else x.clone()


@public()
def roll(x: Any, shifts: Any, dims: Any = None) -> Any:
    """Elements shifted along dims, those that leave at the end entering at the front."""
    if dims is None:
        return _reshape(_roll(_reshape(x, (x.numel(),)), (shifts,), (0,)), x.shape)
    shifts, dims = ((v,) if isinstance(v, int) else tuple(v) for v in (shifts, dims))
    if len(shifts) != len(dims):
        raise RuntimeError(f"roll: {len(shifts)} shifts for {len(dims)} dims")
    return _roll(x, shifts, tuple(one_dim("roll", d, x.ndim) for d in dims))


def _matrix(name: str, x: Any) -> Any:
    if x.ndim < 2:
        raise RuntimeError(f"{name}: expected a tensor of at least 2 dims, not shape {x.shape}")
    return x


def _sequence(name: str, tensors: Any, error: type[Exception]) -> tuple[Any, ...]:
    xs = tuple(tensors)
    if not xs:
        raise error(f"{name}: expected a non-empty sequence of tensors")
    for x in xs:
        if not hasattr(x, "ndim"):
            raise TypeError(f"{name}: expected tensors, not {type(x).__name__}")
    return xs


@public(method=False)
def cat(tensors: Any, dim: int = 0) -> Any:
    """Tensors joined along a dim; the other sizes must agree."""
    xs = _sequence("cat", tensors, ValueError)
    rank = len(xs[0].shape)
    if rank > 1 and -rank <= dim < rank:  # the usual case needs no more than NumPy's own checks
        try:
            return _cat(xs, dim % rank)
        except RuntimeError:
            pass
    if any(x.ndim == 0 for x in xs):
        raise RuntimeError("cat: 0-d tensors cannot be joined; use stack")
    rank = max(x.ndim for x in xs)
    kept = (
        tuple(x for x in xs if x.shape != (0,)) if rank > 1 else xs
    )  # PyTorch's legacy: a bare empty vector is skipped
    if not kept or (rank == 1 and all(x.shape == (0,) for x in xs)):
        return xs[0].clone()
    xs = kept
    d = one_dim("cat", dim, xs[0].ndim)
    for x in xs:
        if (
            x.ndim != xs[0].ndim
            or x.shape[:d] != xs[0].shape[:d]
            or x.shape[d + 1 :] != xs[0].shape[d + 1 :]
        ):
            raise RuntimeError(f"cat: shapes {xs[0].shape} and {x.shape} differ outside dim {dim}")
    return _cat(xs, d)


@public(method=False)
def stack(tensors: Any, dim: int = 0) -> Any:
    """Tensors of one shape as the layers of a new dim."""
    xs = _sequence("stack", tensors, RuntimeError)
    for x in xs:
        if x.shape != xs[0].shape:
            raise RuntimeError(f"stack: shapes {xs[0].shape} and {x.shape} differ")
    return _stack(xs, one_dim("stack", dim, xs[0].ndim + 1))


@public(method=False)
def split(tensor: Any, split_size_or_sections: Any, dim: int = 0) -> tuple[Any, ...]:
    """Pieces along a dim: of one size (the last may be smaller), or of the sizes listed.  Views."""
    x = tensor
    if x.ndim == 0:
        raise RuntimeError("split: a 0-d tensor cannot be split")
    d = one_dim("split", dim, x.ndim)
    n, size = x.shape[d], split_size_or_sections
    if not isinstance(size, int):
        sizes = tuple(size)
        if sum(sizes) != n or min(sizes, default=0) < 0:
            raise RuntimeError(f"split: sizes {sizes} do not add up to {n}, the size of dim {dim}")
    elif size < 0 or (size == 0 and n):
        raise RuntimeError(f"split: the size must be positive, not {size}")
    else:
        full = n // size if size else 0
        sizes = (size,) * full + ((n - full * size,) if n - full * size or not full else ())
    return _split(x, sizes, d)  # type: ignore[no-any-return]


Operable.split = lambda x, split_size, dim=0: split(x, split_size, dim)  # type: ignore[attr-defined]


@public()
def split_with_sizes(x: Any, split_sizes: Sequence[int], dim: int = 0) -> tuple[Any, ...]:
    return split(x, tuple(split_sizes), dim)


@public()
def chunk(x: Any, chunks: int, dim: int = 0) -> tuple[Any, ...]:
    """At most `chunks` pieces of one size along a dim; the last may be smaller."""
    if chunks <= 0:
        raise RuntimeError(f"chunk: expected a positive number of chunks, not {chunks}")
    if x.ndim == 0:
        raise RuntimeError("chunk: a 0-d tensor cannot be split")
    n = x.shape[one_dim("chunk", dim, x.ndim)]
    return split(x, -(-n // chunks) if n else [0] * chunks, dim)


@public()
def unbind(x: Any, dim: int = 0) -> tuple[Any, ...]:
    """The layers along a dim, without it.  Views."""
    if x.ndim == 0:
        raise IndexError("unbind: a 0-d tensor has no dim to unbind")
    return _unbind(x, one_dim("unbind", dim, x.ndim))  # type: ignore[no-any-return]


def _iterate(x: Any) -> Any:
    if x.ndim == 0:
        raise TypeError("iteration over a 0-d tensor")
    return iter(unbind(x))


def _transposed(x: Any) -> Any:
    """x.T: all dims reversed."""
    return _permute(x, tuple(range(x.ndim))[::-1])


public("__iter__", method=False)(_iterate)
Operable.T = property(_transposed)  # type: ignore[attr-defined]
Operable.mT = property(lambda x: turn(_matrix("mT", x)))  # type: ignore[attr-defined]

__all__ = publish(globals())
