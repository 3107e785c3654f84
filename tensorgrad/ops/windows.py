"""Windows that slide over the last dims: where their taps lie, seen as strides or tap by tap.

Convolution, pooling and unfold are made of these; `unfold` and `fold` are each other's rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.dtypes import category
from tensorgrad.kinds import linear

Sizes = tuple[int, ...]
Slices = tuple[slice, ...]


class Windows(NamedTuple):
    """Tap k of window o looks at element o * stride + k * dilation - before, along each of the last
    dims.

    size: elements; out: windows; kernel: taps.  What lies outside counts as zero.
    """

    size: Sizes
    out: Sizes
    kernel: Sizes
    stride: Sizes
    dilation: Sizes
    before: Sizes

    @property
    def reach(self) -> Sizes:
        """Elements from the first tap of the first window to the last tap of the last."""
        return tuple(
            (o - 1) * s + (k - 1) * d + 1
            for o, k, s, d in zip(self.out, self.kernel, self.stride, self.dilation)
        )

    def rows(self, start: int, stop: int) -> Windows:
        """Those of the windows that are start to stop along the first dim."""
        shifted = self.before[0] - start * self.stride[0]
        return self._replace(out=(stop - start, *self.out[1:]), before=(shifted, *self.before[1:]))

    def taps(self) -> Iterator[tuple[Sizes, Slices, Slices]]:
        """For each tap its place in the kernel, the elements it meets, and the windows in which
        it does."""
        for taps in product(*(list(self._taps(i)) for i in range(len(self.size)))):
            places, elements, windows = zip(*taps)
            yield places, elements, windows

    def _taps(self, i: int) -> Iterator[tuple[int, slice, slice]]:
        stride = self.stride[i]
        for k in range(self.kernel[i]):
            first = k * self.dilation[i] - self.before[i]  # what this tap of window 0 looks at
            lo, hi = (
                max(0, -(first // stride)),
                min(self.out[i], (self.size[i] - 1 - first) // stride + 1),
            )
            if lo < hi:
                yield (
                    k,
                    slice(first + lo * stride, first + (hi - 1) * stride + 1, stride),
                    slice(lo, hi),
                )


def padded(xp: Any, x: Any, at: Windows) -> Any:
    """x as far as the windows reach, with zeros where that is beyond it; a view where it never
    is."""
    lead, reach = x.shape[: -len(at.size)], at.reach
    if not any(at.before) and all(r <= n for r, n in zip(reach, at.size)):
        return x[(..., *(slice(r) for r in reach))]
    out = xp.zeros((*lead, *reach), x.dtype)
    inside = [max(0, min(n, r - b)) for n, r, b in zip(at.size, reach, at.before)]
    out[(..., *(slice(b, b + n) for b, n in zip(at.before, inside)))] = x[
        (..., *(slice(n) for n in inside))
    ]
    return out


def strided(xp: Any, x: Any, at: Windows) -> Any:
    """Every tap of every window of `padded(x)`, (..., *kernel, *out), without a copy."""
    n = len(at.size)
    lead, steps = x.strides[:-n], x.strides[-n:]
    taps = tuple(step * d for step, d in zip(steps, at.dilation))
    moves = tuple(step * s for step, s in zip(steps, at.stride))
    return xp.lib.stride_tricks.as_strided(
        x, (*x.shape[:-n], *at.kernel, *at.out), (*lead, *taps, *moves)
    )


def add_taps(x: Any, columns: Any, at: Windows) -> None:
    """x[the element that a tap of a window looks at] += columns[tap, window]; columns (...,
    *kernel, *out)."""
    for place, elements, windows in at.taps():
        x[(..., *elements)] += columns[(..., *place, *windows)]


def wide(x: Any) -> Any:
    """Half types are added up in float32."""
    return x.astype(np.float32) if x.dtype.itemsize == 2 and category(x.dtype) == 2 else x


def _folded(xp: Any, columns: Any, at: Windows) -> Any:
    dtype, columns = columns.dtype, wide(columns)
    x = xp.zeros((*columns.shape[: columns.ndim - 2 * len(at.size)], *at.size), columns.dtype)
    add_taps(x, columns, at)
    return x.astype(dtype, copy=False)


unfold_windows = linear(
    "unfold",
    lambda xp, x, /, at: strided(xp, padded(xp, x, at), at).copy(),
    dx=lambda g, at: fold_windows(g, at),
)
"""Every tap of every window: (..., *size) -> (..., *kernel, *out)."""
fold_windows = linear(
    "fold", lambda xp, x, /, at: _folded(xp, x, at), dx=lambda g, at: unfold_windows(g, at)
)
"""The sum, for each element, of what its taps hold: (..., *kernel, *out) -> (..., *size)."""


# ---- arguments


def each(name: str, what: str, value: Any, n: int, least: int = 1) -> Sizes:
    """One int for all n dims, or a sequence of n; TypeError for no ints, RuntimeError for a
    wrong number."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if not all(hasattr(v, "__index__") and not isinstance(v, bool) for v in values):
        raise TypeError(f"{name}: {what} must be an int or a tuple of {n} ints, not {value!r}")
    if len(values) not in (1, n):
        raise RuntimeError(f"{name}: {what} must be one int or {n}, not {value!r}")
    sizes = tuple(v.__index__() for v in values) * (n if len(values) == 1 else 1)
    if min(sizes) < least:
        raise RuntimeError(f"{name}: {what} must be at least {least}, not {value!r}")
    return sizes


def how_many(size: Sizes, kernel: Sizes, stride: Sizes, dilation: Sizes, padding: Sizes) -> Sizes:
    """floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1: windows that fit,
    below 1 for none."""
    return tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, d, p in zip(size, kernel, stride, dilation, padding)
    )
