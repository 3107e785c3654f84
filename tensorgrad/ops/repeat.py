"""A tensor, or each of its elements, several times over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorgrad.backend import xp_of
from tensorgrad.fit import broadcast
from tensorgrad.ops.shape import _reshape, _sized, one_dim, sizes_of
from tensorgrad.publish import public, publish
from tensorgrad.tensor import Tensor


@public("tile", method=False)
def _tile(x: Any, *dims: Any) -> Any:
    sizes = sizes_of(dims)
    return _repeat(x, (1,) * (x.ndim - len(sizes)) + sizes)


@public(method=False)
def tile(x: Any, dims: Sequence[int]) -> Any:
    """The tensor laid side by side `dims` times; missing leading entries are one."""
    return _tile(x, dims)


@public("repeat", method=False)
def _repeat(x: Any, *sizes: Any) -> Any:
    """x.repeat(2, 3): the tensor laid side by side; further leading entries are new dims."""
    times = sizes_of(sizes)
    new = len(times) - x.ndim
    if new < 0 or any(n < 0 for n in times):
        raise RuntimeError(
            f"repeat: {times} does not tell how often a tensor of shape {x.shape} is repeated"
        )
    shape = (1,) * new + x.shape
    thin = tuple(m for n in shape for m in (1, n))
    wide = tuple(m for n, k in zip(shape, times) for m in (k, n))
    return _reshape(broadcast(_reshape(x, thin), wide), tuple(n * k for n, k in zip(shape, times)))


@public()
def repeat_interleave(
    x: Any, repeats: Any, dim: int | None = None, *, output_size: Any = None
) -> Any:
    """Each element along a dim (flattened by default) repeated, all as often or each as told."""
    if dim is None:
        x, dim = _reshape(x, (x.numel(),)), 0
    if not x.ndim:
        x = _reshape(x, (1,))
    d = one_dim("repeat_interleave", dim, x.ndim)
    if isinstance(repeats, Tensor):
        counts = repeats.array
        if counts.ndim > 1 or counts.size not in (1, x.shape[d]):
            raise RuntimeError(
                f"repeat_interleave: repeats of shape {repeats.shape} for dim {dim} of {x.shape}"
            )
        xp = xp_of(counts)
        counts = xp.broadcast_to(counts, (x.shape[d],))
        return x[(*(slice(None),) * d, Tensor(xp.repeat(xp.arange(x.shape[d]), counts)))]
    if repeats < 0:
        raise RuntimeError(f"repeat_interleave: repeats must not be negative, it is {repeats}")
    thin, shape = (
        (*x.shape[: d + 1], 1, *x.shape[d + 1 :]),
        _sized(x.shape, x.shape[d] * repeats, d),
    )
    return _reshape(broadcast(_reshape(x, thin), _sized(thin, repeats, d + 1)), shape)


__all__ = publish(globals())
