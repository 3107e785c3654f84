"""Data into tensors, tensors into other dtypes and places: tensor, from_numpy, cast, to."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.backend import device, device_of, is_array, move, xp_for
from tensorgrad.dtypes import (
    DType,
    as_dtype,
    bfloat16,
    bool_,
    category,
    complex128,
    float16,
    float32,
    float64,
    int16,
    int32,
    int64,
    result_type,
)
from tensorgrad.halves import converted
from tensorgrad.kinds import linear
from tensorgrad.tensor import Operable, Tensor, method

_cast = linear(
    "cast", lambda xp, x, /, dtype: converted(x, dtype), dx=lambda g, x_dtype: cast(g, x_dtype)
)


def cast(x: Any, dtype: DType) -> Any:
    """x as another dtype; the gradient comes back in the old one.  Integers have no history."""
    if category(dtype) == 3 and getattr(x, "node", None) is not None:
        raise RuntimeError(f"cast: {dtype} has no gradients, and x requires grad; detach() it")
    return _cast(x, dtype) if category(dtype) > 1 else _cast.op(x, dtype)


alias = linear("alias", lambda xp, x, /: x.view(), view=True, dx=lambda g: g)


def as_array(data: Any, dtype: Any = None) -> Any:
    """An array of Python data: floats become the default dtype, ints int64, as in PyTorch."""
    if isinstance(data, Tensor):
        data = data.array
    if is_array(data):
        return data if dtype is None else data.astype(as_dtype(dtype))
    if isinstance(data, (list, tuple)):
        data = _without_tensors(data)
    if data is None:
        raise RuntimeError("tensor: None is no data; pass numbers, nested lists, arrays or tensors")
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ValueError(
            f"tensor: nested sequences must have equal lengths at each depth ({error})"
        ) from None
    if array.dtype == object or array.dtype.kind in "USM":
        raise TypeError(
            f"tensor: cannot make a tensor of {type(data).__name__} data such as {array.flat[0]!r}"
        )
    if dtype is not None:
        return array.astype(as_dtype(dtype))
    if array.dtype in _PYTHONS and not isinstance(data, np.generic) and not _holds_numpy(data):
        return array.astype(result_type(1j if array.dtype == complex128 else 1.0))
    return array


_PYTHONS = (float64, complex128)
"""What NumPy makes of Python's floats and complex numbers."""


def _without_tensors(data: Any) -> Any:
    if isinstance(data, (list, tuple)):
        return [_without_tensors(x) for x in data]
    return data.array if isinstance(data, Tensor) else data


def _holds_numpy(data: Any) -> bool:
    return (
        isinstance(data, (list, tuple))
        and len(data) > 0
        and isinstance(data[0], (np.ndarray, np.generic))
    )


def tensor(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A new leaf holding a copy of `data`: numbers, nested lists, arrays or tensors."""
    array = as_array(data, dtype)
    if is_array(data) or isinstance(data, Tensor):
        array = array.copy()
    if device is not None:
        array = move(array, device)
    return Tensor(array).requires_grad_(True) if requires_grad else Tensor(array)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Any:
    """`data` as a tensor without a copy where possible; tensors keep their history."""
    x = data if isinstance(data, Operable) else Tensor(as_array(data))
    return x if dtype is None and device is None else to(x, device, dtype)


def from_numpy(array: Any) -> Tensor:
    """A tensor on the memory of an np.ndarray; changes to one are seen in the other."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy: expected np.ndarray, not {type(array).__name__}")
    if array.dtype.kind not in "biufcV" or array.dtype.fields is not None:
        raise TypeError(f"from_numpy: arrays of dtype {array.dtype} cannot be tensors")
    return Tensor(array)


def from_dlpack(source: Any) -> Tensor:
    """A tensor on the memory of any array that speaks DLPack (NumPy, CuPy, PyTorch, JAX)."""
    kind, _ = source.__dlpack_device__()
    if int(kind) == 1:
        return Tensor(np.from_dlpack(source))
    return Tensor(xp_for("cuda").from_dlpack(source))


transfer = linear(
    "transfer",
    lambda xp, x, /, where: move(x, where),
    dx=lambda g, x_device: transfer(g, x_device),
)


def to(
    x: Any, *args: Any, dtype: Any = None, device: Any = None, copy: bool = False, **_: Any
) -> Any:
    """x.to(dtype), x.to(device), x.to(device, dtype), x.to(other): itself if nothing changes."""
    for arg in args:
        if isinstance(arg, Operable):
            dtype, device = arg.dtype, arg.device
        elif arg is None or isinstance(arg, bool):
            continue
        elif _names_a_device(arg):
            device = arg
        else:
            dtype = arg
    if dtype is not None and as_dtype(dtype) != x.dtype:
        x, copy = cast(x, as_dtype(dtype)), False
    if device is not None and type(x) is Tensor:
        here = device_of(x.array)
        there = _device(device)
        if here.type != there.type or (there.index is not None and there != here):
            x, copy = transfer(x, there), False
    return clone(x) if copy else x


_device = device


def _names_a_device(arg: Any) -> bool:
    return isinstance(arg, device) or (
        isinstance(arg, str) and arg.partition(":")[0] in ("cpu", "cuda")
    )


clone = linear("clone", lambda xp, x, /: xp.array(x, order="K"), dx=lambda g: g)


def contiguous(x: Any) -> Any:
    """x itself if its elements lie in C order without gaps, else a copy that does."""
    return x if type(x) is Tensor and x.array.flags.c_contiguous else _contiguous(x)


_contiguous = linear(
    "contiguous", lambda xp, x, /: xp.ascontiguousarray(x).reshape(x.shape), dx=lambda g: g
)


def is_contiguous(x: Tensor) -> bool:
    return bool(x.array.flags.c_contiguous)


def _casts(name: str, dtype: Any) -> None:
    def convert(x: Any) -> Any:
        wanted: DType = dtype() if callable(dtype) else dtype
        return x if x.dtype == wanted else cast(x, wanted)

    convert.__name__ = name
    convert.__doc__ = f"The tensor as {name}; itself if it is already."
    method(convert, name)


for _name, _dtype in {
    "float": float32, "double": float64, "half": float16, "bfloat16": bfloat16,
    "long": int64, "int": int32, "short": int16, "bool": bool_,
}.items():  # fmt: skip
    _casts(_name, _dtype)


def type_as(x: Any, other: Any) -> Any:
    return to(x, dtype=other.dtype)


_TYPES = {
    "float32": "Float", "float64": "Double", "float16": "Half", "bfloat16": "BFloat16",
    "uint8": "Byte", "int8": "Char", "int16": "Short", "int32": "Int", "int64": "Long",
    "bool": "Bool", "complex64": "ComplexFloat", "complex128": "ComplexDouble",
}  # fmt: skip


def type_(x: Any, dtype: Any = None, non_blocking: bool = False) -> Any:
    """The tensor as another dtype; without one, its own name such as "tensorgrad.FloatTensor"."""
    if dtype is None:
        where = "cuda." if x.is_cuda else ""
        return f"tensorgrad.{where}{_TYPES.get(str(x.dtype), str(x.dtype))}Tensor"
    if not (isinstance(dtype, str) and dtype.endswith("Tensor")):
        return to(x, dtype=dtype)
    where, _, word = dtype.rpartition(".")
    for name, prefix in _TYPES.items():
        if word == prefix + "Tensor":
            return to(x, dtype=name, device="cuda" if where.endswith("cuda") else "cpu")
    raise ValueError(f"type: no dtype has the name {dtype!r}")


method(type_, "type")


def cpu(x: Any) -> Any:
    """The tensor on the CPU; itself if it is there."""
    return to(x, device="cpu")


def cuda(x: Any, device: Any = None) -> Any:
    """The tensor on the GPU; RuntimeError says why where there is none."""
    return to(
        x,
        device="cuda"
        if device is None
        else device
        if not isinstance(device, int)
        else f"cuda:{device}",
    )


for _function in (to, clone, contiguous, is_contiguous, type_as, cpu, cuda):
    method(_function, _function.__name__)
