"""Matrix products.  Leading dims are folded into one where the right side is a single matrix."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensorgrad.dtypes import category
from tensorgrad.halves import narrowed, widened
from tensorgrad.kernels.cpu import blas
from tensorgrad.kinds import bilinear, fused
from tensorgrad.ops.shape import _reshape, _swap, turn
from tensorgrad.publish import public, publish
from tensorgrad.tensor import Tensor
from tensorgrad.twins import ask_any


def _product(xp: Any, x: Any, y: Any, /) -> Any:
    if y.ndim != 2:
        return _widened(x, y, np.matmul) if xp is np and x.dtype.itemsize == 2 else x @ y
    if x.ndim == 2:
        return _matrices(x, y) if xp is np else x @ y
    shape, rows = (*x.shape[:-1], y.shape[-1]), x.reshape(_folded(x.shape))
    if xp is not np or x.dtype != y.dtype or x.dtype.kind != "f" or x.dtype.itemsize == 2:
        return (_matrices(rows, y) if xp is np else rows @ y).reshape(shape)
    out = np.empty(shape, x.dtype)  # not a view of the product: backward may hand it on as it is
    _matrices(rows, y, out.reshape(_folded(shape)))
    return out


def _matrices(x: Any, y: Any, out: Any = None) -> Any:
    """x @ y of two matrices: cut among threads where it is large, at little cost where small."""
    if x.dtype.itemsize == 2:
        return _widened(x, y, _matrices)
    if x.size * y.shape[1] <= 262_144 or x.dtype.kind != "f" or x.dtype != y.dtype:
        return x.dot(y) if out is None else np.matmul(x, y, out)
    return blas.matmul(x, y, out)


def _widened(x: Any, y: Any, product: Any) -> Any:
    """The product of 16-bit floats, summed in float32 and rounded once at the end."""
    if category(x.dtype) != 2:
        return x @ y
    answer = ask_any("bf16_product", x, x, y) if x.dtype.kind == "V" else None
    if answer is not None:
        return answer
    return narrowed(product(widened(x), widened(y)), x.dtype)


def _folded(shape: tuple[int, ...]) -> tuple[int, int]:
    """All leading dims as one: (..., n) -> (m, n)."""
    return (-1 if shape[-1] else math.prod(shape[:-1])), shape[-1]


def _rows(x: Any) -> Any:
    return x if x.ndim == 2 else _reshape(x, _folded(x.shape))


def _slope_y(g: Any, x: Any, y_shape: tuple[int, ...]) -> Any:
    """x^T g; where y is one matrix, summed over the batch by the product itself."""
    return _mm(_swap(_rows(x), 0, 1), _rows(g)) if len(y_shape) == 2 else _matmul(turn(x), g)


_matmul = bilinear("matmul", _product, dx=lambda g, y: _matmul(g, turn(y)), dy=_slope_y)


_mm = bilinear(
    "mm", "matmul", dx=lambda g, y: _mm(g, _swap(y, 0, 1)), dy=lambda g, x: _mm(_swap(x, 0, 1), g)
)
_mm.op.register(np.ndarray, _matrices)


@public("__matmul__")
def matmul(x: Any, y: Any) -> Any:
    """out = x @ y: (..., n, k) @ (..., k, m) -> (..., n, m); vectors gain a dim and lose it."""
    if type(x) is Tensor and type(y) is Tensor and x.array.ndim == 2 and y.array.ndim == 2:
        return _mm(x, y)
    try:
        a, b = x.shape, y.shape
    except AttributeError:
        raise TypeError(
            f"matmul: expected two tensors, not {type(x).__name__} and {type(y).__name__}"
        ) from None
    if len(a) >= 2 and len(b) >= 2:
        if a[-1] != b[-2]:
            raise RuntimeError(f"matmul: {a} @ {b}: inner sizes {a[-1]} and {b[-2]} differ")
        return _matmul(x, y)
    if not a or not b:
        raise RuntimeError(
            f"matmul: both operands need at least one dim, their shapes are {a} and {b}"
        )
    if a[-1] != (b[-2] if len(b) > 1 else b[0]):
        raise RuntimeError(
            f"matmul: {a} @ {b}: inner sizes {a[-1]} and {b[-2] if len(b) > 1 else b[0]} differ"
        )
    left = _reshape(x, (1, *a)) if len(a) == 1 else x
    right = _reshape(y, (*b, 1)) if len(b) == 1 else y
    out = _matmul(left, right)
    shape = out.shape
    shape = shape[:-1] if len(b) == 1 else shape
    shape = (
        (*shape[:-2], *shape[-1:])
        if len(a) == 1 and len(b) > 1
        else shape[:-1]
        if len(a) == 1
        else shape
    )
    return _reshape(out, shape)


@public("__rmatmul__", method=False)
def _rmatmul(x: Any, y: Any) -> Any:
    return matmul(y, x)


def _same_rank(name: str, x: Any, y: Any, rank: int) -> None:
    if x.ndim != rank or y.ndim != rank:
        raise RuntimeError(
            f"{name}: expected two {rank}-d tensors, their shapes are {x.shape} and {y.shape}"
        )


@public()
def mm(x: Any, mat2: Any) -> Any:
    """out = x @ y for two matrices."""
    _same_rank("mm", x, mat2, 2)
    return matmul(x, mat2)


@public()
def bmm(x: Any, mat2: Any) -> Any:
    """out[i] = x[i] @ y[i]: (B, n, k) @ (B, k, m) -> (B, n, m)."""
    _same_rank("bmm", x, mat2, 3)
    if x.shape[0] != mat2.shape[0]:
        raise RuntimeError(f"bmm: batch sizes {x.shape[0]} and {mat2.shape[0]} differ")
    return matmul(x, mat2)


@public()
def mv(x: Any, vec: Any) -> Any:
    """out = x @ v, a matrix and a vector."""
    if x.ndim != 2 or vec.ndim != 1:
        raise RuntimeError(
            f"mv: expected a matrix and a vector, their shapes are {x.shape} and {vec.shape}"
        )
    return matmul(x, vec)


@public()
def dot(x: Any, tensor: Any) -> Any:
    """out = sum of x[i] y[i], two vectors."""
    _same_rank("dot", x, tensor, 1)
    return matmul(x, tensor)


@public("ger")
def outer(x: Any, vec2: Any) -> Any:
    """out[i, j] = x[i] y[j], two vectors."""
    _same_rank("outer", x, vec2, 1)
    return _reshape(x, (x.shape[0], 1)) * _reshape(vec2, (1, vec2.shape[0]))


def _affine(xp: Any, x: Any, weight: Any, bias: Any, /) -> Any:
    if xp is np and x.dtype.kind == "V":
        answer = ask_any("bf16_product", x, x, weight.T, bias)
        if answer is not None:
            return answer
    out = _product(xp, x, weight.T)
    out += bias
    return out


_linear = bilinear(
    "linear", lambda xp, x, weight, /: _product(xp, x, weight.T),
    dx=lambda g, weight: _matmul(g, weight),
    dweight=lambda g, x: _mm(_swap(_rows(g), 0, 1), _rows(x)),
)  # fmt: skip
_linear_bias = fused(
    "linear_bias", _affine, lambda x, weight, bias: _linear(x, weight) + bias,
    dx=lambda g, weight: _matmul(g, weight),
    dweight=lambda g, x: _mm(_swap(_rows(g), 0, 1), _rows(x)),
    dbias=lambda g: g,
)  # fmt: skip


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """out = x weight^T + bias: (..., in), (out, in), (out) -> (..., out)."""
    if weight.ndim == 1:
        out = matmul(x, weight)
        if bias is None or (not out.ndim and not bias.ndim):
            return out if bias is None else out + bias
        raise RuntimeError(f"linear: a weight of shape {weight.shape} takes no bias")
    if weight.ndim != 2 or not x.ndim or x.shape[-1] != weight.shape[1]:
        raise RuntimeError(
            f"linear: an input of shape {x.shape} and a weight of shape {weight.shape}: "
            "the input's last size and the weight's second must be equal"
        )
    if bias is not None and x.ndim > 1 and bias.shape == weight.shape[:1]:
        return _linear_bias(x, weight, bias)
    out = _linear(x if x.ndim > 1 else _reshape(x, (1, -1)), weight)
    if bias is not None:
        most = out.shape[-1], out.shape[0] if out.ndim == 2 else 1  # of a matrix, a row for each
        if bias.ndim > 2 or any(n not in (1, m) for n, m in zip(bias.shape[::-1], most)):
            raise RuntimeError(
                f"linear: a bias of shape {bias.shape} does not fit a weight of shape "
                f"{weight.shape} and an input of shape {x.shape}"
            )
        out = out + bias
    return out if x.ndim > 1 else _reshape(out, (weight.shape[0],))


__all__ = publish(globals())
