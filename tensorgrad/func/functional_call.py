"""A module as a function of its parameters: what every transform of a model starts from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tensorgrad.tensor import Operable

Values = Mapping[str, Any]


def functional_call(
    module: Any, parameter_and_buffer_dicts: Values | Sequence[Values], args: Any = None,
    kwargs: Mapping[str, Any] | None = None, *, tie_weights: bool = True, strict: bool = False,
) -> Any:  # fmt: skip
    """module(*args, **kwargs) with other tensors, or traced values, in the place of those named.

    {"h.0.attn.weight": tensor, ...}, as named_parameters() and named_buffers() name them; names not
    given keep their own.  The module is as before when the call ends, also by an exception.
    tie_weights: what shares a tensor with a name given shares the replacement, too.
    strict: every name must be given.  RuntimeError for unknown names.
    """
    values = _joined(parameter_and_buffer_dicts)
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    with _replaced(module, values, tie_weights, strict):
        return module(*args, **(kwargs or {}))


def _joined(dicts: Values | Sequence[Values]) -> dict[str, Any]:
    """One dictionary of all, each name once."""
    if isinstance(dicts, Mapping):
        return dict(dicts)
    joined: dict[str, Any] = {}
    for one in dicts:
        twice = [name for name in one if name in joined]
        if twice:
            raise ValueError(f"functional_call: {', '.join(twice)} stand in several dictionaries")
        joined.update(one)
    return joined


@contextmanager
def _replaced(module: Any, values: dict[str, Any], tied: bool, strict: bool) -> Iterator[None]:
    """The values in the module's attributes for the length of a with-block."""
    places = _places(module)
    _check(type(module).__name__, places, values, tied, strict)
    if tied:
        by_tensor = {id(_read(places[name])): value for name, value in values.items()}
        values = {
            name: values.get(name, by_tensor[id(_read(place))])
            for name, place in places.items()
            if id(_read(place)) in by_tensor
        }
    before = [(places[name], _read(places[name])) for name in values]
    try:
        for name, value in values.items():
            owner, attribute = places[name]
            owner.__dict__[attribute] = value
        yield
    finally:
        for (owner, attribute), value in before:
            owner.__dict__[attribute] = value


Place = tuple[Any, str]
"""A module and the name of its attribute."""


def _places(module: Any) -> dict[str, Place]:
    """Where each parameter and buffer lies, shared ones under each of their names."""
    places: dict[str, Place] = {}
    for walk in (module.named_parameters, module.named_buffers):
        for name, _ in walk(remove_duplicate=False):
            path, _, attribute = name.rpartition(".")
            places[name] = (module.get_submodule(path), attribute)
    return places


def _read(place: Place) -> Any:
    owner, attribute = place
    return owner.__dict__[attribute]


def _check(who: str, places: dict[str, Place], values: Values, tied: bool, strict: bool) -> None:
    for name, value in values.items():
        if name not in places:
            raise RuntimeError(
                f"functional_call: {who} has no parameter or buffer named '{name}'; it has "
                + ", ".join(places)
            )
        if not isinstance(value, Operable):
            raise TypeError(f"functional_call: '{name}' is a {type(value).__name__}, not a tensor")
    given = {id(_read(places[name])) for name in values}
    missing = [
        name
        for name, place in places.items()
        if name not in values and not (tied and id(_read(place)) in given)
    ]
    if strict and missing:
        names = ", ".join(missing)
        raise RuntimeError(f"functional_call: {who}: strict=True, and these are missing: {names}")
