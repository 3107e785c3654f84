"""Convolutions: one trilinear form of input, weight and output; its three ops are their rules.

Windows are laid out as the columns of a matrix, a block at a time, and multiplied by the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from tensorgrad.dtypes import category
from tensorgrad.kernels.cpu import blas, threads
from tensorgrad.kinds import bilinear, fused
from tensorgrad.ops.reduce import _sum
from tensorgrad.ops.shape import _reshape
from tensorgrad.ops.windows import Windows, add_taps, each, how_many, padded, strided, wide
from tensorgrad.publish import public, publish

# ---- the ops: x (N, C, *size), w (D, C / groups, *kernel), result of conv (N, D, *out)

_conv = bilinear(
    "conv", lambda xp, x, w, /, at, groups: _gathered(xp, x, w, at, groups),
    dx=lambda g, w, at, groups: _conv_transpose(g, w, at, groups),
    dw=lambda g, x, at, groups: _conv_weight(g, x, at, groups),
)  # fmt: skip
"""out[n, d, o] = sum over c, k of w[d, c, k] x[n, c, what tap k of window o looks at]"""
_conv_transpose = bilinear(
    "conv_transpose", lambda xp, x, w, /, at, groups: _scattered(xp, x, w, at, groups),
    dx=lambda g, w, at, groups: _conv(g, w, at, groups),
    dw=lambda g, x, at, groups: _conv_weight(x, g, at, groups),
)  # fmt: skip
"""out[n, c, i] = sum over d and the taps k of windows o that look at i of w[d, c, k] x[n, d, o]"""
_conv_weight = bilinear(
    "conv_weight", lambda xp, x, y, /, at, groups: _paired(xp, x, y, at, groups),
    dx=lambda g, y, at, groups: _conv(y, g, at, groups),
    dy=lambda g, x, at, groups: _conv_transpose(x, g, at, groups),
)  # fmt: skip
"""out[d, c, k] = sum over n, o of x[n, d, o] y[n, c, what tap k of window o looks at]"""


def _with_bias(name: str, source: Callable[..., Any], formula: Any, **rules: Any) -> Any:
    """The op with bias[d] added to channel d in place."""

    def biased(xp: Any, x: Any, w: Any, bias: Any, /, at: Windows, groups: int) -> Any:
        out = source(xp, x, w, at, groups)
        out += bias.reshape(-1, *(1,) * len(at.size))
        return out

    return fused(
        name, biased,
        lambda x, w, bias, at, groups: formula(x, w, at, groups)
        + _reshape(bias, (-1, *(1,) * len(at.size))),
        dbias=lambda g: _sum(g, (0, *range(2, g.ndim)), False), **rules,
    )  # fmt: skip


_conv_bias = _with_bias(
    "conv_bias", lambda *args: _gathered(*args), _conv,
    dx=lambda g, w, at, groups: _conv_transpose(g, w, at, groups),
    dw=lambda g, x, at, groups: _conv_weight(g, x, at, groups),
)  # fmt: skip
_conv_transpose_bias = _with_bias(
    "conv_transpose_bias", lambda *args: _scattered(*args), _conv_transpose,
    dx=lambda g, w, at, groups: _conv(g, w, at, groups),
    dw=lambda g, x, at, groups: _conv_weight(x, g, at, groups),
)  # fmt: skip

# ---- how the work is cut: by sizes alone, so that no number depends on how many threads there are

CACHE = 1 << 19  # bytes of a block of columns: what a core's second cache holds
MEMORY = 1 << 28  # the same on a GPU, which wants large products
WIDE = 256  # columns from which on a product is quick; smaller images go together
TALL = 256  # the same for rows
PIECES = 16  # that threads can share at most


def _blocks(xp: Any, images: range, at: Windows, column: int) -> list[tuple[slice, slice]]:
    """Images and rows of windows, a block of columns each; `column` is the bytes of one."""
    count, row = at.out[0], prod(at.out[1:])
    columns = max((CACHE if xp is np else MEMORY) // max(column, 1), WIDE)
    together = max(
        (min(columns, WIDE + row * count - 1) if xp is np else columns) // (row * count), 1
    )
    height = max(columns // row, 1)
    return [
        (slice(first, min(first + together, images.stop)), slice(top, min(top + height, count)))
        for first in range(images.start, images.stop, together)
        for top in range(0, count, height)
    ]


def _ranges(n: int, pieces: int) -> list[range]:
    """[0, n) in so many ranges of nearly one length."""
    return [range(n * i // pieces, n * (i + 1) // pieces) for i in range(pieces)]


def _units(
    xp: Any, n: int, c: int, taps: int, groups: int, work: float
) -> list[tuple[int, range, slice]]:
    """What one thread does at a time: some channels of some images, and the number of these among
    the images."""
    pieces = max(1, min(PIECES, int(work / threads.WORTH))) if xp is np else 1
    parts = max(1, min(c, pieces, c * taps // TALL)) if groups == 1 else 1
    shares = _ranges(n, min(n, -(-pieces // parts)))
    return [
        (i, some, slice(r.start, r.stop))
        for i, some in enumerate(shares)
        for r in _ranges(c, parts)
    ]


def _share(xp: Any, run: Callable[..., None], units: list[Any], work: float) -> None:
    """run(unit) for all units; on the CPU our threads share them, and each product keeps to its
    thread."""

    def several(lo: int, hi: int) -> None:
        for unit in units[lo:hi]:
            run(*unit)

    found = blas._openblas() if xp is np else None
    if found is None:
        several(0, len(units))
        return
    set_threads, before = found
    set_threads(1)
    try:
        threads.share(several, len(units), work)
    finally:
        set_threads(before)


def _matrix(x: Any, groups: int, dims: int) -> Any:
    """(N, `dims` dims, rest) -> (groups, product of the dims / groups, N * rest); a view where
    memory allows."""
    n = dims + 1
    rows = prod(x.shape[1:n])
    return x.transpose(*range(1, n), 0, *range(n, x.ndim)).reshape(groups, rows // groups, -1)


# ---- on arrays


def _gathered(xp: Any, x: Any, w: Any, at: Windows, groups: int) -> Any:
    dtype, x, w = x.dtype, wide(x), wide(w)
    n, d, dims, row = x.shape[0], w.shape[0], len(at.size), prod(at.out[1:])
    if not x.size or not w.size:
        return xp.zeros((n, d, *at.out), dtype)
    taps = strided(xp, padded(xp, x, at), at)  # (N, C, *kernel, *out)
    weight = w.reshape(groups, d // groups, -1)
    out = xp.empty((n, d, *at.out), x.dtype)
    flat = out.reshape(n, groups, d // groups, -1)
    between = (slice(None),) * (1 + dims)

    def run(images: slice, rows: slice) -> None:
        part = flat[images, ..., rows.start * row : rows.stop * row]
        columns = _matrix(taps[(images, *between, rows)], groups, 1 + dims)
        if len(part) == 1:
            xp.matmul(weight, columns, out=part[0])
        else:
            product = xp.matmul(weight, columns)
            part[...] = product.reshape(*product.shape[:2], *part.shape[::3]).transpose(2, 0, 1, 3)

    blocks = _blocks(xp, range(n), at, x.shape[1] * prod(at.kernel) * x.itemsize)
    _share(xp, run, blocks, out.size * weight.shape[2] / 20)
    return out.astype(dtype, copy=False)


def _scattered(xp: Any, x: Any, w: Any, at: Windows, groups: int) -> Any:
    before = tuple(e * (k - 1) - b for e, k, b in zip(at.dilation, at.kernel, at.before))
    if max(at.stride) == 1 and min(before) >= 0:  # what looks at i is itself a window over x
        around = Windows(at.out, at.size, at.kernel, at.stride, at.dilation, before)
        return _gathered(xp, x, _turned(w, groups), around, groups)
    dtype, x, w = x.dtype, wide(x), wide(w)
    n, d, c, dims, taps = x.shape[0], x.shape[1], w.shape[1] * groups, len(at.size), prod(at.kernel)
    out = xp.zeros((n, c, *at.size), x.dtype)
    if not x.size or not w.size:
        return out.astype(dtype, copy=False)
    turned = w.reshape(groups, d // groups, -1).swapaxes(1, 2)  # (groups, C taps, D)

    def run(_: int, some: range, channels: slice) -> None:
        weight = turned if groups > 1 else turned[:, channels.start * taps : channels.stop * taps]
        for images, rows in _blocks(xp, some, at, weight.shape[0] * weight.shape[1] * x.itemsize):
            part = x[images, :, rows]
            columns = xp.matmul(weight, _matrix(part, groups, 1))
            columns = columns.reshape(-1, *at.kernel, part.shape[0], *part.shape[2:])
            columns = columns.transpose(1 + dims, *range(1 + dims), *range(2 + dims, 2 + 2 * dims))
            add_taps(out[images, channels], columns, at.rows(rows.start, rows.stop))

    work = x.size * turned.shape[1] / 20
    _share(xp, run, _units(xp, n, c, taps, groups, work), work)
    return out.astype(dtype, copy=False)


def _turned(w: Any, groups: int) -> Any:
    """(D, C / groups, *kernel) -> (C, D / groups, *kernel), the kernel from its end to its
    beginning."""
    w = w[(..., *(slice(None, None, -1),) * (w.ndim - 2))]
    w = w.reshape(groups, w.shape[0] // groups, *w.shape[1:]).swapaxes(1, 2)
    return w.reshape(-1, *w.shape[2:])


def _paired(xp: Any, x: Any, y: Any, at: Windows, groups: int) -> Any:
    dtype, x, y = x.dtype, wide(x), wide(y)
    n, d, c, dims = x.shape[0], x.shape[1], y.shape[1], len(at.size)
    if not x.size or not y.size:
        return xp.zeros((d, c // groups, *at.kernel), dtype)
    taps = strided(xp, padded(xp, y, at), at)  # (N, C, *kernel, *out)
    between = (slice(None),) * dims
    work = x.size * (c // groups) * prod(at.kernel) / 20
    units = _units(xp, n, c, prod(at.kernel), groups, work)
    shares = units[-1][0] + 1
    sums = xp.zeros((shares, groups, d // groups, c // groups, prod(at.kernel)), x.dtype)

    def run(share: int, some: range, channels: slice) -> None:
        into = sums[share] if groups > 1 else sums[share, :, :, channels]
        column = groups * into.shape[2] * into.shape[3] * x.itemsize
        for images, rows in _blocks(xp, some, at, column):
            columns = _matrix(taps[(images, channels, *between, rows)], groups, 1 + dims)
            part = _matrix(x[images, :, rows], groups, 1)
            into += xp.matmul(part, columns.swapaxes(1, 2)).reshape(into.shape)

    _share(xp, run, units, work)
    total = sums[0] if shares == 1 else sums.sum(0)
    return total.reshape(d, c // groups, *at.kernel).astype(dtype, copy=False)


# ---- the public functions


def _checked(
    name: str, x: Any, w: Any, bias: Any, dims: int, groups: int, transposed: bool
) -> None:
    for what, t in (("input", x), ("weight", w), ("bias", bias)):
        if not hasattr(t, "ndim") and (t is not None or what != "bias"):
            raise TypeError(f"{name}: {what} must be a tensor, not {type(t).__name__}")
        if t is not None and t.dtype != x.dtype:
            raise RuntimeError(
                f"{name}: an input of {x.dtype} and a {what} of {t.dtype}: convert one, as in "
                "x.to(dtype)"
            )
    if category(x.dtype) == 0:
        raise RuntimeError(
            f"{name}: bool tensors have no convolution; convert them, as in x.float()"
        )
    if x.ndim not in (dims + 1, dims + 2):
        raise RuntimeError(
            f"{name}: the input must have {dims + 2} dims, or {dims + 1} without a batch, not "
            f"{x.shape}"
        )
    if w.ndim != dims + 2:
        raise RuntimeError(f"{name}: the weight must have {dims + 2} dims, its shape is {w.shape}")
    if groups < 1:
        raise RuntimeError(f"{name}: groups must be at least 1, not {groups}")
    if not w.shape[0] or w.shape[0] % groups:
        raise RuntimeError(
            f"{name}: the first size of the weight {w.shape} must be a multiple of groups, {groups}"
        )
    if 0 in w.shape[2:]:
        raise RuntimeError(f"{name}: a weight of shape {w.shape} has an empty kernel")
    channels, wanted = x.shape[-1 - dims], w.shape[0] if transposed else w.shape[1] * groups
    if channels != wanted:
        raise RuntimeError(
            f"{name}: an input of shape {x.shape} has {channels} channels, a weight of shape "
            f"{w.shape} "
            f"with groups={groups} takes {wanted}"
        )
    made = w.shape[1] * groups if transposed else w.shape[0]
    if bias is not None and tuple(bias.shape) != (made,):
        raise RuntimeError(
            f"{name}: the bias must have shape ({made},), one number for each output channel, "
            f"not {bias.shape}"
        )


def _applied(plain: Any, biased: Any, x: Any, w: Any, bias: Any, at: Windows, groups: int) -> Any:
    """The op, with a batch of one for an input without."""
    single = x.ndim == w.ndim - 1
    x = _reshape(x, (1, *x.shape)) if single else x
    out = plain(x, w, at, groups) if bias is None else biased(x, w, bias, at, groups)
    return _reshape(out, tuple(out.shape[1:])) if single else out


def _conv_nd(
    dims: int, x: Any, w: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    name = f"conv{dims}d"
    _checked(name, x, w, bias, dims, groups, False)
    size, kernel = tuple(x.shape[-dims:]), tuple(w.shape[2:])
    s, d = each(name, "stride", stride, dims), each(name, "dilation", dilation, dims)
    if padding == "same":
        if max(s) > 1:
            raise RuntimeError(f"{name}: padding='same' goes with stride 1, not {stride}")
        before, out = tuple(e * (k - 1) // 2 for e, k in zip(d, kernel)), size
    else:
        if isinstance(padding, str) and padding != "valid":
            raise RuntimeError(
                f"{name}: padding must be 'same', 'valid', an int or {dims} ints, not {padding!r}"
            )
        before = each(name, "padding", 0 if padding == "valid" else padding, dims, 0)
        out = how_many(size, kernel, s, d, before)
    if min(out) < 1 or 0 in size:
        raise RuntimeError(
            f"{name}: a kernel of {kernel} with dilation {d} does not fit into an input of "
            f"{size} with padding {padding}"
        )
    return _applied(_conv, _conv_bias, x, w, bias, Windows(size, out, kernel, s, d, before), groups)


def _conv_transpose_nd(
    dims: int,
    x: Any,
    w: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Any:
    name = f"conv_transpose{dims}d"
    _checked(name, x, w, bias, dims, groups, True)
    out, kernel = tuple(x.shape[-dims:]), tuple(w.shape[2:])
    s, d = each(name, "stride", stride, dims), each(name, "dilation", dilation, dims)
    p, more = (
        each(name, "padding", padding, dims, 0),
        each(name, "output_padding", output_padding, dims, 0),
    )
    if any(m >= max(a, b) for m, a, b in zip(more, s, d)):
        raise RuntimeError(
            f"{name}: output_padding {more} must be smaller than stride {s} or dilation {d}"
        )
    size = tuple(
        (n - 1) * a - 2 * q + b * (k - 1) + m + 1
        for n, a, q, b, k, m in zip(out, s, p, d, kernel, more)
    )
    if min(size) < 1 or 0 in out:
        raise RuntimeError(
            f"{name}: padding {padding} leaves no output of an input of {out} and a kernel of "
            f"{kernel}"
        )
    return _applied(
        _conv_transpose,
        _conv_transpose_bias,
        x,
        w,
        bias,
        Windows(size, out, kernel, s, d, p),
        groups,
    )


@public(method=False)
def conv1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """out[n, d, o] = bias[d] + sum over c, k of weight[d, c, k] x[n, c, o stride + k dilation -
    padding].

    input (N, C, L) or (C, L), weight (D, C / groups, K), bias (D) -> (N, D, floor((L + 2 padding -
    dilation (K - 1)
    - 1) / stride) + 1).  padding: an int, "valid" (0) or "same" (out as long as the input; stride
    1).  RuntimeError
    for shapes that do not fit.  LeCun et al. 1989.
    """
    return _conv_nd(1, input, weight, bias, stride, padding, dilation, groups)


@public(method=False)
def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """out[n, d, o] = bias[d] + sum over c, k of weight[d, c, k] x[n, c, o stride + k dilation -
    padding], o and k pairs.

    input (N, C, H, W) or (C, H, W), weight (D, C / groups, K, L), bias (D) -> (N, D, *, *): see
    conv1d.
    stride, padding and dilation are an int for both dims, or a pair.
    """
    return _conv_nd(2, input, weight, bias, stride, padding, dilation, groups)


@public(method=False)
def conv_transpose1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Any:  # fmt: skip
    """out[n, c, i] = bias[c] + sum over d, k, o with i = o stride + k dilation - padding of
    weight[d, c, k] x[n, d, o].

    input (N, D, L) or (D, L), weight (D, C / groups, K), bias (C) -> (N, C, (L - 1) stride - 2
    padding
    + dilation (K - 1) + output_padding + 1): the gradient of conv1d for its input.
    """
    return _conv_transpose_nd(
        1, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


@public(method=False)
def conv_transpose2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Any:  # fmt: skip
    """The gradient of conv2d for its input: (N, D, H, W) or (D, H, W), (D, C / groups, K, L), (C)
    -> (N, C, *, *).

    Sizes and arguments as in conv_transpose1d, each an int for both dims or a pair.
    """
    return _conv_transpose_nd(
        2, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


__all__ = publish(globals())
