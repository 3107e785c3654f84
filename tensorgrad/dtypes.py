"""dtypes are NumPy's own objects under PyTorch's names, and PyTorch's rules for mixing them.

bool < integer < float < complex: between categories the higher decides, within one the wider.
"""

from __future__ import annotations

from typing import Any

import numpy as np

DType = np.dtype[Any]
dtype = np.dtype

bool_ = np.dtype(np.bool_)
uint8 = np.dtype(np.uint8)
int8 = np.dtype(np.int8)
int16 = np.dtype(np.int16)
int32 = np.dtype(np.int32)
int64 = np.dtype(np.int64)
float16 = np.dtype(np.float16)
float32 = np.dtype(np.float32)
float64 = np.dtype(np.float64)
complex64 = np.dtype(np.complex64)
complex128 = np.dtype(np.complex128)

_default: DType = float32


def bfloat16() -> DType:
    """The 16-bit brain float, from the package ml_dtypes, imported when first asked for."""
    import ml_dtypes

    dtype: DType = np.dtype(ml_dtypes.bfloat16)
    return dtype


def get_default_dtype() -> DType:
    """The dtype of new float tensors and of Python floats among integer tensors; first float32."""
    return _default


def set_default_dtype(dtype: Any) -> None:
    """Make `dtype` (float16, bfloat16, float32 or float64) the float dtype of new tensors."""
    global _default
    dtype = as_dtype(dtype)
    if not is_floating(dtype):
        raise TypeError(
            f"set_default_dtype: only floating-point types can be the default, not {dtype}"
        )
    _default = dtype


_PYTHON: dict[type, DType] = {bool: bool_, int: int64, complex: complex128}


def as_dtype(dtype: Any) -> DType:
    """The dtype meant by a dtype, a name ("float32"), a NumPy scalar type, or float, int, bool."""
    if isinstance(dtype, np.dtype):
        return dtype
    if dtype is float:
        return _default
    if isinstance(dtype, type) and dtype in _PYTHON:
        known: DType = _PYTHON[dtype]
        return known
    if dtype == "bfloat16":
        return bfloat16()
    try:
        named: DType = np.dtype(dtype)
    except TypeError:
        named = np.dtype(object)
    if named.kind not in "biufc" or dtype in (None, type(None)):  # NumPy reads None as float64
        raise TypeError(f"dtype must be a dtype such as tensorgrad.float32, not {dtype!r}")
    return named


def category(dtype: DType) -> int:
    """0 for bool, 1 for integers, 2 for floats (bfloat16 is kind "V" to NumPy), 3 for complex."""
    return 3 if dtype.kind == "c" else 2 if dtype.kind in "fV" else 1 if dtype.kind in "iu" else 0


def is_floating(dtype: DType) -> bool:
    return category(dtype) == 2


def is_differentiable(dtype: DType) -> bool:
    """Whether there are gradients: complex numbers are stored and computed, no more."""
    return category(dtype) == 2


def promote_types(a: DType, b: DType) -> DType:
    """A dtype for both, as in PyTorch: int64 with float32 is float32, uint8 with int8 is int16."""
    if a == b:
        return a
    ca, cb = category(a), category(b)
    if ca != cb:
        low, high = (a, b) if ca < cb else (b, a)
        if category(high) == 3 and low == float64:
            return complex128
        return high
    if a.kind == "V" or b.kind == "V":  # bfloat16 beside another float: float16 has other exponents
        other = b if a.kind == "V" else a
        return float32 if other == float16 else other
    return np.promote_types(a, b)


def _number(value: Any) -> DType:
    if isinstance(value, (bool, np.bool_)):
        return bool_
    if isinstance(value, (int, np.integer)):
        return int64
    if isinstance(value, (complex, np.complexfloating)):
        return complex128 if _default == float64 else complex64
    return _default


def _combine(strong: DType | None, weak: DType | None) -> DType | None:
    """A weaker operand only decides when its category is higher."""
    if strong is None or weak is None:
        return weak if strong is None else strong
    return strong if category(strong) >= category(weak) else promote_types(strong, weak)


def result_type(*operands: Any) -> DType:
    """PyTorch's promotion: tensors with dimensions first, then 0-d tensors, then Python numbers."""
    ranks: list[DType | None] = [None, None, None]
    for x in operands:
        if hasattr(x, "dtype") and not isinstance(x, np.generic):
            rank, dtype = (0 if x.ndim else 1), x.dtype
        else:
            rank, dtype = 2, _number(x)
        seen = ranks[rank]
        ranks[rank] = dtype if seen is None else promote_types(seen, dtype)
    result = _combine(ranks[0], _combine(ranks[1], ranks[2]))
    assert result is not None
    return result
