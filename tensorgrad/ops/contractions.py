"""Sums of products by letters: einsum, and the products that are added to something."""

from __future__ import annotations

import math
from string import ascii_letters
from typing import Any

from tensorgrad.dtypes import category, promote_types
from tensorgrad.ops.choices import where
from tensorgrad.ops.compare import ones_like
from tensorgrad.ops.diagonal import _diagonal
from tensorgrad.ops.elementwise import add, mul
from tensorgrad.ops.products import _matmul, _same_rank, bmm, dot, mm, mv, outer
from tensorgrad.ops.reduce import _sum
from tensorgrad.ops.shape import _permute, _reshape, all_dims, broadcast
from tensorgrad.publish import public, publish
from tensorgrad.tensor import Operable

_DOTS = "αβγδεζηθικλμνξοπρστυφχψω"
"""The letters of the dims that an ellipsis stands for."""


@public(method=False)
def einsum(equation: str, *operands: Any) -> Any:
    """out = the product of all operands, summed over the letters that are not in the output.

    "bij,bjk->bik": one letter per dim, "..." for the rest.  Without "->" the output is what stands
    for "...", then the letters seen once, in order.  Pairs are multiplied from left to right, each
    as one matrix product.
    """
    xs = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    terms, output = _letters(equation, [x.ndim for x in xs])
    sizes = _sizes(equation, terms, [x.shape for x in xs])
    x, a = _ready(xs[0], terms[0], sizes)
    for i, y in enumerate(xs[1:], 1):
        later = set(output).union(*terms[i + 1 :])
        y, b = _summed(*_ready(y, terms[i], sizes), later | set(a))
        x, a = _pair(*_summed(x, a, later | set(b)), y, b, later, sizes)
    x, a = _summed(x, a, set(output))
    return _permute(x, tuple(a.index(c) for c in output))


def _letters(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """The letters of each operand and of the output, one per dim."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise RuntimeError(f"einsum: '{equation}' is for {len(terms)} operands, not {len(ranks)}")
    hidden = [n - len(t) + 3 for t, n in zip(terms, ranks) if "..." in t]
    dots = _DOTS[: max(hidden, default=0)]
    spelled = []
    for term, rank in zip(terms, ranks):
        named = term.replace("...", "", 1)
        missing = rank - len(named)
        if missing < 0 or (missing and named == term) or not (named or "a").isalpha():
            raise RuntimeError(
                f"einsum: '{equation}': the term '{term}' does not fit a tensor with {rank} dims"
            )
        spelled.append(term.replace("...", dots[len(dots) - missing :], 1))
    seen = "".join(spelled)
    output = output.replace("...", dots, 1)
    if not arrow:
        output = dots + "".join(sorted(c for c in set(seen) - set(dots) if seen.count(c) == 1))
    for c in output:
        if c not in seen or output.count(c) > 1:
            raise RuntimeError(
                f"einsum: '{equation}': '{c}' must stand in an input, and once in the output"
            )
    return spelled, output


def _sizes(equation: str, terms: list[str], shapes: list[tuple[int, ...]]) -> dict[str, int]:
    """The size of each letter; a dim of size one is stretched to the others'."""
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes):
        own = dict(zip(term, shape))
        for c, n in zip(term, shape):
            if own[c] != n:
                raise RuntimeError(
                    f"einsum: '{equation}': '{c}' is {own[c]} and {n} in one operand"
                )
            if sizes.get(c, 1) == 1:
                sizes[c] = n
            elif n not in (1, sizes[c]):
                raise RuntimeError(
                    f"einsum: '{equation}': '{c}' is {sizes[c]} in one operand, {n} in another"
                )
    return sizes


def _ready(x: Any, term: str, sizes: dict[str, int]) -> tuple[Any, str]:
    """The operand at full size, each letter once: of one that stands twice the diagonal."""
    wide = tuple(sizes[c] for c in term)
    x = broadcast(x, wide) if wide != x.shape else x
    for c in dict.fromkeys(term):
        while term.count(c) > 1:
            i = term.index(c)
            j = term.index(c, i + 1)
            x, term = _diagonal(x, 0, i, j), term[:i] + term[i + 1 : j] + term[j + 1 :] + c
    return x, term


def _summed(x: Any, a: str, wanted: set[str]) -> tuple[Any, str]:
    """x summed over the letters that nobody wants."""
    dims = tuple(i for i, c in enumerate(a) if c not in wanted)
    return (_sum(x, dims, False), "".join(c for c in a if c in wanted)) if dims else (x, a)


def _pair(
    x: Any, a: str, y: Any, b: str, later: set[str], sizes: dict[str, int]
) -> tuple[Any, str]:
    """The product of two operands, summed over what they share and nobody needs later."""
    batch = [c for c in a if c in b and c in later]
    shared = [c for c in a if c in b and c not in later]
    left, right = [c for c in a if c not in b], [c for c in b if c not in a]
    out = tuple(sizes[c] for c in batch + left + right)
    x = _permute(x, tuple(a.index(c) for c in batch + left + shared))
    y = _permute(y, tuple(b.index(c) for c in batch + shared + right))
    if not shared:
        ones = (1,) * len(left)
        rows = _reshape(x, x.shape + (1,) * len(right))
        return rows * _reshape(y, y.shape[: len(batch)] + ones + y.shape[len(batch) :]), "".join(
            batch + left + right
        )
    groups = [math.prod(sizes[c] for c in group) for group in (batch, left, shared, right)]
    rows = _reshape(x, (groups[0], groups[1], groups[2]) if batch else (groups[1], groups[2]))
    columns = _reshape(y, (groups[0], groups[2], groups[3]) if batch else (groups[2], groups[3]))
    return _reshape(_matmul(rows, columns), out), "".join(batch + left + right)


# ---- products added to something


def _scaled_sum(name: str, x: Any, product: Any, beta: Any, alpha: Any) -> Any:
    """beta x + alpha product; a factor of zero ignores what it is for, NaN and all."""
    if x.dtype != product.dtype:
        raise RuntimeError(
            f"{name}: a product of {product.dtype} for a tensor of {x.dtype}; "
            "convert one with x.to(dtype)"
        )
    if category(x.dtype) < 2:  # whole numbers take whole factors
        alpha, beta = int(alpha), int(beta)
    x = x if x.shape == product.shape else broadcast(x, product.shape)
    if alpha == 0:
        product = where(ones_like(product) == 0, product, 0)
    elif alpha != 1:
        product = mul(product, alpha)
    return add(product, x, alpha=beta) if beta != 0 else product


@public()
def addmm(x: Any, mat1: Any, mat2: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """out = beta x + alpha mat1 @ mat2: (n, m), (n, k), (k, m) -> (n, m)."""
    return _scaled_sum("addmm", x, mm(mat1, mat2), beta, alpha)


@public()
def baddbmm(x: Any, batch1: Any, batch2: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """out[i] = beta x[i] + alpha batch1[i] @ batch2[i]."""
    return _scaled_sum("baddbmm", x, bmm(batch1, batch2), beta, alpha)


@public()
def addbmm(x: Any, batch1: Any, batch2: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """out = beta x + alpha sum of batch1[i] @ batch2[i]: (n, m), (B, n, k), (B, k, m) -> (n, m)."""
    _same_rank("addbmm", batch1, batch2, 3)
    (b, n, k), (c, rows, m) = batch1.shape, batch2.shape
    if b != c or k != rows:
        raise RuntimeError(f"addbmm: {batch1.shape} @ {batch2.shape}: the sizes do not fit")
    left = _reshape(_permute(batch1, (1, 0, 2)), (n, b * k))
    return _scaled_sum("addbmm", x, mm(left, _reshape(batch2, (b * k, m))), beta, alpha)


@public()
def addmv(x: Any, mat: Any, vec: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """out = beta x + alpha mat @ vec: (n), (n, k), (k) -> (n)."""
    return _scaled_sum("addmv", x, mv(mat, vec), beta, alpha)


@public()
def addr(x: Any, vec1: Any, vec2: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """out[i, j] = beta x[i, j] + alpha vec1[i] vec2[j]: (n, m), (n), (m) -> (n, m)."""
    product = outer(vec1, vec2)
    dtype = promote_types(x.dtype, product.dtype)
    if category(dtype) < 2 and not (isinstance(alpha, int) and isinstance(beta, int)):
        raise RuntimeError(f"addr: {dtype} takes whole factors, not beta {beta} and alpha {alpha}")
    return _scaled_sum("addr", x.to(dtype), product.to(dtype), beta, alpha)


# ---- products over chosen dims


@public(method=False)
def tensordot(a: Any, b: Any, dims: Any = 2) -> Any:
    """out = the products of a and b summed over pairs of dims.

    dims: how many (the last of a with the first of b), or two lists, those of a and those of b.
    """
    if a.dtype != b.dtype:
        raise RuntimeError(f"tensordot: dtypes {a.dtype} and {b.dtype} differ")
    if isinstance(dims, Operable):
        dims = dims.tolist()
    if isinstance(dims, int):
        if not 0 <= dims <= min(a.ndim, b.ndim):
            raise RuntimeError(f"tensordot: {dims} dims of shapes {a.shape} and {b.shape}")
        dims = range(a.ndim - dims, a.ndim), range(dims)
    left, right = (
        (all_dims("tensordot", tuple(d), x.ndim) if len(d) else ()) for d, x in zip(dims, (a, b))
    )
    if len(left) != len(right):
        raise RuntimeError(f"tensordot: {len(left)} dims of a and {len(right)} of b; give pairs")
    for i, j in zip(left, right):
        if a.shape[i] != b.shape[j] and 1 not in (a.shape[i], b.shape[j]):
            raise RuntimeError(
                f"tensordot: dim {i} of {a.shape} and dim {j} of {b.shape} differ in size"
            )
    first = ascii_letters[: a.ndim]
    second = [*ascii_letters[a.ndim : a.ndim + b.ndim]]
    for i, j in zip(left, right):
        second[j] = first[i]
    out = [c for c in first if c not in second] + [c for c in second if c not in first]
    return einsum(f"{first},{''.join(second)}->{''.join(out)}", a, b)


@public()
def inner(x: Any, other: Any) -> Any:
    """out = sum of x[..., k] y[..., k]: (*A, K), (*B, K) -> (*A, *B); a 0-d operand multiplies."""
    if not x.ndim or not other.ndim:
        return x * other
    if x.dtype != other.dtype:
        raise RuntimeError(f"inner: dtypes {x.dtype} and {other.dtype} differ")
    if x.shape[-1] != other.shape[-1]:
        raise RuntimeError(f"inner: the last sizes of {x.shape} and {other.shape} differ")
    return tensordot(x, other, ((-1,), (-1,)))


@public()
def vdot(x: Any, other: Any) -> Any:
    """out = sum of x[i] y[i], two vectors."""
    return dot(x, other)


@public()
def kron(x: Any, other: Any) -> Any:
    """out[i m + k, j n + l] = x[i, j] y[k, l], y of shape (m, n); so for any number of dims."""
    rank = max(x.ndim, other.ndim)
    a, b = ((1,) * (rank - v.ndim) + v.shape for v in (x, other))
    blocks = _reshape(x, tuple(m for n in a for m in (n, 1)))
    product = blocks * _reshape(other, tuple(m for n in b for m in (1, n)))
    return _reshape(product, tuple(n * m for n, m in zip(a, b)))


@public()
def trace(x: Any) -> Any:
    """out = sum of x[i, i], a matrix."""
    if x.ndim != 2:
        raise RuntimeError(f"trace: expected a matrix, not a tensor of shape {x.shape}")
    return _diagonal(x, 0, 0, 1).sum()


__all__ = publish(globals())
