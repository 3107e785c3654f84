"""Modules that hold others, Sequential, ModuleList and ModuleDict, and the same for parameters."""

from __future__ import annotations

import operator
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, Self, overload

from tensorgrad.nn.module import MODULE, PARAMETER, Module, block
from tensorgrad.nn.parameter import Parameter
from tensorgrad.tensor import Tensor


class _List(Module):
    """Entries under the names "0", "1", ...: what Sequential and the two lists share."""

    _kind = MODULE

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        self._refill(values or ())

    def _entry(self, value: Any) -> Any:
        """What is stored for a value, checked."""
        if not isinstance(value, Module):
            raise TypeError(f"{type(self).__name__}: {type(value).__name__} is not a Module")
        return value

    def _names(self) -> list[str]:
        return [name for name, kind in self._registered.items() if kind == self._kind]

    def _values(self) -> list[Any]:
        return [self.__dict__[name] for name in self._names()]

    def _refill(self, values: Iterable[Any]) -> Self:
        entries = [self._entry(value) for value in values]
        for name in self._names():
            delattr(self, name)
        for i, entry in enumerate(entries):
            setattr(self, str(i), entry)
        return self

    def _name(self, index: Any) -> str:
        i, names = operator.index(index), self._names()
        if not -len(names) <= i < len(names):
            raise IndexError(
                f"{type(self).__name__}: index {i} is out of range, it has {len(names)} entries"
            )
        return names[i]

    def __len__(self) -> int:
        return len(self._names())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values())

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)(self._values()[index])
        return self.__dict__[self._name(index)]

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, self._name(index), self._entry(value))

    def __delitem__(self, index: int | slice) -> None:
        values = self._values()
        if not isinstance(index, slice):
            index = self._names().index(self._name(index))
        del values[index]
        self._refill(values)

    def append(self, value: Any) -> Self:
        """Add one at the end."""
        return self.extend([value])

    def extend(self, values: Iterable[Any]) -> Self:
        """Add several at the end."""
        entries = [self._entry(value) for value in values]
        for i, entry in enumerate(entries, len(self)):
            setattr(self, str(i), entry)
        return self

    def insert(self, index: int, value: Any) -> Self:
        """Add one before the entry at `index`."""
        values = self._values()
        values.insert(index, value)
        return self._refill(values)

    def pop(self, index: int = -1) -> Any:
        """Take out one and return it."""
        value = self[index]
        del self[index]
        return value

    def __iadd__(self, other: Iterable[Any]) -> Self:
        return self.extend(other)

    def __add__(self, other: Iterable[Any]) -> Self:
        return type(self)([*self, *other])


class Sequential(_List):
    """f_n(... f_2(f_1(x))): modules one after another, given in order or as a dict of names."""

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            for name, module in args[0].items():
                self.add_module(name, self._entry(module))
        else:
            self._refill(args)

    def forward(self, input: Any) -> Any:
        for name, kind in self._registered.items():
            if kind == MODULE:
                input = self.__dict__[name](input)
        return input

    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    @overload
    def __getitem__(self, index: int) -> Any: ...
    def __getitem__(self, index: slice | int) -> Any:
        if isinstance(index, slice):
            return type(self)(dict(list(self._own(MODULE))[index]))
        return super().__getitem__(index)

    def __add__(self, other: Iterable[Any]) -> Self:
        return type(self)(*self, *other)


class ModuleList(_List):
    """A list of modules that a Module sees; it has no forward of its own."""

    def __init__(self, modules: Iterable[Any] | None = None) -> None:
        super().__init__(modules)

    def __repr__(self) -> str:
        """Equal neighbours as one line: (0-11): 12 x Block(...)"""
        groups: list[tuple[int, int, str]] = []
        for i, module in enumerate(self):
            shown = repr(module)
            if groups and groups[-1][2] == shown:
                groups[-1] = (groups[-1][0], i, shown)
            else:
                groups.append((i, i, shown))
        lines = [
            f"({a}): {shown}" if a == b else f"({a}-{b}): {b - a + 1} x {shown}"
            for a, b, shown in groups
        ]
        return block(self._get_name(), lines)


class ParameterList(_List):
    """A list of parameters that a Module sees; Tensors that are put in become Parameters."""

    _kind = PARAMETER

    def _entry(self, value: Any) -> Any:
        return _parameter(self, value)

    def extra_repr(self) -> str:
        return _listed(self)


class _Dict(Module):
    """Entries under names: what ModuleDict and ParameterDict share."""

    _kind = MODULE

    def __init__(
        self, entries: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None
    ) -> None:
        super().__init__()
        self.update(entries or {})

    def _entry(self, value: Any) -> Any:
        if not isinstance(value, Module):
            raise TypeError(f"{type(self).__name__}: {type(value).__name__} is not a Module")
        return value

    def _entries(self) -> dict[str, Any]:
        return {
            key: self.__dict__[key] for key, kind in self._registered.items() if kind == self._kind
        }

    def __getitem__(self, key: str) -> Any:
        if key not in self:
            raise KeyError(
                f"{type(self).__name__} has no '{key}'; it has {', '.join(self) or 'nothing'}"
            )
        return self.__dict__[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._register(self._kind, key, self._entry(value))

    def __delitem__(self, key: str) -> None:
        self.pop(key)

    def __len__(self) -> int:
        return len(self._entries())

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries())

    def __contains__(self, key: object) -> bool:
        return key in self._entries()

    def keys(self) -> KeysView[str]:
        return self._entries().keys()

    def values(self) -> ValuesView[Any]:
        return self._entries().values()

    def items(self) -> ItemsView[str, Any]:
        return self._entries().items()

    def pop(self, key: str) -> Any:
        """Take out one and return it."""
        value = self[key]
        delattr(self, key)
        return value

    def clear(self) -> None:
        """Take out all."""
        for key in self:
            delattr(self, key)

    def update(self, entries: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Add or replace entries, from a mapping or pairs."""
        for key, value in dict(entries).items():
            self[key] = value


class ModuleDict(_Dict):
    """A dict of modules that a Module sees; it has no forward of its own."""

    def __init__(
        self, modules: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None
    ) -> None:
        super().__init__(modules)


class ParameterDict(_Dict):
    """A dict of parameters that a Module sees; Tensors that are put in become Parameters."""

    _kind = PARAMETER

    def __init__(
        self, parameters: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None
    ) -> None:
        super().__init__(parameters)

    def _entry(self, value: Any) -> Any:
        return _parameter(self, value)

    def extra_repr(self) -> str:
        return _listed(self)


def _parameter(holder: Module, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{type(holder).__name__}: {type(value).__name__} is not a Tensor")
    return value if isinstance(value, Parameter) else Parameter(value)


def _listed(holder: Module) -> str:
    return "\n".join(
        f"({name}): Parameter containing: [{p.dtype} of size {'x'.join(map(str, p.shape))}]"
        for name, p in holder.named_parameters("", False, False)
    )
