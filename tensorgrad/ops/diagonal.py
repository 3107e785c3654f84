"""Triangles and diagonals of matrices, and matrices made of diagonals."""

from __future__ import annotations

from typing import Any

from tensorgrad.backend import is_array
from tensorgrad.kinds import linear
from tensorgrad.ops.shape import _matrix, one_dim
from tensorgrad.publish import public, publish

_tril = linear(
    "tril",
    lambda xp, x, /, diagonal: xp.tril(x, diagonal),
    dx=lambda g, diagonal: _tril(g, diagonal),
)
_triu = linear(
    "triu",
    lambda xp, x, /, diagonal: xp.triu(x, diagonal),
    dx=lambda g, diagonal: _triu(g, diagonal),
)
_diagonal = linear(
    "diagonal", lambda xp, x, /, offset, a, b: _diagonal_of(x, offset, a, b), view=True,
    dx=lambda g, x_shape, offset, a, b: _on_diagonal(g, x_shape, offset, a, b),
)  # fmt: skip
_on_diagonal = linear(
    "on_diagonal", lambda xp, x, /, shape, offset, a, b: _with_diagonal(xp, x, shape, offset, a, b),
    dx=lambda g, offset, a, b: _diagonal(g, offset, a, b),
)  # fmt: skip


def _diagonal_of(x: Any, offset: int, a: int, b: int) -> Any:
    out = x.diagonal(offset, a, b)
    if is_array(x) and hasattr(out.flags, "writeable"):
        out.flags.writeable = x.flags.writeable  # NumPy gives it read-only
    return out


def _with_diagonal(xp: Any, x: Any, shape: tuple[int, ...], offset: int, a: int, b: int) -> Any:
    out = xp.zeros(shape, x.dtype)
    _diagonal_of(out, offset, a, b)[...] = x
    return out


@public()
def tril(x: Any, diagonal: int = 0) -> Any:
    """The lower triangle of every matrix, zeros above the diagonal."""
    return _tril(_matrix("tril", x), diagonal)


@public()
def triu(x: Any, diagonal: int = 0) -> Any:
    """The upper triangle of every matrix, zeros below the diagonal."""
    return _triu(_matrix("triu", x), diagonal)


@public()
def diagonal(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """The diagonals of the matrices that dims dim1 and dim2 span, as the last dim; a view."""
    a, b = (one_dim("diagonal", d, x.ndim) for d in (dim1, dim2))
    if a == b:
        raise RuntimeError(f"diagonal: dims {dim1} and {dim2} are the same")
    return _diagonal(x, offset, a, b)


@public()
def diag_embed(x: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """Zeros with the last dim of x on the diagonals of new matrices, in dims dim1 and dim2."""
    a, b = (one_dim("diag_embed", d, x.ndim + 1) for d in (dim1, dim2))
    if a == b:
        raise RuntimeError(f"diag_embed: dims {dim1} and {dim2} are the same")
    shape, n = list(x.shape[:-1]), x.shape[-1] + abs(offset)
    for d in sorted((a, b)):
        shape.insert(d, n)
    return _on_diagonal(x, tuple(shape), offset, a, b)


@public()
def diag(x: Any, diagonal: int = 0) -> Any:
    """A matrix with the vector x on its diagonal, or the diagonal of the matrix x."""
    if x.ndim not in (1, 2):
        raise RuntimeError(f"diag: expected a vector or a matrix, not a tensor of shape {x.shape}")
    return diag_embed(x, diagonal) if x.ndim == 1 else _diagonal(x, diagonal, 0, 1)


__all__ = publish(globals())
