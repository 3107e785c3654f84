"""Dropout by a mask drawn before: x scale where kept, else 0.  Srivastava et al. 2014."""

import numpy as np

from tensorgrad.kernels.cpu.jit import Array, Bools, OutVector, Vector, is_bfloat16, kernel, known


@kernel
def apply(lo: int, hi: int, x: Vector, keep: Bools, scale: float, y: OutVector) -> None:
    x, keep, y = x[lo:hi], keep[lo:hi], y[lo:hi]
    zero = x.dtype.type(0)
    for i in range(x.size):
        y[i] = x[i] * (scale if keep[i] else zero)  # NaN stays NaN, as in PyTorch


def dropout(x: Array, keep: Array, scale: float) -> Array | None:
    """x scale where keep, else x 0; the gradient is dropout(g, keep, scale)."""
    if keep.dtype != np.bool_ or keep.shape != x.shape:
        return None
    if is_bfloat16(x.dtype):
        from tensorgrad.kernels.cpu import bf16_maps

        return bf16_maps.dropout(x, keep, scale)
    if not known(x):
        return None
    y = np.empty(x.shape, x.dtype)
    apply.over(x.dtype, x.size, 0.15 * x.size, x.ravel(), keep.ravel(), scale, y.ravel())
    return y
