"""Sums of products by letters: einsum, and the products that are added to something."""

from __future__ import annotations

import math
from typing import Any

from tensorgrad.ops.diagonal import _diagonal
from tensorgrad.ops.elementwise import add, mul
from tensorgrad.ops.products import _matmul, bmm, mm
from tensorgrad.ops.reduce import _sum
from tensorgrad.ops.shape import _permute, _reshape, broadcast
from tensorgrad.publish import public, publish

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
        for c, n in zip(term, shape):
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


def _scaled_sum(x: Any, product: Any, beta: Any, alpha: Any) -> Any:
    """beta x + alpha product; beta = 0 ignores x, NaN and all."""
    if alpha != 1:
        product = mul(product, alpha)
    return add(product, broadcast(x, product.shape), alpha=beta) if beta != 0 else product


@public()
def addmm(x: Any, mat1: Any, mat2: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """out = beta x + alpha mat1 @ mat2: (n, m), (n, k), (k, m) -> (n, m)."""
    return _scaled_sum(x, mm(mat1, mat2), beta, alpha)


@public()
def baddbmm(x: Any, batch1: Any, batch2: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """out[i] = beta x[i] + alpha batch1[i] @ batch2[i]."""
    return _scaled_sum(x, bmm(batch1, batch2), beta, alpha)


__all__ = publish(globals())
