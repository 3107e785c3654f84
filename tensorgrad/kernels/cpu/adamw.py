"""One step of AdamW, each number read and written once.  Loshchilov and Hutter 2019."""

import math

from tensorgrad.kernels.cpu.jit import Array, OutVector, Vector, kernel, known


@kernel
def step(
    lo: int, hi: int, p: OutVector, g: Vector, m: OutVector, v: OutVector, grad_scale: float,
    keep: float, near: float, b2: float, far: float, root: float, eps: float, rate: float,
) -> None:  # fmt: skip
    p, g, m, v = p[lo:hi], g[lo:hi], m[lo:hi], v[lo:hi]
    for i in range(p.size):
        gi = g[i] * grad_scale
        m[i] += near * (gi - m[i])
        v[i] = v[i] * b2 + far * (gi * gi)
        p[i] = p[i] * keep - rate * (m[i] / (math.sqrt(v[i]) / root + eps))


def adamw_step(
    p: Array, g: Array, m: Array, v: Array, *, step_number: int, lr: float, b1: float = 0.9,
    b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 1e-2, grad_scale: float = 1.0,
) -> bool:  # fmt: skip
    """p <- p (1 - lr wd) - lr m' / (sqrt(v') + eps) in place, and its moments m and v.

    step_number counts from 1; the gradient is first multiplied by grad_scale.  False, and nothing
    written, where dtypes or shapes differ or p, m or v cannot be written as they lie."""
    if not known(p, g, m, v) or not all(a.flags.carray for a in (p, m, v)):
        return False
    if not p.shape == g.shape == m.shape == v.shape:
        return False
    step.over(
        p.dtype, p.size, 0.5 * p.size, p.ravel(), g.ravel(), m.ravel(), v.ravel(), grad_scale,
        1 - lr * weight_decay, 1 - b1, b2, 1 - b2, math.sqrt(1 - b2**step_number), eps,
        lr / (1 - b1**step_number),
    )  # fmt: skip
    return True
