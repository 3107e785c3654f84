"""Nested dicts, lists and tuples of tensors: where a tensor is accepted, so is a tree of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tensorgrad.tensor import Operable


def leaves(tree: Any) -> list[Any]:
    """The tensors of a tree, in order; dict entries in the order of insertion."""
    return list(_leaves(tree))


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, Operable):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _leaves(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from _leaves(value)


def map_tree(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """The tree with each tensor replaced by function(tensor, others' entries); the rest stays."""
    if isinstance(tree, Operable):
        return function(tree, *others)
    if isinstance(tree, dict):
        return {k: map_tree(function, v, *(o[k] for o in others)) for k, v in tree.items()}
    if isinstance(tree, (list, tuple)):
        parts = [map_tree(function, v, *(o[i] for o in others)) for i, v in enumerate(tree)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return tree


def rebuild(tree: Any, values: Any) -> Any:
    """The tree with its tensors replaced, in order, by the values."""
    queue = iter(values)
    return map_tree(lambda _: next(queue), tree)
