"""Parameters and buffers: exact Tensors with a flag that tells a Module what they are.

Ops test `type(x) is Tensor`, so there is no subclass at run time; a metaclass answers isinstance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensorgrad.tensor import Tensor


class _Flagged(type):
    flag: str

    def __instancecheck__(cls, x: Any) -> bool:
        return type(x) is Tensor and cls.flag in x.__dict__


def _flagged(data: Any, flag: str, value: bool) -> Tensor:
    tensor = Tensor(data)
    tensor.__dict__[flag] = value
    return tensor


class Parameter(Tensor, metaclass=_Flagged):
    """A leaf that a Module which it is assigned to counts among its parameters.

    It shares the memory of `data`, a Tensor or an array, and has none of its history.
    """

    flag = "parameter"

    if TYPE_CHECKING:

        def __init__(self, data: Any = (), requires_grad: bool = True) -> None: ...
    else:

        def __new__(cls, data=(), requires_grad=True):
            return _flagged(data, cls.flag, True).requires_grad_(requires_grad)


class Buffer(Tensor, metaclass=_Flagged):
    """State of a Module that is no parameter: it moves with it, and is saved if persistent."""

    flag = "buffer"

    if TYPE_CHECKING:

        def __init__(self, data: Any = (), *, persistent: bool = True) -> None: ...
    else:

        def __new__(cls, data=(), *, persistent=True):
            return _flagged(data, cls.flag, persistent)
