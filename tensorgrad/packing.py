"""A nested state as named arrays and JSON, and back: all that a checkpoint needs instead of pickle.

JSON lacks arrays, tuples, nan and keys other than strings: they become {"$array": name} and such.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]
Tree = Any  # None, bool, int, float, str, arrays; dicts, lists and tuples of trees


def flatten(tree: Tree) -> tuple[dict[str, Array], Tree]:
    """Arrays by name, and the rest as JSON: `unflatten` puts them together again.

    Takes None, bool, int, float, str, NumPy arrays and scalars, and dicts (with keys of the first
    five), lists and tuples of them, and returns each exactly as it was.  An array's name is its
    path, "model.h.0.weight"; an array in two places (a tied weight) is stored once and comes back
    as one.  Raises TypeError naming the place of anything else, ValueError for a tree in itself.
    """
    packer = Packer()
    return packer.arrays, packer.pack(tree, ())


def unflatten(arrays: Mapping[str, Array], tree: Tree) -> Tree:
    """The state that `flatten` took apart.  Raises ValueError where the two do not fit together."""
    if isinstance(tree, list):
        return [unflatten(arrays, part) for part in tree]
    if not isinstance(tree, dict):
        return tree
    if not any(key.startswith("$") for key in tree):
        return {key: unflatten(arrays, value) for key, value in tree.items()}
    mark, part = next(iter(tree.items()))
    if mark in ("$array", "$scalar") and part in arrays:
        return arrays[part] if mark == "$array" else arrays[part][()]
    if mark == "$float" and part in ("nan", "inf", "-inf"):
        return float(part)
    if mark == "$tuple":
        return tuple(unflatten(arrays, item) for item in part)
    if mark == "$dict":
        return {unflatten(arrays, key): unflatten(arrays, value) for key, value in part}
    raise ValueError(
        f"unflatten: {{{mark!r}: {part!r}}} does not come from flatten of these arrays"
    )


class Packer:
    """One run of `flatten`: the arrays found, and which containers are being walked."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self.names: dict[int, str] = {}
        self.open: set[int] = set()

    def pack(self, node: Tree, path: tuple[str, ...]) -> Tree:
        if isinstance(node, np.ndarray):
            return {"$array": self.name(node, path)}
        if isinstance(node, np.generic) and not isinstance(node, str):
            return {"$scalar": self.name(np.asarray(node), path)}
        if isinstance(node, float) and not math.isfinite(node):
            return {"$float": repr(float(node))}
        if node is None or isinstance(node, bool | int | float | str):
            return node
        if not isinstance(node, dict | list | tuple):
            raise TypeError(
                f"flatten: {where(path)} is a {type(node).__name__}; a checkpoint holds arrays, "
                "numbers, strings, None, and dicts, lists and tuples of them"
            )
        if id(node) in self.open:
            raise ValueError(f"flatten: {where(path)} contains itself")
        self.open.add(id(node))
        packed = self.pack_container(node, path)
        self.open.remove(id(node))
        return packed

    def pack_container(
        self, node: dict[Any, Tree] | list[Tree] | tuple[Tree, ...], path: tuple[str, ...]
    ) -> Tree:
        if isinstance(node, dict):
            pairs = [[self.key(k, path), self.pack(v, (*path, str(k)))] for k, v in node.items()]
            plain = all(isinstance(k, str) and not k.startswith("$") for k in node)
            return dict(pairs) if plain else {"$dict": pairs}
        parts = [self.pack(part, (*path, str(i))) for i, part in enumerate(node)]
        return parts if isinstance(node, list) else {"$tuple": parts}

    def key(self, key: Any, path: tuple[str, ...]) -> Tree:
        if key is not None and type(key) not in (bool, int, float, str):
            raise TypeError(
                f"flatten: {where(path)} has the key {key!r}; keys are strings, numbers or None"
            )
        return self.pack(key, path)

    def name(self, array: Array, path: tuple[str, ...]) -> str:
        if id(array) not in self.names:
            name = ".".join(path) or "array"
            while name in self.arrays or name == "__metadata__":
                name += "'"
            self.names[id(array)] = name
            self.arrays[name] = array  # which keeps it alive, and so its id its own
        return self.names[id(array)]


def where(path: tuple[str, ...]) -> str:
    return ".".join(path) or "the tree"
