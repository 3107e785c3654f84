"""A Node is how a tensor was made.  Nodes point at nodes, never at tensors, so there are no cycles.

`born` numbers nodes and writes on one clock: a node is always younger than its parents.
"""

from __future__ import annotations

import itertools
from typing import Any

tick = itertools.count(1).__next__

watched = False
"""Whether any node ever had extras; until then backward need not look."""

awaited = False
"""Whether hooks ever asked for leaves' gradients as soon as they are complete."""


class Node:
    """One application of `op`: its parents, what each rule asked to keep, the result's shape.

    parents[i] is None where input i needs no gradient; kept[i] holds the arguments of rule i, in
    the rule's order; born is the time of birth.
    A leaf has op None, and in `kept` a weak reference to the tensor that receives the gradient.
    `extra` (usually unset) is a dictionary for hooks, retain_grad and anomaly mode.
    """

    __slots__ = ("__weakref__", "born", "extra", "kept", "op", "parents", "shape")

    op: Any
    parents: tuple[Node | None, ...]
    kept: Any
    shape: tuple[int, ...]
    born: int
    extra: dict[str, Any]

    def __init__(
        self, op: Any, parents: tuple[Node | None, ...], kept: Any, shape: tuple[int, ...]
    ) -> None:
        self.op, self.parents, self.kept, self.shape = op, parents, kept, shape
        self.born = tick()

    def extras(self) -> dict[str, Any]:
        """The dictionary `extra`, made when first asked for."""
        global watched
        watched = True
        try:
            return self.extra
        except AttributeError:
            self.extra = {}
            return self.extra

    def peek(self, name: str | None = None, default: Any = None) -> Any:
        """The entry of `extra` of this name, or all of `extra`; the default where there is none."""
        extra = getattr(self, "extra", None)
        if extra is None:
            return default
        return extra if name is None else extra.get(name, default)

    def name(self) -> str:
        return "leaf" if self.op is None else str(self.op.name)

    def __repr__(self) -> str:
        return f"<{self.name()} node, shape {self.shape}>"
