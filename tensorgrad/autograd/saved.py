"""What a graph keeps for backward: which op, for which rule, how many bytes, shared with whom.

An activation-memory bill, read off the nodes themselves: print(saved(loss)).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tensorgrad.backend import is_array
from tensorgrad.backward import FREED
from tensorgrad.memory import root_of
from tensorgrad.node import Node
from tensorgrad.tensor import Tensor


@dataclass(frozen=True)
class Kept:
    """One array that one node keeps: facts only, so that a record keeps nothing alive."""

    op: str
    """the op's name"""
    out: Any
    """the shape of the op's result; a tuple of shapes where there are several"""
    name: str
    """what the rule calls it: an input, a parameter or `out`"""
    rules: tuple[str, ...]
    """who asked: dx, dy, ...; `backward` of a joint rule; `formula` to replay under create_graph"""
    shape: tuple[int, ...]
    dtype: Any
    bytes: int
    """the size of the array itself"""
    buffer: int
    """the size of the memory that it keeps alive: a view keeps the whole"""
    shared: str
    """who holds the same buffer anyhow: a leaf, or an earlier row; "" if nobody before"""
    line: str
    """the user's forward line, if the graph was made under detect_anomaly()"""


class Saved(list[Kept]):
    """The records, in the order of the forward pass; print it, or ask for `total`."""

    freed = 0
    """how many nodes have had their arrays freed by a backward pass"""

    @property
    def total(self) -> int:
        """Bytes kept by the graph alone: each buffer once, those of leaves not at all."""
        return sum(self.by_op().values())

    def by_op(self) -> dict[str, int]:
        """Bytes per op, each buffer counted where it appears first; the largest first."""
        sizes: dict[str, int] = {}
        for record in self:
            if not record.shared:
                sizes[record.op] = sizes.get(record.op, 0) + record.buffer
        return dict(sorted(sizes.items(), key=lambda item: -item[1]))

    def __repr__(self) -> str:
        rows = [("", "op", "out", "keeps", "for", "shape", "dtype", "bytes", "shared with")]
        for i, r in enumerate(self):
            size = f"{r.bytes:,}" if r.bytes == r.buffer else f"{r.bytes:,} of {r.buffer:,}"
            rows.append(
                (str(i), r.op, str(r.out), r.name, " ".join(r.rules), str(r.shape), str(r.dtype),
                 size, r.shared)
            )  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if i in (0, 7) else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        lines.append(f"{self.total:,} bytes kept besides the leaves")
        if self.freed:
            lines.append(f"{self.freed} nodes were freed by an earlier backward")
        return "\n".join(lines)

    __str__ = __repr__


def saved(tensor: Tensor, params: Mapping[str, Tensor] | None = None) -> Saved:
    """What the graph behind `tensor` keeps for its backward pass.

    params: names for leaves, for instance dict(model.named_parameters()).
    """
    names = {id(t.node): name for name, t in (params or {}).items() if t.node is not None}
    order = walk(tensor)
    holders: dict[int, str] = {}  # by the id of a buffer
    for node in order:
        leaf = node.kept() if node.op is None and callable(node.kept) else None
        if leaf is not None:
            name = names.get(id(node), f"leaf {tuple(leaf.shape)}")
            holders.setdefault(id(root_of(leaf.array)), name)
    found = Saved()
    for node in order:
        found.freed += node.kept is FREED
        for name, rules, array in kept_by(node):
            buffer = root_of(array)
            holder, row = holders.setdefault(id(buffer), f"row {len(found)}"), f"row {len(found)}"
            found.append(
                Kept(
                    node.op.name, node.shape, name, rules, tuple(array.shape), array.dtype,
                    int(array.nbytes), int(buffer.nbytes), "" if holder == row else holder,
                    node.peek("line", ""),
                )
            )  # fmt: skip
    return found


def walk(tensor: Tensor) -> list[Node]:
    """The nodes of the graph behind a tensor, parents first: the order in which they were made."""
    if tensor.node is None:
        return []
    reached, stack = {tensor.node}, [tensor.node]
    while stack:
        for parent in stack.pop().parents:
            if parent is not None and parent not in reached:
                reached.add(parent)
                stack.append(parent)
    return sorted(reached, key=lambda node: node.born)


def kept_by(node: Node) -> list[tuple[str, tuple[str, ...], Any]]:
    """(name, the rules that asked for it, array) of what one node keeps, each array once."""
    found: dict[int, tuple[str, list[str], Any]] = {}
    op = node.op
    if op is None or node.kept is FREED or not isinstance(node.kept, tuple):
        return []
    joint = op.joint is not None
    for i, args in enumerate(node.kept):
        if not isinstance(args, tuple):
            continue
        formula = i >= len(op.asks)  # a fused op's inputs and parameters, to replay its formula
        asks = ("inputs", "parameters") if formula else op.asks[i]
        rule = "formula" if formula else "backward" if joint else "d" + op.inputs[i]
        for ask, value in zip(asks, args, strict=False):
            for name, array in _arrays(ask, value):
                _, rules, _ = found.setdefault(id(array), (name, [], array))
                if rule not in rules:
                    rules.append(rule)
    return [(name, tuple(rules), array) for name, rules, array in found.values()]


def _arrays(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The arrays in a kept value, those of a sequence numbered."""
    if is_array(value):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for i, one in enumerate(value):
            yield from _arrays(f"{name}[{i}]", one)
