"""Inverse, determinant, solution, Cholesky factor and norms of matrices and batches of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.convert import cast
from tensorgrad.dtypes import as_dtype, category, promote_types
from tensorgrad.kinds import discrete, general
from tensorgrad.ops.choices import where
from tensorgrad.ops.compare import ones_like
from tensorgrad.ops.diagonal import _diagonal, _on_diagonal, _tril
from tensorgrad.ops.elementwise import abs
from tensorgrad.ops.indexing import _slice
from tensorgrad.ops.products import _matmul
from tensorgrad.ops.reduce import _norm, _sum, amax, amin
from tensorgrad.ops.shape import _reshape, all_dims, movedim, split, turn


class LinAlgError(RuntimeError):
    """A matrix that is singular, or not positive-definite, where it must not be."""


class SignAndLogabsdet(NamedTuple):
    """det = sign * exp(logabsdet)"""

    sign: Any
    logabsdet: Any


# ---- the values: NumPy and CuPy know batches, and what they cannot do is a LinAlgError here


def _guarded(xp: Any, name: str, why: str, function: Callable[..., Any], *args: Any) -> Any:
    """The function's result; the array library's LinAlgError as ours, with the matrix at fault."""
    try:
        if xp is np:
            return function(*args)
        from cupyx import errstate

        with errstate(linalg="raise"):
            return function(*args)
    except np.linalg.LinAlgError:
        raise LinAlgError(f"{name}: {_culprit(function, args)} {why}") from None


def _culprit(function: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """Which matrix of a batch it is: the first with which the function fails alone."""
    a = args[0]
    for place in np.ndindex(a.shape[:-2] if a.ndim > 2 else ()):
        try:
            function(a[place], *(b[..., :1] if b.ndim < 3 else b[0, ..., :1] for b in args[1:]))
        except np.linalg.LinAlgError:
            return f"matrix {place} of the batch" if place else f"the matrix of shape {a.shape}"
    return f"a matrix of the batch of shape {a.shape}"


_INDEFINITE = "is not positive-definite"
_SINGULAR = "is singular and has no inverse"
_inv = general(
    "inv", lambda xp, x, /: _guarded(xp, "linalg.inv", _SINGULAR, xp.linalg.inv, x),
    dx=lambda g, out: -_matmul(_matmul(turn(out), g), turn(out)),
)  # fmt: skip
_det = general(
    "det", lambda xp, x, /: xp.linalg.det(x),
    dx=lambda g, x: _reshape(g, (*g.shape, 1, 1)) * _cofactors(x),
)  # fmt: skip
_cofactors = general(
    "cofactors", lambda xp, x, /: _adjugate(xp, x), dx=lambda g, x: _cofactors_slope(g, x)
)
_logabsdet = general(
    "logabsdet", lambda xp, x, /: xp.linalg.slogdet(x)[1],
    dx=lambda g, x: _reshape(g, (*g.shape, 1, 1)) * turn(_inv_or_infinite(x)),
)  # fmt: skip
_inv_or_infinite = general(
    "inv_or_infinite", lambda xp, x, /: _inverse_or_infinite(xp, x),
    dx=lambda g, out: -_matmul(_matmul(turn(out), g), turn(out)),
)  # fmt: skip
_sign_of_det = discrete("sign_of_det", lambda xp, x, /: xp.linalg.slogdet(x)[0])
_solve = general(
    "solve", lambda xp, a, b, /: _solved(xp, a, b),
    da=lambda g, a, out: -_matmul(_solve(turn(a), g), turn(out)),
    db=lambda g, a: _solve(turn(a), g),
)  # fmt: skip
_cholesky = general(
    "cholesky", lambda xp, x, /: _guarded(
        xp, "linalg.cholesky", _INDEFINITE, lambda a: _factor(xp, a), x
    ),
    dx=lambda g, out: _cholesky_slope(g, out),
)  # fmt: skip
_svd = general(
    "svd", lambda xp, x, /: _decomposed(xp, x),
    dx=lambda g, x_shape, out: _svd_slope(g, x_shape, out),
)  # fmt: skip
"""U, the singular values as one row, and V, each (..., k) wide, on top of each other."""


def _solved(xp: Any, a: Any, b: Any) -> Any:
    shape = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (xp.broadcast_to(v, (*shape, *v.shape[-2:])) for v in (a, b))
    if not b.size:
        return xp.zeros(b.shape, b.dtype)
    return _guarded(xp, "linalg.solve", "is singular", xp.linalg.solve, a, b)


def _inverse_or_infinite(xp: Any, x: Any) -> Any:
    """The inverse; of a singular matrix infinities, and NaN where their sign is open."""
    try:
        return _guarded(xp, "linalg.inv", _SINGULAR, xp.linalg.inv, x)
    except LinAlgError:
        regular = (xp.linalg.slogdet(x)[0] != 0)[..., None, None]
        inverse = xp.linalg.inv(xp.where(regular, x, xp.eye(x.shape[-1], dtype=x.dtype)))
        return xp.where(regular, inverse, xp.swapaxes(_adjugate(xp, x), -1, -2) * xp.inf)


def _factor(xp: Any, x: Any) -> Any:
    """The Cholesky factor, LinAlgError for NaN, too."""
    out = xp.linalg.cholesky(x)
    if bool(xp.isnan(out.diagonal(0, -2, -1)).any()):
        raise np.linalg.LinAlgError
    return out


def _adjugate(xp: Any, x: Any) -> Any:
    """det(x) x^-T, the slope of det; by singular values where a determinant is zero.

    An inverse that is off by a lot times a determinant that is off by as little is right again.
    """
    det = xp.linalg.det(x)
    if x.shape[-1] == 0 or bool((det != 0).all()):
        return det[..., None, None] * xp.swapaxes(xp.linalg.inv(x), -1, -2)
    u, s, vh = xp.linalg.svd(x)
    n = s.shape[-1]
    others = xp.where(xp.eye(n, dtype=bool), s.dtype.type(1), s[..., None, :]).prod(-1)
    sign = xp.linalg.det(u) * xp.linalg.det(vh)
    return ((u * (sign[..., None] * others)[..., None, :]) @ vh).astype(x.dtype, copy=False)


def _cofactors_slope(g: Any, x: Any) -> Any:
    """(<g, C> - C g^T) x^-T for C = det(x) x^-T."""
    c, back = _cofactors(x), turn(_inv(x))
    whole = _sum(g * c, (g.ndim - 2, g.ndim - 1), True)
    return whole * back - _matmul(_matmul(c, turn(g)), back)


def _halved(x: Any) -> Any:
    """The lower triangle, half of it on the diagonal."""
    on = _on_diagonal(_diagonal(x, 0, -2, -1), x.shape, 0, -2, -1)
    return _tril(x, 0) - on / 2


def _cholesky_slope(g: Any, out: Any) -> Any:
    """L^-T Phi(L^T g) L^-1, made symmetric.  Murray 2016, arXiv 1602.07527, section 3.3."""
    back = _inv(out)
    s = _matmul(_matmul(turn(back), _halved(_matmul(turn(out), g))), back)
    return (s + turn(s)) / 2


def _decomposed(xp: Any, x: Any) -> Any:
    u, s, vh = xp.linalg.svd(x, full_matrices=False)
    return xp.concatenate((u, s[..., None, :], xp.swapaxes(vh, -1, -2)), -2)


def _svd_slope(g: Any, x_shape: tuple[int, ...], out: Any) -> Any:
    """The slope of U, S and V.  Townsend 2016, "Differentiating the singular value decomposition".

    The vectors of equal singular values can be turned, and have no slope: it counts as zero.
    """
    m, n = x_shape[-2:]
    (u, s, v), (gu, gs, gv) = (split(a, (m, 1, n), -2) for a in (out, g))
    k = u.shape[-1]
    gaps = s * s - turn(s * s)
    apart = where(gaps == 0, 0, 1 / where(gaps == 0, ones_like(gaps), gaps))
    turned_u, turned_v = (_matmul(turn(a), ga) for a, ga in ((u, gu), (v, gv)))
    inner = (turned_u - turn(turned_u)) * apart * s
    inner = inner + turn(s) * ((turned_v - turn(turned_v)) * apart)
    shape = (*inner.shape[:-2], k, k)
    inner = inner + _on_diagonal(_reshape(gs, shape[:-1]), shape, 0, -2, -1)
    part = _matmul(_matmul(u, inner), turn(v))
    per = where(s == 0, 0, 1 / where(s == 0, ones_like(s), s))
    if m > k:
        part = part + _matmul((gu - _matmul(u, turned_u)) * per, turn(v))
    if n > k:
        part = part + _matmul(u, turn((gv - _matmul(v, turned_v)) * per))
    return part


# ---- the public functions


def _matrices(name: str, x: Any, square: bool = True) -> Any:
    """x, checked to be matrices of float32 or float64."""
    if x.ndim < 2:
        raise RuntimeError(f"linalg.{name}: expected matrices, not a tensor of shape {x.shape}")
    if square and x.shape[-1] != x.shape[-2]:
        raise RuntimeError(f"linalg.{name}: expected square matrices, not of shape {x.shape}")
    if category(x.dtype) < 2 or x.dtype.itemsize == 2:
        raise RuntimeError(
            f"linalg.{name}: expected float32 or float64, not {x.dtype}; use x.float()"
        )
    return x


def inv(A: Any) -> Any:
    """out A = I: (..., n, n) -> (..., n, n).  LinAlgError where a matrix is singular."""
    return _inv(_matrices("inv", A))


def det(A: Any) -> Any:
    """The determinant: (..., n, n) -> (...).  Its gradient is right for singular matrices, too."""
    return _det(_matrices("det", A))


def slogdet(A: Any) -> SignAndLogabsdet:
    """(sign, log |det|): (..., n, n) -> (...), (...), without overflow; (0, -inf) if singular."""
    A = _matrices("slogdet", A)
    return SignAndLogabsdet(_sign_of_det(A), _logabsdet(A))


def solve(A: Any, B: Any, *, left: bool = True) -> Any:
    """A out = B: (..., n, n), (..., n, k) or (..., n) -> B's shape; left=False: out A = B.

    B is vectors if it has one dim, or A's shape without the last.  Batches are stretched.
    """
    A = _matrices("solve", A)
    if A.dtype != B.dtype:
        raise RuntimeError(f"linalg.solve: A has dtype {A.dtype}, B {B.dtype}")
    vectors = B.ndim == 1 or B.shape == A.shape[:-1]
    if vectors and not left:
        raise RuntimeError("linalg.solve: left=False is for matrices B; use A.mT")
    columns = _reshape(B, (*B.shape, 1)) if vectors else B if left else turn(B)
    if columns.ndim < 2 or A.shape[-1] != columns.shape[-2]:
        raise RuntimeError(
            f"linalg.solve: A of shape {A.shape} and B of shape {B.shape} do not fit"
        )
    try:
        np.broadcast_shapes(A.shape[:-2], columns.shape[:-2])
    except ValueError:
        raise RuntimeError(
            f"linalg.solve: A of shape {A.shape} and B of shape {B.shape}: the batches do not "
            "broadcast together"
        ) from None
    out = _solve(A if left else turn(A), columns)
    return _reshape(out, out.shape[:-1]) if vectors else out if left else turn(out)


def cholesky(A: Any, *, upper: bool = False) -> Any:
    """The lower triangular L with A = L L^T, or the upper U with A = U^T U: (..., n, n).

    Only A's lower triangle (upper: its upper) is read.  LinAlgError unless positive-definite.
    """
    A = _matrices("cholesky", A)
    return turn(_cholesky(turn(A))) if upper else _cholesky(A)


def svdvals(A: Any) -> Any:
    """The singular values, the largest first: (..., m, n) -> (..., min(m, n))."""
    A = _matrices("svdvals", A, square=False)
    return _slice(_svd(A), (..., A.shape[-2], slice(None)))


# ---- norms


def _typed(name: str, x: Any, dtype: Any) -> Any:
    if category(x.dtype) < 2:
        raise RuntimeError(f"linalg.{name}: expected floats, not {x.dtype}; use x.float()")
    if dtype is None:
        return x
    dtype = as_dtype(dtype)
    if promote_types(x.dtype, dtype) != dtype:
        raise RuntimeError(f"linalg.{name}: {x.dtype} does not fit into {dtype}; use x.to(dtype)")
    return cast(x, dtype)


def vector_norm(
    x: Any, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Any:
    """out = (sum |x|^ord)^(1/ord) over dims, all by default, as of one vector.

    ord: any number; inf the largest |x|, -inf the smallest, 0 how many are not zero.
    """
    if isinstance(ord, str):
        raise TypeError(f"linalg.vector_norm: ord must be a number, not {ord!r}")
    x = _typed("vector_norm", x, dtype)
    dims = all_dims("linalg.vector_norm", dim, x.ndim)
    if (ord < 0 or math.isinf(ord)) and any(x.shape[d] == 0 for d in dims):
        raise RuntimeError(
            f"linalg.vector_norm: of no elements, shape {x.shape}, ord {ord} is none"
        )
    if math.isinf(ord):
        return (amax if ord > 0 else amin)(abs(x), dims, keepdim)
    return _norm(x, float(ord), dims, bool(keepdim))


_BY_SUMS = {1: (0, amax), -1: (0, amin), math.inf: (1, amax), -math.inf: (1, amin)}
"""Norms that are extreme sums of |A|: over which of the two dims, and the largest or smallest."""


def matrix_norm(
    A: Any, ord: Any = "fro", dim: Sequence[int] = (-2, -1), keepdim: bool = False, *,
    dtype: Any = None,
) -> Any:  # fmt: skip
    """The norm of the matrices that two dims span.

    ord: "fro" of all elements, "nuc" the sum of the singular values, 2 the largest and -2 the
    smallest of these; 1 and -1 the largest and smallest sum of |A| along columns, inf and -inf
    along rows.
    """
    A = _typed("matrix_norm", A, dtype)
    if not isinstance(dim, (tuple, list)):
        raise TypeError(f"linalg.matrix_norm: dim must be two dims, not {dim!r}")
    if A.ndim < 2 or len(dim) != 2:
        raise RuntimeError(
            f"linalg.matrix_norm: expected two dims of at least two, not {dim} of {A.shape}"
        )
    a, b = all_dims("linalg.matrix_norm", tuple(dim), A.ndim)
    if ord == "fro":
        return vector_norm(A, 2, (a, b), keepdim)
    if not A.shape[a] * A.shape[b] and ord in ("nuc", 1, 2, math.inf):
        out = _sum(A, (a, b), True)
    elif ord in _BY_SUMS:
        over, extreme = _BY_SUMS[ord]
        sums = vector_norm(A, 1, (a, b)[over], True)
        out = extreme(sums, (a, b)[1 - over], True)
    elif ord in ("nuc", 2, -2):
        values = svdvals(movedim(A, (a, b), (-2, -1)))
        if ord == "nuc":
            out = _sum(values, (values.ndim - 1,), False)
        else:
            out = (amax if ord == 2 else amin)(values, -1)
    else:
        raise RuntimeError(
            f"linalg.matrix_norm: ord must be 'fro', 'nuc', 1, -1, 2, -2, inf or -inf, not {ord!r}"
        )
    kept = (1 if i in (a, b) else n for i, n in enumerate(A.shape) if keepdim or i not in (a, b))
    return _reshape(out, tuple(kept))


def norm(
    A: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Any:
    """The norm of vectors (an int as dim, or ord=None) or of matrices (two dims and an ord).

    Without dim, a 1-d tensor is a vector and a 2-d one a matrix; with neither, any is a vector.
    """
    dims = None if dim is None else tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
    if dims is not None and len(dims) not in (1, 2):
        raise RuntimeError(f"linalg.norm: dim must be one or two dims, not {dim}")
    if ord is None:
        return vector_norm(A, 2, dims, keepdim, dtype=dtype)
    rank = A.ndim if dims is None else len(dims)
    if rank not in (1, 2):
        raise RuntimeError(f"linalg.norm: shape {A.shape} with ord {ord!r} needs a dim")
    if rank == 2:
        return matrix_norm(A, ord, (0, 1) if dims is None else dims, keepdim, dtype=dtype)
    if isinstance(ord, str):
        raise RuntimeError(f"linalg.norm: {ord!r} is a norm of matrices, not of vectors")
    return vector_norm(A, ord, dims, keepdim, dtype=dtype)
