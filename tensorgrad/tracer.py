"""A tracer stands in for a tensor inside a transform.  Here is what all of them share.

Tracers have levels: the highest among an op's inputs acts, lower ones pass through it wrapped.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tensorgrad.dtypes import DType
from tensorgrad.tensor import Operable

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Levels(threading.local):
    top = 0


_levels = _Levels()


@contextmanager
def new_level() -> Iterator[int]:
    """The number of a transform that begins here: higher than those of all that surround it."""
    _levels.top += 1
    try:
        yield _levels.top
    finally:
        _levels.top -= 1


def depth() -> int:
    """How many transforms surround this line, in this thread."""
    return _levels.top


class Tracer(Operable):
    """Wraps `value` (an array, a Tensor or a lower tracer) for the transform number `level`."""

    __slots__ = ("level", "value")

    def __init__(self, value: Any, level: int) -> None:
        self.value, self.level = value, level

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> DType:
        return self.value.dtype  # type: ignore[no-any-return]

    @property
    def requires_grad(self) -> bool:
        return True

    @property
    def device(self) -> Any:
        return self.value.device

    def detach(self) -> Any:
        """The value without its derivative, in this transform and in those around it."""
        return self.value.detach() if isinstance(self.value, Operable) else self.value

    def item(self) -> Any:
        raise RuntimeError(
            f"item(): the value is being traced by {type(self).__name__}; "
            "Python numbers would lose its derivative"
        )

    def __bool__(self) -> bool:
        return bool(self.value)

    def process(self, op: Any, inputs: tuple[Any, ...], params: tuple[Any, ...]) -> Any:
        """The op under this transform; every input of this level is a tracer of this class."""
        raise TypeError(f"{type(self).__name__} is no transform")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(level={self.level}, {self.value!r})"


def innermost(inputs: Any) -> Tracer | None:
    """The tracer of the highest level among the inputs, or None."""
    top = None
    for x in inputs:
        if isinstance(x, Tracer) and (top is None or x.level > top.level):
            top = x
    return top
