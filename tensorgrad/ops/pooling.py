"""Pooling, and windows as columns and back (unfold, fold).  Maxima are found dim by dim, sums
are added up dim by dim."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from tensorgrad.dtypes import category
from tensorgrad.kinds import discrete, linear
from tensorgrad.ops.blend import Blend, blend
from tensorgrad.ops.elementwise import div
from tensorgrad.ops.reduce import _mean
from tensorgrad.ops.shape import _reshape
from tensorgrad.ops.windows import (
    Sizes,
    Windows,
    each,
    fold_windows,
    how_many,
    unfold_windows,
    wide,
)
from tensorgrad.tensor import Tensor
from tensorgrad.twins import ask

Array = np.ndarray[Any, np.dtype[Any]]
Places = tuple[Array, ...]
"""For each dim the elements of each window in their order, (taps, windows); one may stand
several times."""

# ---- primitives

_window_sum = linear(
    "window_sum", lambda xp, x, /, at: _reduced(xp, x, at, xp.add, 0),
    dx=lambda g, at: _window_spread(g, at),
)  # fmt: skip
"""The sum of each window's taps: (..., *size) -> (..., *out)."""
_window_spread = linear(
    "window_spread", lambda xp, x, /, at: _spread(xp, x, at), dx=lambda g, at: _window_sum(g, at)
)
_window_max = discrete("window_max", lambda xp, x, /, at: _greatest(xp, x, at))
"""The maximum of each window's taps, where no derivative is wanted."""
_max_place = discrete("max_place", lambda xp, x, /, places: _place_of_max(xp, x, places))
"""Where each window has its (first) maximum, or its last NaN, in the flattened plane: (B, *size)
-> (B, *out)."""
_pick = linear(
    "pick",
    lambda xp, x, index, /: _picked(xp, x, index),
    dx=lambda g, index, x_shape: _put_back(g, index, x_shape),
)
"""out[b, o] = x[b, index[b, o]]: (B, L), (B, O) -> (B, O)."""
_put_back = linear(
    "put_back",
    lambda xp, x, index, /, shape: _added(xp, x, index, shape),
    dx=lambda g, index: _pick(g, index),
)


def _along(at: Windows, i: int) -> Any:
    """Taps along dim i: the places, as indices of an array whose last dims are those of the
    windows."""
    rest = (slice(None),) * (len(at.size) - 1 - i)
    for _, elements, windows in at._taps(i):
        yield (..., elements, *rest), (..., windows, *rest)


def _reduced(xp: Any, x: Any, at: Windows, combine: Any, start: Any) -> Any:
    """The taps of each window combined, dim by dim."""
    dtype, x, n = x.dtype, wide(x), len(at.size)
    for i in range(n):
        lead = x.shape[: x.ndim - n]
        out = xp.full((*lead, *at.out[: i + 1], *at.size[i + 1 :]), start, x.dtype)
        for elements, windows in _along(at, i):
            combine(out[windows], x[elements], out=out[windows])
        x = out
    return x.astype(dtype, copy=False)


def _greatest(xp: Any, x: Any, at: Windows) -> Any:
    least = np.iinfo(x.dtype).min if category(x.dtype) == 1 else -np.inf
    return _reduced(xp, x, at, xp.maximum, least)


def _spread(xp: Any, g: Any, at: Windows) -> Any:
    dtype, g, n = g.dtype, wide(g), len(at.size)
    for i in reversed(range(n)):
        lead = g.shape[: g.ndim - n]
        out = xp.zeros((*lead, *at.out[:i], *at.size[i:]), g.dtype)
        for elements, windows in _along(at, i):
            out[elements] += g[windows]
        g = out
    return g.astype(dtype, copy=False)


def _place_of_max(xp: Any, x: Any, places: Places) -> Any:
    answer = ask("max_pool_place", x, x, places)
    if answer is not None:
        return answer
    where, step = None, 1  # where the maximum of what is left of a plane lay in the plane
    for i in reversed(range(len(places))):
        axis = i - len(places)
        best = found = None
        for tap in places[i]:
            tap = xp.asarray(tap)
            value = xp.take(x, tap, axis)
            here = (tap * step).reshape(-1, *(1,) * (-1 - axis))
            place = (
                xp.broadcast_to(here, value.shape)
                if where is None
                else xp.take(where, tap, axis) + here
            )
            if best is None:
                best, found = value, place
            else:
                better = (value > best) | (value != value)
                best, found = xp.where(better, value, best), xp.where(better, place, found)
        step *= x.shape[axis]
        x, where = best, found
    return xp.ascontiguousarray(where)


def _flat(xp: Any, index: Any, length: int) -> Any:
    return (index + xp.arange(0, index.shape[0] * length, length).reshape(-1, 1)).reshape(-1)


def _picked(xp: Any, x: Any, index: Any) -> Any:
    return xp.take(x.reshape(-1), _flat(xp, index, x.shape[1])).reshape(index.shape)


def _added(xp: Any, x: Any, index: Any, shape: Sizes) -> Any:
    answer = ask("max_pool_backward", x, x, index, shape)
    if answer is not None:
        return answer
    values = wide(x)
    out = xp.zeros(prod(shape), values.dtype)
    flat = _flat(xp, index, shape[1])
    if xp is np:
        np.add.at(out, flat, values.reshape(-1))
    else:
        import cupyx

        cupyx.scatter_add(out, flat, values.reshape(-1))
    return out.reshape(shape).astype(x.dtype, copy=False)


# ---- which elements a window holds


@lru_cache(256)
def _taps_inside(at: Windows) -> Places:
    """Taps that lie outside stand for the nearest one inside, which changes no maximum."""
    places = []
    for n, o, k, s, d, b in zip(*at):
        start = np.arange(o) * s - b
        least, most = -(start // d), (n - 1 - start) // d  # the first and last tap inside
        places.append(
            start
            + np.clip(np.arange(k)[:, None], np.maximum(least, 0), np.minimum(most, k - 1)) * d
        )
    return tuple(places)


@lru_cache(256)
def _shares(size: int, out: int) -> tuple[Array, Array]:
    """Windows o from floor(o size / out) to ceil((o + 1) size / out): (places, whether they
    count), (taps, out)."""
    first = np.arange(out) * size // out
    count = -(-(np.arange(1, out + 1) * size) // out) - first
    taps = np.arange(count.max(initial=1))[:, None]
    return first + np.minimum(taps, count - 1), (taps < count) / count


@lru_cache(256)
def _averages(size: int, out: int) -> Blend:
    return Blend(size, *_shares(size, out))


# ---- arguments


def _spatial(name: str, x: Any, n: int, empty_channels: bool = False) -> Sizes:
    """The sizes of the last n dims; RuntimeError where the rank is wrong or another dim than the
    batch is empty."""
    if not hasattr(x, "ndim"):
        raise TypeError(f"{name}: expected a tensor, not {type(x).__name__}")
    if x.ndim not in (n + 1, n + 2):
        raise RuntimeError(
            f"{name}: expected (N, C, {'L' if n == 1 else 'H, W'}), or that without N, not "
            f"{x.shape}"
        )
    if 0 in x.shape[-n if empty_channels else -n - 1 :]:
        raise RuntimeError(f"{name}: only the batch may be empty, the shape is {x.shape}")
    return tuple(x.shape[-n:])


def _windows(
    name: str,
    x: Any,
    n: int,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> Windows:
    size = _spatial(name, x, n)
    kernel = each(name, "kernel_size", kernel_size, n)
    s = kernel if stride is None or stride == [] else each(name, "stride", stride, n)
    d, p = each(name, "dilation", dilation, n), each(name, "padding", padding, n, 0)
    if any(2 * b > k for b, k in zip(p, kernel)):
        raise RuntimeError(
            f"{name}: padding {padding} is more than half of the kernel {kernel_size}"
        )
    out = how_many(size, kernel, s, d, p)
    if ceil_mode:  # one more window where something is left over, if it begins inside
        more = [
            (o - 1) * c + e * (k - 1) + 1 < m + 2 * b
            for o, c, e, k, m, b in zip(out, s, d, kernel, size, p)
        ]
        out = tuple(o + (left and o * c < m + b) for o, left, c, m, b in zip(out, more, s, size, p))
    if min(out) < 1:
        raise RuntimeError(
            f"{name}: a kernel of {kernel} does not fit into an input of {size} with padding "
            f"{padding}"
        )
    return Windows(size, out, kernel, s, d, p)


# ---- maxima


def _maxima(x: Any, n: int, places: Places, return_indices: bool) -> Any:
    """The elements in the places of the maxima, and the places."""
    lead, out = tuple(x.shape[:-n]), tuple(p.shape[1] for p in places)
    planes = _reshape(x, (prod(lead), *x.shape[-n:]))
    index = _max_place(planes, places)
    flat = _reshape(planes, (prod(lead), prod(x.shape[-n:])))
    values = _reshape(_pick(flat, _reshape(index, (prod(lead), prod(out)))), (*lead, *out))
    return (values, _reshape(index, (*lead, *out))) if return_indices else values


def _max_pool(
    n: int,
    x: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    return_indices: bool,
) -> Any:
    name = f"max_pool{n}d"
    at = _windows(name, x, n, kernel_size, stride, padding, dilation, ceil_mode)
    if category(x.dtype) == 0:
        raise RuntimeError(f"{name}: bool tensors have no maxima; convert them, as in x.float()")
    places = _taps_inside(at)
    if any(p.min() < 0 or p.max() >= m for p, m in zip(places, at.size)):
        raise RuntimeError(
            f"{name}: padding {padding} leaves a window of {kernel_size}, dilation {dilation}, "
            "without an element"
        )
    if type(x) is Tensor and not x.requires_grad and not return_indices:
        return _window_max(x, at)
    return _maxima(x, n, places, return_indices)


def max_pool1d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """out[..., o] = max over k of x[..., o stride + k dilation - padding]: (N, C, L) or (C, L).

    stride is the kernel's size by default; padding counts as -inf.  ceil_mode: a last window may
    hang over.
    return_indices: also where in L each maximum lies, the first of equal ones.
    """
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """The maximum of each window: (N, C, H, W) or (C, H, W); arguments as in max_pool1d, ints or
    pairs.

    Indices count through the flattened plane, H * W.
    """
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _adaptive(name: str, x: Any, n: int, output_size: Any, empty_channels: bool) -> Sizes:
    size = _spatial(name, x, n, empty_channels)
    given = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * n
    if len(given) != n:
        raise RuntimeError(f"{name}: output_size must have {n} entries, not {output_size!r}")
    return each(
        name,
        "output_size",
        tuple(m if o is None and n > 1 else o for o, m in zip(given, size)),
        n,
        0,
    )


def _adaptive_max_pool(n: int, x: Any, output_size: Any, return_indices: bool) -> Any:
    out = _adaptive(f"adaptive_max_pool{n}d", x, n, output_size, False)
    return _maxima(x, n, tuple(_shares(m, o)[0] for m, o in zip(x.shape[-n:], out)), return_indices)


def adaptive_max_pool1d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """out[..., o] = max of x[..., floor(o L / O)] to before x[..., ceil((o + 1) L / O)]: (N, C,
    L) -> (N, C, O)."""
    return _adaptive_max_pool(1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The same along both dims: (N, C, H, W) -> (N, C, *output_size); an int for both, None
    keeps a size."""
    return _adaptive_max_pool(2, input, output_size, return_indices)


# ---- averages


def _counts(at: Windows, count_include_pad: bool) -> Any:
    """The elements of each window, padding among them or not: a number where all are equal, else
    (*out)."""
    total: Any = np.ones((1,) * len(at.size), np.int64)
    for i, (n, o, k, s, _, b) in enumerate(zip(*at)):
        start = np.arange(o) * s - b
        stop = np.minimum(start + k, n + b)
        if not count_include_pad:
            start, stop = np.maximum(start, 0), np.minimum(stop, n)
        total = total * (stop - start).reshape(-1, *(1,) * (len(at.size) - 1 - i))
    return int(total.flat[0]) if total.size and (total == total.flat[0]).all() else total


def _avg_pool(
    n: int,
    x: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: Any,
) -> Any:
    name = f"avg_pool{n}d"
    at = _windows(name, x, n, kernel_size, stride, padding, 1, ceil_mode)
    if divisor == 0:
        raise RuntimeError(f"{name}: divisor_override must not be zero")
    sums = _window_sum(x, at)
    count = _counts(at, count_include_pad) if divisor is None else divisor
    if category(x.dtype) < 2:
        return div(sums, _beside(x, count), rounding_mode="trunc")
    return sums / _beside(x, count)


def _beside(x: Any, count: Any) -> Any:
    """Counts as a tensor of the dtype and device of x; a number stays one."""
    return count if isinstance(count, int) else Tensor(count).to(x.device, x.dtype)


def avg_pool1d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:  # fmt: skip
    """out[..., o] = mean over k of x[..., o stride + k - padding]: (N, C, L) or (C, L).

    stride is the kernel's size by default; padding counts as zeros, and not at all without
    count_include_pad.
    """
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Any:  # fmt: skip
    """The mean of each window: (N, C, H, W) or (C, H, W); arguments as in avg_pool1d, ints or
    pairs.

    divisor_override divides the sums in place of the number of elements.
    """
    return _avg_pool(
        2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def _adaptive_avg_pool(n: int, x: Any, output_size: Any) -> Any:
    name = f"adaptive_avg_pool{n}d"
    out = _adaptive(name, x, n, output_size, True)
    if category(x.dtype) < 2:
        raise RuntimeError(
            f"{name}: expected a floating-point tensor, not {x.dtype}; convert it, as in x.float()"
        )
    size = tuple(x.shape[-n:])
    if set(out) == {1}:
        return _mean(x, tuple(range(x.ndim - n, x.ndim)), True)
    if all(o and m % o == 0 for m, o in zip(size, out)):
        part = tuple(m // o for m, o in zip(size, out))
        return _window_sum(x, Windows(size, out, part, part, (1,) * n, (0,) * n)) / prod(part)
    for i, (m, o) in enumerate(zip(size, out)):
        x = blend(x, i - n, _averages(m, o))
    return x


def adaptive_avg_pool1d(input: Any, output_size: Any) -> Any:
    """out[..., o] = mean of x[..., floor(o L / O)] to before x[..., ceil((o + 1) L / O)]: (N, C,
    L) -> (N, C, O)."""
    return _adaptive_avg_pool(1, input, output_size)


def adaptive_avg_pool2d(input: Any, output_size: Any) -> Any:
    """The same along both dims: (N, C, H, W) -> (N, C, *output_size); an int for both, None
    keeps a size."""
    return _adaptive_avg_pool(2, input, output_size)


# ---- windows as columns


def _blocks(
    name: str, size: Sizes, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> Windows:
    kernel, d = each(name, "kernel_size", kernel_size, 2), each(name, "dilation", dilation, 2)
    p, s = each(name, "padding", padding, 2, 0), each(name, "stride", stride, 2)
    out = how_many(size, kernel, s, d, p)
    if min(out) < 1:
        raise RuntimeError(
            f"{name}: a kernel of {kernel} with dilation {d} does not fit into {size} with "
            f"padding {p}"
        )
    return Windows(size, out, kernel, s, d, p)


def unfold(
    input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Any:
    """The taps of each window as a column: (N, C, H, W) -> (N, C K L, windows), or both without
    N."""
    at = _blocks("unfold", _spatial("unfold", input, 2), kernel_size, dilation, padding, stride)
    *lead, c = input.shape[:-2]
    return _reshape(unfold_windows(input, at), (*lead, c * prod(at.kernel), prod(at.out)))


def fold(
    input: Any,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Any:
    """Columns added up where their taps lie: (N, C K L, windows) -> (N, C, *output_size), or
    both without N."""
    at = _blocks(
        "fold", each("fold", "output_size", output_size, 2), kernel_size, dilation, padding, stride
    )
    _spatial("fold", input, 1)
    *lead, rows, columns = input.shape
    if rows % prod(at.kernel) or columns != prod(at.out):
        raise RuntimeError(
            f"fold: an input of shape {input.shape} for output_size {at.size} and a kernel of "
            f"{at.kernel}: it needs a "
            f"multiple of {prod(at.kernel)} rows and {prod(at.out)} columns, one for each window"
        )
    return fold_windows(_reshape(input, (*lead, rows // prod(at.kernel), *at.kernel, *at.out)), at)


__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "avg_pool1d", "avg_pool2d", "fold", "max_pool1d", "max_pool2d", "unfold",
]  # fmt: skip
