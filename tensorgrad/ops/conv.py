"""Convolutions.  One trilinear form of input, weight and output gives three ops, and each is the others' rule.

Windows are laid out as the columns of a matrix, a block at a time, and multiplied by the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np

from tensorgrad.dtypes import category
from tensorgrad.kernels.cpu import blas, threads
from tensorgrad.kinds import bilinear, fused
from tensorgrad.ops.reduce import _sum
from tensorgrad.ops.shape import _reshape
from tensorgrad.ops.windows import Sizes, Windows, add_taps, each, how_many, padded, strided
from tensorgrad.publish import public, publish

# ---- the ops: x (N, C, *size), w (D, C / groups, *kernel), g (N, D, *out)

_conv = bilinear(
    "conv", lambda xp, x, w, /, at, groups: _correlate(xp, x, w, at, groups),
    dx=lambda g, w, at, groups: _conv_transpose(g, w, at, groups),
    dw=lambda g, x, at, groups: _conv_weight(g, x, at, groups),
)  # fmt: skip
"""out[n, d, o] = sum over c, k of w[d, c, k] x[n, c, o stride + k dilation - before]"""
_conv_transpose = bilinear(
    "conv_transpose", lambda xp, x, w, /, at, groups: _spread(xp, x, w, at, groups),
    dx=lambda g, w, at, groups: _conv(g, w, at, groups),
    dw=lambda g, x, at, groups: _conv_weight(x, g, at, groups),
)  # fmt: skip
"""out[n, c, i] = sum over d, k, o that look at i of w[d, c, k] x[n, d, o]"""
_conv_weight = bilinear(
    "conv_weight", lambda xp, x, y, /, at, groups: _pair_up(xp, x, y, at, groups),
    dx=lambda g, y, at, groups: _conv(y, g, at, groups),
    dy=lambda g, x, at, groups: _conv_transpose(x, g, at, groups),
)  # fmt: skip
"""out[d, c, k] = sum over n, o of x[n, d, o] y[n, c, o stride + k dilation - before]"""


def _per_channel(bias: Any, at: Windows) -> Any:
    return _reshape(bias, (bias.shape[0], *(1,) * len(at.size)))


def _over_channels(g: Any) -> Any:
    return _sum(g, (0, *range(2, g.ndim)), False)


def _biased(out: Any, bias: Any) -> Any:
    out += _per_channel(bias, Windows(*(out.shape[2:],) * 6))
    return out


_conv_bias = fused(
    "conv_bias", lambda xp, x, w, bias, /, at, groups: _biased(_correlate(xp, x, w, at, groups), bias),
    lambda x, w, bias, at, groups: _conv(x, w, at, groups) + _per_channel(bias, at),
    dx=lambda g, w, at, groups: _conv_transpose(g, w, at, groups),
    dw=lambda g, x, at, groups: _conv_weight(g, x, at, groups),
    dbias=lambda g: _over_channels(g),
)  # fmt: skip
_conv_transpose_bias = fused(
    "conv_transpose_bias", lambda xp, x, w, bias, /, at, groups: _biased(_spread(xp, x, w, at, groups), bias),
    lambda x, w, bias, at, groups: _conv_transpose(x, w, at, groups) + _per_channel(bias, at),
    dx=lambda g, w, at, groups: _conv(g, w, at, groups),
    dw=lambda g, x, at, groups: _conv_weight(x, g, at, groups),
    dbias=lambda g: _over_channels(g),
)  # fmt: skip

# ---- blocks of windows, as columns that stay in the cache; how they are cut depends on sizes alone

CACHE = 1 << 19  # bytes of a block of columns: half of what a core's second cache usually holds
MEMORY = 1 << 28  # the same on a GPU, which wants large products
WIDE = 256  # columns from which on a product is quick; smaller images go together
PIECES = 16  # shares of the work that threads may take


def _blocks(xp: Any, images: range, at: Windows, column: int) -> Iterator[tuple[slice, Windows, slice]]:
    """Images, windows of them, and which rows these are; `column` is the bytes of one window of one image."""
    room = CACHE if xp is np else MEMORY
    row = column * prod(at.out[1:])
    count = at.out[0]
    together = 1
    if row * count <= room:
        together = room // max(row * count, 1)
        if xp is np:
            together = min(together, -(-WIDE // prod(at.out)))
    height = min(count, max(room // max(row, 1), -(-WIDE // prod(at.out[1:])) if xp is np else 1))
    for first in range(images.start, images.stop, max(together, 1)):
        some = slice(first, min(first + together, images.stop))
        for top in range(0, count, height):
            rows = slice(top, min(top + height, count))
            yield some, at.rows(rows.start, rows.stop), rows


def _columns(x: Any, groups: int, n: int) -> Any:
    """(N, C, *taps, *windows) -> (groups, C / groups * taps, N * windows); a view where memory allows."""
    count = prod(x.shape[2 : 2 + n])
    return x.swapaxes(0, 1)
