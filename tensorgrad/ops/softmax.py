"""softmax, log_softmax, logsumexp, cross_entropy: through the log-sum-exp, so nothing overflows."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.backend import is_array, xp_of
from tensorgrad.convert import cast
from tensorgrad.dtypes import as_dtype, category, float32, float64
from tensorgrad.halves import narrowed, widened
from tensorgrad.kinds import fused
from tensorgrad.ops.choices import where
from tensorgrad.ops.compare import zeros_like
from tensorgrad.ops.elementwise import exp, log
from tensorgrad.ops.indexing import _gather
from tensorgrad.ops.reduce import _amax, _restore, _sum, _total, all_dims, numpy_names
from tensorgrad.ops.shape import _reshape, one_dim
from tensorgrad.publish import public, publish
from tensorgrad.twins import ask, ask_any, find

# ---- formulas: each op of the table, readable; the shift by the maximum changes no value


def _shifted(x: Any, dims: tuple[int, ...]) -> tuple[Any, Any]:
    """x less its maximum, and the maximum; where that is infinite, nothing is taken off."""
    top = _amax(x, dims, True)
    top = where(abs(top) == float("inf"), zeros_like(top), top)
    return x - top, top


def _softmax_formula(x: Any, dim: int) -> Any:
    e = exp(_shifted(x, (dim,))[0])
    return e / _sum(e, (dim,), True)


def _log_softmax_formula(x: Any, dim: int) -> Any:
    shifted, _ = _shifted(x, (dim,))
    return shifted - log(_sum(exp(shifted), (dim,), True))


def _logsumexp_formula(x: Any, dims: tuple[int, ...], keepdim: bool) -> Any:
    shifted, top = _shifted(x, dims)
    out = log(_sum(exp(shifted), dims, True)) + top
    return (
        out if keepdim else _reshape(out, tuple(n for d, n in enumerate(x.shape) if d not in dims))
    )


# ---- rules, and their kernels


def _softmax_slope_formula(g: Any, out: Any, dim: int) -> Any:
    return out * (g - _sum(g * out, (dim,), True))


def _log_softmax_slope_formula(g: Any, out: Any, dim: int) -> Any:
    return g - exp(out) * _sum(g, (dim,), True)


def _source(name: str, formula: Any) -> Any:
    """The implementation: a kernel along the last dim, all that it knows; else the formula."""

    def run(xp: Any, x: Any, /, dim: int) -> Any:
        if category(x.dtype) < 2:
            raise TypeError("expected floats; use x.float() or dtype=")
        if not x.ndim:
            return formula(x.reshape(1), 0).reshape(())
        if not x.size:
            return x.copy()
        answer = ask_any(name, x, x) if dim in (-1, x.ndim - 1) else None
        return formula(x, dim) if answer is None else answer

    return run


def _rule(name: str, formula: Any) -> Any:
    """The rule: a kernel for arrays, the formula for whatever is being recorded."""

    def dx(g: Any, out: Any, dim: int) -> Any:
        answer = (
            ask_any(name, g, g, out) if is_array(g) and g.ndim and dim in (-1, g.ndim - 1) else None
        )
        return formula(g, out, dim) if answer is None else answer

    return dx


def _register(function: Any, kernel: str, log: bool) -> None:
    """Along the last dim of a small matrix the compiled loop is called with nothing in between."""
    op = function.op
    general = op.implementation(np.ndarray)
    loops: dict[Any, Any] = {}

    def run(x: Any, dim: int) -> Any:
        if x.ndim < 3 and 0 < x.size < _SMALL and (dim == -1 or dim == x.ndim - 1):
            try:
                loop, y = loops[x.dtype], np.empty_like(x)
                if x.ndim == 2:
                    loop(0, len(x), x, y, log)
                else:
                    loop(0, 1, x[None], y[None], log)
                return y
            except (KeyError, TypeError):  # not loaded yet, or strides that it takes only as a copy
                if not loops and find(kernel, np.ndarray) is not None:
                    from tensorgrad.kernels.cpu.softmax import forward

                    loops.update({dtype: forward[dtype] for dtype in (float32, float64)})
        return general(x, dim)

    op.register(np.ndarray, run)


_SMALL = 4096  # elements up to which the call, not the work, is what costs

_softmax = fused(
    "softmax", _source("softmax_forward", _softmax_formula), _softmax_formula, floats=False,
    dx=_rule("softmax_backward", _softmax_slope_formula),
)  # fmt: skip
_log_softmax = fused(
    "log_softmax", _source("log_softmax_forward", _log_softmax_formula), _log_softmax_formula,
    floats=False, dx=_rule("log_softmax_backward", _log_softmax_slope_formula),
)  # fmt: skip
_register(_softmax, "softmax_forward", False)
_register(_log_softmax, "log_softmax_forward", True)
_logsumexp = fused(
    "logsumexp",
    lambda xp, x, /, dims, keepdim: _logsumexp_formula(x, dims, keepdim), _logsumexp_formula,
    dx=lambda g, x, out, dims, keepdim: _restore(g, x.shape, dims, keepdim)
    * exp(x - _restore(out, x.shape, dims, keepdim)),
)  # fmt: skip


def _typed(name: str, x: Any, dtype: Any) -> Any:
    if dtype is not None:
        return cast(x, as_dtype(dtype))
    if category(x.dtype) < 2:
        raise RuntimeError(
            f"{name}: expected a floating-point tensor, not {x.dtype}; use x.float() or dtype="
        )
    return x


@public()
def softmax(x: Any, dim: int, dtype: Any = None) -> Any:
    """out = exp(x) / sum exp(x) along a dim."""
    if dim == -1 and dtype is None and x.dtype.kind == "f" and x.shape and x.shape[-1]:
        return _softmax(x, -1)
    x = _typed("softmax", x, dtype)
    d = one_dim("softmax", dim, x.ndim)
    return _softmax(x, d) if x.ndim and x.shape[d] else exp(x - x)


@public()
def log_softmax(x: Any, dim: int, dtype: Any = None) -> Any:
    """out = x - log sum exp(x) along a dim."""
    if dim == -1 and dtype is None and x.dtype.kind == "f" and x.shape and x.shape[-1]:
        return _log_softmax(x, -1)
    x = _typed("log_softmax", x, dtype)
    d = one_dim("log_softmax", dim, x.ndim)
    return _log_softmax(x, d) if x.ndim and x.shape[d] else x - x


@public()
@numpy_names
def logsumexp(x: Any, dim: Any, keepdim: bool = False) -> Any:
    """out = log sum exp(x) over dims."""
    dims = all_dims("logsumexp", dim, x.ndim)
    if any(x.shape[d] == 0 for d in dims):
        return log(_sum(x, dims, keepdim))  # of nothing: -inf
    return _logsumexp(x, dims, bool(keepdim))


# ---- cross-entropy of rows: (N, V) logits and (N,) classes


def _rows_formula(logits: Any, target: Any, ignore_index: int) -> Any:
    """loss[n] = log sum exp(x[n]) - x[n, target[n]]; 0 where the target is ignore_index."""
    ignored = target == ignore_index
    classes = _reshape(where(ignored, zeros_like(target), target), (-1, 1))
    loss = _logsumexp(logits, (1,), False) - _reshape(_gather(logits, classes, 1), (-1,))
    return where(ignored, zeros_like(loss), loss)


def _rows(xp: Any, logits: Any, target: Any, /, ignore_index: int) -> Any:
    """The losses and, for the rule, the log-sum-exp of each row."""
    answer = ask_any("cross_entropy_forward", logits, logits, target, None, ignore_index)
    if answer is not None:
        return answer
    top = logits.max(1, initial=-xp.inf)
    lse = xp.log(xp.exp(logits - top[:, None]).sum(1)) + top
    ignored = target == ignore_index
    loss = lse - logits[xp.arange(len(target)), xp.where(ignored, 0, target)]
    loss[ignored] = 0
    return loss, lse


def _rows_slope(g: Any, logits: Any, target: Any, lse: Any, ignore_index: int) -> Any:
    """g (softmax(x) - onehot(target)) in each row, 0 where it is ignore_index.  g (N,) or 0-d."""
    answer = ask_any("cross_entropy_backward", logits, g, logits, target, lse, None, ignore_index)
    if answer is not None:
        return answer
    xp = xp_of(logits)
    ignored = target == ignore_index
    dx = xp.exp(logits - lse[:, None])
    dx[xp.arange(len(target)), xp.where(ignored, 0, target)] -= 1
    dx *= xp.where(ignored, 0, g).astype(dx.dtype)[:, None]
    return dx


def _mean_rows(xp: Any, logits: Any, target: Any, /, ignore_index: int, count: float) -> Any:
    loss, lse = _rows(xp, logits, target, ignore_index)
    return xp.asarray(loss.sum() / loss.dtype.type(count)), lse


_cross_entropy_rows = fused(
    "cross_entropy_rows", _rows, _rows_formula, outputs=("out", "lse"),
    dlogits=_rows_slope,
)  # fmt: skip
_cross_entropy = fused(
    "cross_entropy", _mean_rows,
    lambda logits, target, ignore_index, count: (
        _total(_rows_formula(logits, target, ignore_index)) / count
    ),
    outputs=("out", "lse"),
    dlogits=lambda g, logits, target, lse, ignore_index, count: _rows_slope(
        g / g.dtype.type(count), logits, target, lse, ignore_index
    ),
)  # fmt: skip



def _wide_rows(
    xp: Any, logits: Any, target: Any, /, ignore_index: int, count: float
) -> tuple[Any, Any]:
    answer = ask("bf16_cross_entropy_forward", logits, logits, target, ignore_index)
    loss, lse = _rows(xp, widened(logits), target, ignore_index) if answer is None else answer
    return xp.asarray(loss.sum() / loss.dtype.type(count)), lse


def _wide_slope(
    g: Any, logits: Any, target: Any, lse: Any, ignore_index: int, count: float
) -> Any:
    g = g / g.dtype.type(count)
    answer = ask("bf16_cross_entropy_backward", logits, g, logits, target, lse, ignore_index)
    if answer is not None:
        return answer
    return narrowed(_rows_slope(g, widened(logits), target, lse, ignore_index), logits.dtype)


_cross_entropy_wide = fused(
    "cross_entropy_wide", _wide_rows,
    lambda logits, target, ignore_index, count: _cross_entropy.op.formula(
        cast(logits, float32), target, ignore_index, count
    ),
    outputs=("out", "lse"), dlogits=_wide_slope,
)  # fmt: skip
"""The loss in float32 of logits in 16 bits, which are not written out in float32 on the way."""

__all__ = publish(globals())
