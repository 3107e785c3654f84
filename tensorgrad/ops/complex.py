"""Complex numbers, stored and computed as far as complex-step derivatives need; no gradients.

f'(x) = Im f(x + ih) / h, without a difference that could cancel.  Squire and Trapp 1998.
"""

from __future__ import annotations

from typing import Any

from tensorgrad.dtypes import category, complex64, complex128, float64
from tensorgrad.kinds import discrete
from tensorgrad.op import table
from tensorgrad.ops import compare, elementwise, products, reduce, select, trigonometry
from tensorgrad.publish import public, publish
from tensorgrad.tensor import Operable

TAKEN = """
    add sub mul div neg square reciprocal abs pow sqrt rsqrt exp expm1 log log2 log10 log1p sin cos
    tan tanh sinh cosh asin acos atan asinh acosh atanh sigmoid eq ne isnan isinf isfinite isclose
    zeros_like ones_like logical_and logical_or logical_xor logical_not any all nonzero
    count_nonzero masked_fill linear_bias
"""
"""Ops that take complex numbers beside the linear and bilinear ones."""
HOMES = (compare, elementwise, products, reduce, select, trigonometry)  # where they are defined

_real = discrete("real", lambda xp, x, /: x.real)
_imag = discrete("imag", lambda xp, x, /: x.imag)
_conj = discrete("conj", lambda xp, x, /: xp.conj(x))
_joined = discrete("complex", lambda xp, real, imag, /: _of_parts(xp, real, imag))


for _op in (*TAKEN.split(), "real", "imag", "conj"):
    table[_op].complexes = True


def _of_parts(xp: Any, real: Any, imag: Any) -> Any:
    real, imag = xp.broadcast_arrays(real, imag)
    out = xp.empty(real.shape, complex128 if real.dtype == float64 else complex64)
    out.real, out.imag = real, imag
    return out


@public(method=False)
def real(x: Any) -> Any:
    """The real part, on the same memory; a real tensor itself."""
    return _real(x) if category(x.dtype) == 3 else x


@public(method=False)
def imag(x: Any) -> Any:
    """The imaginary part, on the same memory."""
    if category(x.dtype) < 3:
        raise RuntimeError(f"imag: a tensor of {x.dtype} has no imaginary part")
    return _imag(x)


@public()
def conj(x: Any) -> Any:
    """out = Re x - i Im x; a real tensor itself."""
    return _conj(x) if category(x.dtype) == 3 else x


@public(method=False)
def complex(real: Any, imag: Any) -> Any:
    """out = real + i imag, of two tensors of float32 or float64."""
    if real.dtype != imag.dtype or str(real.dtype) not in ("float32", "float64"):
        raise RuntimeError(
            f"complex: expected two tensors of float32 or of float64, not {real.dtype} and "
            f"{imag.dtype}"
        )
    for part in (real, imag):
        if getattr(part, "node", None) is not None:
            raise RuntimeError("complex: complex tensors have no gradients; detach() the parts")
    return _joined(real, imag)


Operable.real = property(real)  # type: ignore[attr-defined]
Operable.imag = property(imag)  # type: ignore[attr-defined]

__all__ = publish(globals())
