"""Complex numbers are stored and computed: arithmetic as in PyTorch, and the complex-step check."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad.func import grad
from tests.ops.compare import assert_same, dtype_name, outcome, to_torch

Z = np.array([1 + 2j, -0.5 + 0.25j, 0.3 - 1j])
W = np.array([0.5 - 1j, 2.0 + 0j, -1.5 + 0.5j])

ARITHMETIC = {
    "add": lambda t, z, w: z + w,
    "sub": lambda t, z, w: 2.5 - z - w,
    "mul": lambda t, z, w: z * w * 2j,
    "div": lambda t, z, w: z / w + 1 / z,
    "pow": lambda t, z, w: z**w + z**3 + z**0.5,
    "neg": lambda t, z, w: -z,
    "exp": lambda t, z, w: t.exp(z),
    "log": lambda t, z, w: z.log() + z.log1p() + z.log2() + z.log10(),
    "sin": lambda t, z, w: t.sin(z) + z.cos() + z.tan(),
    "tanh": lambda t, z, w: t.tanh(z) + z.sinh() + z.cosh() + t.sigmoid(w),
    "asin": lambda t, z, w: z.asin() + z.acos() + z.atan() + z.asinh() + z.acosh(),
    "sqrt": lambda t, z, w: t.sqrt(z) + z.rsqrt(),
    "square": lambda t, z, w: z.square() + z.reciprocal(),
    "abs": lambda t, z, w: [t.abs(z), abs(w)],
    "parts": lambda t, z, w: [z.real, z.imag, t.real(w), t.imag(w), z.conj() * w],
    "sum": lambda t, z, w: [z.sum(), w.mean(), z.cumsum(0), t.dot(z, w)],
    "shape": lambda t, z, w: t.stack([z, w]).T[1:].reshape(-1),
    "matmul": lambda t, z, w: z[:, None] @ w[None],
    "equal": lambda t, z, w: [z == w, z != w, z == z],
    "with floats": lambda t, z, w: z * t.arange(3.0) + t.ones(3, dtype=t.int64) * w,
    "where": lambda t, z, w: t.where(z.real > 0, z, w),
    "in place": lambda t, z, w: z.clone().mul_(w).add_(1).div_(2j),
    "item": lambda t, z, w: t.tensor(complex(z[0].item())),
    "set": lambda t, z, w: _set(z.clone(), w),
    "complex": lambda t, z, w: t.complex(z.real, w.imag) + z.type_as(w),
    "real of real": lambda t, z, w: z.real.real + w.real.conj(),
    "imag of real": lambda t, z, w: z.real.imag,
    "in place into real": lambda t, z, w: z.real.add_(w),
}


def _set(z, w):
    z[1:] = w[:2]
    z[0] = 2.5
    z.real[2] = 7.0
    return z


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_equals_pytorch(name, dtype):
    def call(t):
        make = to_torch if t is torch else tg.from_numpy
        out = ARITHMETIC[name](t, *(make(a.astype(dtype)) for a in (Z, W)))
        return out if isinstance(out, list) else [out]

    mine, theirs = outcome(lambda: call(tg)), outcome(lambda: call(torch))
    if isinstance(theirs, type):
        assert mine is theirs
    else:
        assert_same(mine, theirs, rtol=1e-6 if dtype == "complex64" else 1e-14)


CREATION = {
    "number": lambda t: t.tensor(1j),
    "list": lambda t: t.tensor([1, 2.5, 1j]),
    "dtype": lambda t: t.tensor([1, 2], dtype=t.complex128),
    "zeros": lambda t: t.zeros(2, 3, dtype=t.complex64),
    "ones": lambda t: t.ones(2, dtype=t.complex128),
    "full": lambda t: t.full((2,), 1 - 2j),
    "like": lambda t: t.zeros_like(t.tensor(1j)),
    "from_numpy": lambda t: t.from_numpy(Z.copy()),
    "number beside floats": lambda t: t.ones(2) * 1j,
    "number beside doubles": lambda t: t.ones(2, dtype=t.float64) + 1j,
    "number beside ints": lambda t: t.tensor([1, 2]) - 1j,
    "number beside halves": lambda t: t.tensor(1j) * t.ones(2, dtype=t.float64),
}


@pytest.mark.parametrize("name", CREATION)
def test_creation(name):
    assert_same([CREATION[name](tg)], [CREATION[name](torch)])


def test_the_default_dtype_decides():
    for t in (tg, torch):
        t.set_default_dtype(t.float64)
    try:
        assert dtype_name(tg.tensor(1j)) == dtype_name(torch.tensor(1j)) == "complex128"
    finally:
        for t in (tg, torch):
            t.set_default_dtype(t.float32)


# ---- the complex-step check

FUNCTIONS = {
    "polynomial": lambda x: (x**3 - 2 * x * x + 0.5 * x).sum(),
    "quotient": lambda x: (x.sin() / (1 + x * x)).sum(),
    "exponential": lambda x: (tg.exp(-x * x) * x.cos()).mean(),
    "logarithm": lambda x: tg.log(1 + x * x).sum() + (x * x + 1).sqrt().sum(),
    "tanh": lambda x: (x[1:] * x[:-1]).tanh().sum() - x.sigmoid().log().sum(),
    "power": lambda x: ((x * x + 1) ** 1.7 / (x.cosh() + 2) ** 0.3).sum(),
    "matrix": lambda x: (x.reshape(2, 3) @ x.reshape(3, 2)).tanh().sum(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_complex_step_derivative_is_the_gradient(name):
    """Im f(x + ih e) / h has no difference that cancels, so h may be 1e-100."""
    f = FUNCTIONS[name]
    x = tg.tensor([0.7, -1.1, 0.4, 1.9, -0.3, 0.8], dtype=tg.float64)
    h = 1e-100
    steps = tg.eye(6, dtype=tg.complex128) * (1j * h)
    slopes = tg.stack([f(x + step).imag / h for step in steps])
    np.testing.assert_allclose(slopes.numpy(), grad(f)(x).numpy(), rtol=1e-14, atol=1e-14)


def test_complex_tensors_have_no_gradients():
    for call in (
        lambda: tg.tensor(1j, requires_grad=True),
        lambda: tg.tensor([1j]).requires_grad_(),
        lambda: tg.ones(2, requires_grad=True).to(tg.complex64),
        lambda: tg.ones(2, requires_grad=True).type(tg.complex128),
        lambda: tg.zeros(2, dtype=tg.complex64).copy_(tg.ones(2, requires_grad=True)),
        lambda: tg.complex(tg.ones(2, requires_grad=True), tg.zeros(2)),
        lambda: tg.ones(2, requires_grad=True) * 1j,
        lambda: tg.tensor([1j]) + tg.ones(1, requires_grad=True),
        lambda: tg.cat([tg.tensor([1j]), tg.ones(1, requires_grad=True)]),
    ):
        with pytest.raises(RuntimeError, match="gradient"):
            call()


REFUSED = {
    "order": lambda t, z: z < z,
    "maximum": lambda t, z: t.maximum(z, z),
    "amax": lambda t, z: z.amax(),
    "max": lambda t, z: z.max(),
    "sort": lambda t, z: z.sort(),
    "argmax": lambda t, z: z.argmax(),
    "floor": lambda t, z: z.floor(),
    "round": lambda t, z: z.round(),
    "frac": lambda t, z: z.frac(),
    "sign": lambda t, z: z.sign(),
    "relu": lambda t, z: z.relu(),
    "clamp": lambda t, z: z.clamp(min=0),
    "erf": lambda t, z: z.erf(),
    "floor_divide": lambda t, z: z // 2,
    "remainder": lambda t, z: z % z,
    "bitwise_and": lambda t, z: z & z,
    "gelu": lambda t, z: t.nn.functional.gelu(z),
    "cross_entropy": lambda t, z: t.nn.functional.cross_entropy(z, t.tensor(1)),
    "number": lambda t, z: t.maximum(t.ones(3), t.tensor(1j)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_order_is_refused(name):
    with pytest.raises(RuntimeError, match=r"not for complex|not supported|expected floats"):
        REFUSED[name](tg, tg.from_numpy(Z))
    assert issubclass(outcome(lambda: REFUSED[name](torch, torch.from_numpy(Z))), RuntimeError)


def test_negating_bools_is_refused():
    with pytest.raises(RuntimeError, match="not for bools"):
        -tg.tensor([True])
