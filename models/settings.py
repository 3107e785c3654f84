"""Settings of a model or of a run: plain fields, each with what it means and what it may be.

The command line and the checkpoints read the same fields, so neither can drift from them."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any, NamedTuple, Self

from tensorgrad.serialization import brief

KINDS: dict[str, Any] = {"int": int, "float": (int, float), "bool": bool, "str": str}
"""The types that a field's annotation admits; a bool is no int here."""


def setting(
    default: Any, meaning: str, *, least: float | None = None, below: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:  # fmt: skip
    """A field of `Settings` that users set: least <= value < below, or one of the choices."""
    limits = {"least": least, "below": below, "choices": choices}
    return field(default=default, metadata={"meaning": meaning, **limits})


@dataclass(frozen=True)
class Settings:
    """The base: a frozen dataclass that refuses values out of range, each with a sentence.

    TypeError for a value of another type than its field, ValueError for one that cannot be.
    """

    def __post_init__(self) -> None:
        for f in fields(self):
            check(f, getattr(self, f.name))

    def to_dict(self) -> dict[str, Any]:
        """Every field by name: what `from_dict` takes, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Settings from names and values; ValueError with the nearest name for one unknown."""
        return cls(**divided(values, cls)[0])


def divided(values: Mapping[str, Any], *kinds: type[Settings]) -> list[dict[str, Any]]:
    """The values that belong to each kind; ValueError with the nearest name for one of none."""
    parts: list[dict[str, Any]] = [{} for _ in kinds]
    home = {f.name: part for kind, part in zip(kinds, parts, strict=True) for f in fields(kind)}
    for name, value in values.items():
        if name not in home:
            near = difflib.get_close_matches(str(name), home, 1)
            meant = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(home)}"
            raise ValueError(f"there is no setting '{brief(str(name))}'; {meant}")
        home[name][name] = value
    return parts


def check(f: Field[Any], value: Any) -> None:
    """Refuse a value that the field cannot have."""
    kind = KINDS[type_of(f)]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{f.name} must be of type {type_of(f)}, it is {brief(repr(value))}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{f.name} must be finite, it is {value}")
    if type_of(f) == "float" and abs(value) > sys.float_info.max:
        raise ValueError(f"{f.name} must be a number that a float can hold")
    least, below = f.metadata.get("least"), f.metadata.get("below")
    if least is not None and value < least:
        raise ValueError(f"{f.name} must be at least {least}, it is {value}")
    if below is not None and value >= below:
        raise ValueError(f"{f.name} must be less than {below}, it is {value}")
    choices = f.metadata.get("choices")
    if choices and value not in choices:
        raise ValueError(f"{f.name} must be one of {', '.join(choices)}; it is {brief(value)!r}")


def type_of(f: Field[Any]) -> str:
    """The name of the field's type, which is annotated as a type or in quotes."""
    return f.type if isinstance(f.type, str) else f.type.__name__


class Option(NamedTuple):
    """A setting as the command line sees it."""

    name: str
    type: str
    default: Any
    meaning: str


def options(*kinds: type[Settings]) -> list[Option]:
    """The settings that users make, in order."""
    return [
        Option(f.name, type_of(f), f.default, f.metadata["meaning"])
        for kind in kinds
        for f in fields(kind)
        if "meaning" in f.metadata
    ]
