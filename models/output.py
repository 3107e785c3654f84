"""What a language model answers: fields that are read as attributes, by name, or by number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from tensorgrad import Tensor

OTHER_NAMES = {"cache": "past_key_values", "presents": "past_key_values"}


@dataclass(eq=False)
class Output:
    """out.logits, out["logits"] and, counting only what is there, out[0].

    `cache` and `past_key_values` are one object.  KeyError for what was not asked for.
    """

    loss: Tensor | None = None
    last_hidden_state: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None

    @property
    def cache(self) -> Any:
        return self.past_key_values

    def keys(self) -> list[str]:
        """The names of what is there."""
        return [f.name for f in fields(self) if getattr(self, f.name) is not None]

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.keys())

    def __getitem__(self, key: str | int | slice) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in self:
            raise KeyError(f"no '{key}' was asked for; there are {', '.join(self.keys())}")
        return getattr(self, OTHER_NAMES.get(key, key))

    def __contains__(self, key: object) -> bool:
        return OTHER_NAMES.get(str(key), key) in self.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())
