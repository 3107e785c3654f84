"""The array libraries: NumPy for "cpu", CuPy for "cuda", told apart by the type of the array.

CuPy is imported only when a CUDA device is asked for or a CuPy array arrives.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

Array = Any  # np.ndarray or cupy.ndarray, or inside a transform a tracer


class device:
    """Where an array lives: `device("cpu")`, `device("cuda:1")`, `device("cuda", 1)`."""

    __slots__ = ("index", "type")

    type: str
    index: int | None

    def __init__(self, kind: str | device, index: int | None = None) -> None:
        if isinstance(kind, device):
            self.type, self.index = kind.type, kind.index
            return
        name, _, number = str(kind).partition(":")
        if name not in ("cpu", "cuda") or (number and not number.isdigit()):
            raise RuntimeError(f"device must be 'cpu', 'cuda' or 'cuda:N', not {kind!r}")
        self.type = name
        self.index = int(number) if number else index

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            other = device(other)
        return isinstance(other, device) and (self.type, self.index or 0) == (
            other.type,
            other.index or 0,
        )

    def __hash__(self) -> int:
        return hash((self.type, self.index or 0))

    def __repr__(self) -> str:
        inside = f"type='{self.type}'" + ("" if self.index is None else f", index={self.index}")
        return f"device({inside})"

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"


CPU = device("cpu")


def module_for(array_type: type) -> Any:
    """The library (numpy or cupy) whose functions take arrays of this type, or None."""
    if issubclass(array_type, (np.ndarray, np.generic)):
        return np
    if array_type.__module__.partition(".")[0] == "cupy":
        return sys.modules["cupy"]
    return None


def is_array(x: Any) -> bool:
    return isinstance(x, np.ndarray) or type(x).__module__.partition(".")[0] == "cupy"


def xp_of(array: Array) -> Any:
    """numpy or cupy, by the type of `array`."""
    return np if isinstance(array, (np.ndarray, np.generic)) else module_for(type(array))


def device_of(array: Array) -> device:
    return CPU if isinstance(array, np.ndarray) else device("cuda", array.device.id)


def xp_for(where: Any) -> Any:
    """The library that makes arrays on this device; a sentence where there is no such device."""
    where = device("cpu") if where is None else device(where)
    return np if where.type == "cpu" else cupy()


def cupy() -> Any:
    """The module cupy, with a device that answers; RuntimeError says what is missing."""
    from tensorgrad.environment import cuda_problem

    problem = cuda_problem()
    if problem is not None:
        raise RuntimeError(f"device 'cuda': {problem}")
    import cupy

    return cupy


def move(array: Array, where: Any) -> Array:
    """The array on another device: the same object if it is there already, else a copy."""
    where = device(where)
    here = device_of(array)
    if here.type == where.type and (where.type == "cpu" or where.index in (None, here.index)):
        return array
    if where.type == "cpu":
        return array.get()
    xp = cupy()
    if where.index is None:
        return xp.asarray(array)
    with xp.cuda.Device(where.index):
        return xp.asarray(array)


def is_available() -> bool:
    """Whether `device="cuda"` works here (torch.cuda.is_available)."""
    from tensorgrad.environment import cuda_problem

    return cuda_problem() is None
