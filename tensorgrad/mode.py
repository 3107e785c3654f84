"""What a thread wants of the engine beyond the ordinary: no_grad, anomaly mode, recording.

`careful` counts the reasons, in any thread, to leave the fast path; zero in ordinary training.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

careful = 0
resting = 0
"""How many of those reasons are a thread's no_grad: with no other, the fast path only asks that."""
_lock = threading.Lock()


class _Thread(threading.local):
    """The modes of one thread; a new thread starts with these."""

    grad = True
    inference = False
    anomaly = False
    autocast: Any = None
    watchers: tuple[Callable[..., None], ...] = ()


thread = _Thread()


def be_careful(step: int) -> None:
    """Add (+1) or withdraw (-1) one reason for every op to take its careful caller."""
    global careful
    with _lock:
        careful += step


class _Setting:
    """Sets modes of this thread during a with-block, or every call of a decorated function."""

    settings: Mapping[str, Any]

    def __enter__(self) -> None:
        before = {name: getattr(thread, name) for name in self.settings}
        self.__dict__.setdefault("_before", []).append(before)
        for name, value in self.settings.items():
            _set(name, value)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name, value in self.__dict__["_before"].pop().items():
            _set(name, value)

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with type(self)._like(self):
                return function(*args, **kwargs)

        @functools.wraps(function)
        def generator(*args: Any, **kwargs: Any) -> Any:
            """Every step of the generator runs in the mode, and nothing in between."""
            steps = function(*args, **kwargs)
            step, given = steps.send, None
            try:
                while True:
                    with type(self)._like(self):
                        value = step(given)
                    try:
                        step, given = steps.send, (yield value)
                    except GeneratorExit:
                        with type(self)._like(self):
                            steps.close()
                        raise
                    except BaseException as error:
                        step, given = steps.throw, error
            except StopIteration as stop:
                return stop.value

        code = getattr(function, "__code__", None)
        makes = code is not None and code.co_flags & _GENERATOR
        return generator if makes else wrapped  # type: ignore[return-value]

    @classmethod
    def _like(cls, other: _Setting) -> _Setting:
        twin = cls.__new__(cls)
        twin.settings = other.settings
        return twin


_GENERATOR = 0x20  # inspect.CO_GENERATOR
_ORDINARY = {"grad": True, "inference": False, "anomaly": False, "autocast": None}


def _set(name: str, value: Any) -> None:
    global resting
    was = getattr(thread, name)
    setattr(thread, name, value)
    step = (value != _ORDINARY[name]) - (was != _ORDINARY[name])
    be_careful(step)
    if name == "grad":
        with _lock:
            resting += step


class no_grad(_Setting):
    """Operations inside record nothing.  Context manager and decorator; per thread."""

    settings: Mapping[str, bool] = {"grad": False}

    if not TYPE_CHECKING:  # @no_grad without parentheses, too

        def __new__(cls, function: Any = None) -> Any:
            setting = super().__new__(cls)
            return setting if function is None else setting(function)


class enable_grad(no_grad):
    """Operations inside are recorded again, within no_grad.  Context manager and decorator."""

    settings: Mapping[str, bool] = {"grad": True}


class inference_mode(_Setting):
    """no_grad whose results may never enter a graph again: requires_grad_ on them raises."""

    def __init__(self, mode: bool = True) -> None:
        self.settings = {"grad": False, "inference": True} if mode else {}


class set_grad_enabled(_Setting):
    """Recording on or off: acts at once; as a context manager undoes itself at the block's end."""

    def __init__(self, mode: bool) -> None:
        self.settings = {"grad": bool(mode)}
        self.__dict__["_before"] = [{"grad": thread.grad}]
        _set("grad", bool(mode))

    def __enter__(self) -> None:
        pass

    def __call__(self, function: F) -> F:
        self.__exit__(None, None, None)  # as a decorator it acts only inside the function
        return super().__call__(function)

    @classmethod
    def _like(cls, other: _Setting) -> _Setting:
        return cls(other.settings["grad"])


def is_grad_enabled() -> bool:
    """Whether this thread records operations."""
    return thread.grad


def is_inference_mode_enabled() -> bool:
    return thread.inference
