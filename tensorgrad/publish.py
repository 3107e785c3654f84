"""What a file of ops offers: each op, as a function and a method, and what it marks `public`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tensorgrad.tensor import Operable

F = TypeVar("F", bound=Callable[..., Any])


def public(*names: str, method: bool = True) -> Callable[[F], F]:
    """Mark a function for `publish`, with further names for the method (operators, aliases)."""

    def mark(function: F) -> F:
        function.public = (method, names)  # type: ignore[attr-defined]
        return function

    return mark


def publish(namespace: dict[str, Any]) -> list[str]:
    """Put methods on Tensors and tracers; return the names to export (`__all__`).

    That is, of its ops and marked functions; names with a leading underscore are not exported.
    """
    exported = []
    for name, value in namespace.items():
        hidden = name.startswith("_")
        if not callable(value):
            continue
        if not hasattr(value, "public") and (hidden or not hasattr(value, "op")):
            continue
        as_method, names = getattr(value, "public", (True, ()))
        for method_name in (name, *names) if as_method else names:
            setattr(Operable, method_name, value)
        if not hidden:
            exported.append(name)
    return sorted(exported)
