"""Images made larger or smaller: pad, interpolate, pixel_shuffle and its inverse."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import floor
from typing import Any

import numpy as np

from tensorgrad.dtypes import category
from tensorgrad.kinds import general
from tensorgrad.ops.blend import Array, Blend, blend
from tensorgrad.ops.indexing import _place, _slice
from tensorgrad.ops.pooling import _adaptive_avg_pool
from tensorgrad.ops.shape import _permute, _reshape

# ---- pad

_pad_value = general(
    "pad_value", lambda xp, x, /, shape, index, value: _surrounded(xp, x, shape, index, value),
    dx=lambda g, index: _slice(g, index),
)  # fmt: skip
"""x at `index` of an array full of `value`."""


def _surrounded(xp: Any, x: Any, shape: tuple[int, ...], index: Any, value: Any) -> Any:
    out = xp.full(shape, x.dtype.type(value), x.dtype)
    out[index] = x
    return out


@lru_cache(256)
def _border(mode: str, n: int, left: int, right: int) -> Blend:
    """Which of n elements stands where, left of them and right of them too; negative numbers cut
    off."""
    if mode == "circular":
        start = max(-left, 0)
        m = n - start - max(-right, 0)
        places = start + np.arange(-max(left, 0), m + max(right, 0)) % max(m, 1)
    else:
        places = np.arange(-left, n + right)
        places = (
            np.clip(places, 0, n - 1) if mode == "replicate" else n - 1 - abs(n - 1 - abs(places))
        )
    return Blend(n, places[None])


def pad(input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """x with elements added before and after: pad = (left, right) of the last dim, then of the one
    before it, ...

    mode: "constant" (of `value`, 0 by default), "reflect" (without the edge), "replicate" (the
    edge) or "circular".
    Negative numbers cut off.  The last three act on the last 1 to 3 dims of a (C, *) or (N, C, *)
    tensor.
    """
    if not isinstance(pad, (tuple, list)) or not all(hasattr(p, "__index__") for p in pad):
        raise TypeError(f"pad: the paddings must be a tuple of ints, not {pad!r}")
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise RuntimeError(
            f"pad: {tuple(pad)} is no pair for each of some last dims of a tensor of shape "
            f"{input.shape}"
        )
    shape, n = tuple(input.shape), len(pad) // 2
    pairs = [
        (pad[2 * i].__index__(), pad[2 * i + 1].__index__()) for i in reversed(range(n))
    ]  # of the last n dims
    sizes = tuple(m + left + right for m, (left, right) in zip(shape[len(shape) - n :], pairs))
    left_over = [m + min(a, 0) + min(b, 0) for m, (a, b) in zip(shape[len(shape) - n :], pairs)]
    if min((*sizes, *left_over), default=0) < 0 and (
        mode in ("constant", "circular") or min(sizes) < 0
    ):
        raise RuntimeError(f"pad: {tuple(pad)} cuts more off than a tensor of shape {shape} has")
    if mode == "constant":
        return _constant(input, pairs, sizes, 0 if value is None else value)
    if mode not in ("reflect", "replicate", "circular"):
        raise RuntimeError(
            f"pad: mode must be 'constant', 'reflect', 'replicate' or 'circular', not {mode!r}"
        )
    if value:
        raise RuntimeError(f"pad: mode {mode!r} takes no value, it was given {value}")
    if n not in (1, 2, 3) or input.ndim not in (n + 1, n + 2):
        raise RuntimeError(
            f"pad: mode {mode!r} pads the last 1 to 3 dims after (C) or (N, C); {tuple(pad)} for "
            f"shape {shape}"
        )
    if mode != "circular" and (not any(sizes) or 0 in shape[-n - 1 :]):
        raise RuntimeError(
            f"pad: mode {mode!r} has nothing to take from or to give, {tuple(pad)} for shape "
            f"{shape}"
        )
    for m, rest, pair in zip(shape[-n:], left_over, pairs):
        room = {"reflect": m - 1, "circular": rest}.get(mode)
        if room is not None and max(pair) > room:
            raise RuntimeError(
                f"pad: mode {mode!r} can add at most {room} to a dim of size {m}, not {max(pair)}"
            )
    for i, (m, pair) in enumerate(zip(shape[-n:], pairs)):
        if any(pair):
            input = blend(input, i - n, _border(mode, m, *pair))
    return input if any(pad) else input.clone()


def _constant(x: Any, pairs: list[tuple[int, int]], sizes: tuple[int, ...], value: Any) -> Any:
    lead = x.ndim - len(pairs)
    if any(min(pair) < 0 for pair in pairs):
        x = _slice(
            x,
            (..., *(slice(max(-a, 0), m - max(-b, 0)) for m, (a, b) in zip(x.shape[lead:], pairs))),
        )
    index = (..., *(slice(max(a, 0), max(a, 0) + m) for m, (a, _) in zip(x.shape[lead:], pairs)))
    shape = (*x.shape[:lead], *sizes)
    return _place(x, shape, index) if value == 0 else _pad_value(x, shape, index, value)


# ---- interpolate


@lru_cache(256)
def _nearest(size: int, out: int, factor: float | None, offset: float) -> Blend:
    """out[o] = x[floor((o + offset) scale)], in float32 as PyTorch counts."""
    scale = np.float32(size) / np.float32(out) if factor is None else np.float32(1 / factor)
    places = np.floor((np.arange(out, dtype=np.float32) + np.float32(offset)) * scale).astype(
        np.int64
    )
    return Blend(size, np.minimum(places, size - 1)[None])


def _scale(size: int, out: int, factor: float | None, align_corners: bool) -> float:
    """Elements of the input for each of the output; with align_corners the first and last ones
    meet."""
    if align_corners:
        return (size - 1) / (out - 1) if out > 1 else 0.0
    return 1 / factor if factor else size / out


@lru_cache(256)
def _smooth(size: int, out: int, factor: float | None, align_corners: bool, cubic: bool) -> Blend:
    """Two neighbours by distance, or four by Keys' cubic with a = -0.75; beyond the edge the
    edge counts again."""
    scale = _scale(size, out, factor, align_corners)
    at = np.arange(out) * scale if align_corners else (np.arange(out) + 0.5) * scale - 0.5
    if not cubic:
        at = np.arange(out, dtype=float) if size == out else np.maximum(at, 0)
    first = np.floor(at).astype(np.int64)
    taps = np.arange(-1, 3) if cubic else np.arange(2)
    places = first + taps[:, None]
    weights = (_cubic if cubic else _linear)(at - places)
    return Blend(size, np.clip(places, 0, size - 1), weights)


def _linear(x: Array) -> Array:
    return np.asarray(np.maximum(1 - abs(x), 0))


def _cubic(x: Array, a: float = -0.75) -> Array:
    """Keys 1981."""
    x = abs(x)
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x < 1, inner, np.where(x < 2, outer, 0))


@lru_cache(256)
def _antialiased(
    size: int, out: int, factor: float | None, align_corners: bool, cubic: bool
) -> Blend:
    """The kernel as wide as the input's elements for one of the output; its weights add up to
    one."""
    if size == out:
        return Blend(size, np.arange(size)[None])
    scale = _scale(size, out, factor, align_corners)
    width = max(scale, 1.0)
    support = (2 if cubic else 1) * width
    centre = scale * (np.arange(out) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + support + 0.5).astype(np.int64), size) - first
    taps = np.arange(max(int(count.max()), 1))[:, None]
    distance = (taps + first - centre + 0.5) / width
    weights = np.where(taps < count, _cubic(distance, -0.5) if cubic else _linear(distance), 0)
    return Blend(size, np.minimum(first + taps, size - 1), weights / weights.sum(0))


_RANKS = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}


def interpolate(
    input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Any:  # fmt: skip
    """The image at another size: (N, C, *) with one to three further dims, to `size` or by
    scale_factor.

    mode: "nearest", "nearest-exact", "area" (adaptive averages), "linear" (one dim), "bilinear",
    "bicubic" (two) or
    "trilinear" (three).  The corners' centres meet with align_corners, else the corners themselves.
    antialias: bilinear and bicubic average over all that an element of a smaller image covers.
    """
    if mode not in _RANKS and align_corners is not None:
        raise ValueError(
            f"interpolate: align_corners goes with {', '.join(_RANKS)}, not with mode {mode!r}"
        )
    old = tuple(input.shape[2:])
    sizes, factors = _targets(old, size, scale_factor, recompute_scale_factor)
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError(
            f"interpolate: antialias goes with bilinear and bicubic, not with mode {mode!r}"
        )
    _check_image(input, sizes, mode)
    if mode == "area":
        return _adaptive_avg_pool(len(old), input, sizes)
    for i, (m, o, f) in reversed(list(enumerate(zip(old, sizes, factors)))):
        if mode.startswith("nearest"):
            if mode == "nearest" and len(old) == 2 and o in (m, 2 * m):
                f = None  # here alone PyTorch does not look at the factor
            plan = _nearest(m, o, f, 0.5 if mode == "nearest-exact" else 0.0)
        else:
            plan = (_antialiased if antialias else _smooth)(
                m, o, f, bool(align_corners), mode == "bicubic"
            )
        input = blend(input, i - len(old), plan)
    return input


def _check_image(x: Any, sizes: tuple[int, ...], mode: str) -> None:
    if mode not in ("nearest", "nearest-exact", "area", *_RANKS):
        raise RuntimeError(
            f"interpolate: mode {mode!r} is unknown; choose from nearest, nearest-exact, area, "
            f"{', '.join(_RANKS)}"
        )
    if x.ndim not in (3, 4, 5) or _RANKS.get(mode, x.ndim - 2) != x.ndim - 2:
        wanted = f"{_RANKS[mode]} dims" if mode in _RANKS else "one to three dims"
        raise RuntimeError(
            f"interpolate: mode {mode!r} takes a tensor (N, C, *) with {wanted} after the two, "
            f"not {x.shape}"
        )
    if category(x.dtype) != 2 and not mode.startswith("nearest"):
        raise RuntimeError(
            f"interpolate: mode {mode!r} needs a floating-point tensor, not {x.dtype}"
        )
    if min(sizes) < 1 or 0 in x.shape[1:]:
        raise RuntimeError(
            f"interpolate: an input of shape {x.shape} cannot become one of sizes {sizes}"
        )


def _targets(
    old: tuple[int, ...], size: Any, scale_factor: Any, recompute: bool | None
) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
    """The new sizes, and the factors where they are to be taken at their word."""
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: give either size or scale_factor")
    given = scale_factor if size is None else size
    values = tuple(given) if isinstance(given, (tuple, list)) else (given,) * len(old)
    if len(values) != len(old):
        raise ValueError(
            f"interpolate: {given!r} for an input with {len(old)} dims to resize: give one "
            "number, or one for each"
        )
    if size is not None:
        if recompute:
            raise ValueError("interpolate: recompute_scale_factor says nothing where size is given")
        return tuple(int(v) for v in values), (None,) * len(old)
    sizes = tuple(floor(n * v) for n, v in zip(old, values))
    return sizes, (None,) * len(old) if recompute else tuple(float(v) for v in values)


# ---- pixels for channels


def _shuffle_factor(name: str, x: Any, factor: int) -> None:
    if x.ndim < 3:
        raise RuntimeError(f"{name}: expected (*, C, H, W), not a tensor of shape {x.shape}")
    if factor < 1:
        raise RuntimeError(f"{name}: the factor must be positive, not {factor}")


def pixel_shuffle(input: Any, upscale_factor: int) -> Any:
    """(*, C r^2, H, W) -> (*, C, H r, W r): channels become the pixels of r x r blocks.  Shi et
    al. 2016."""
    r = upscale_factor
    _shuffle_factor("pixel_shuffle", input, r)
    *lead, c, h, w = input.shape
    if c % (r * r):
        raise RuntimeError(
            f"pixel_shuffle: {c} channels are no multiple of {r} x {r}, in a tensor of shape "
            f"{input.shape}"
        )
    n = len(lead)
    x = _reshape(input, (*lead, c // (r * r), r, r, h, w))
    x = _permute(x, (*range(n), n, n + 3, n + 1, n + 4, n + 2))  # (*, C, H, r, W, r)
    return _reshape(x, (*lead, c // (r * r), h * r, w * r))


def pixel_unshuffle(input: Any, downscale_factor: int) -> Any:
    """(*, C, H r, W r) -> (*, C r^2, H, W): the inverse of pixel_shuffle."""
    r = downscale_factor
    _shuffle_factor("pixel_unshuffle", input, r)
    *lead, c, h, w = input.shape
    if h % r or w % r:
        raise RuntimeError(f"pixel_unshuffle: height {h} and width {w} must be multiples of {r}")
    n = len(lead)
    x = _reshape(input, (*lead, c, h // r, r, w // r, r))
    x = _permute(x, (*range(n), n, n + 2, n + 4, n + 1, n + 3))  # (*, C, r, r, H, W)
    return _reshape(x, (*lead, c * r * r, h // r, w // r))


__all__ = ["interpolate", "pad", "pixel_shuffle", "pixel_unshuffle"]
