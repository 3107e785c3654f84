"""Reverse mode inside a transform: a tracer whose "arrays" are lower values, on the same Nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensorgrad.backward import run
from tensorgrad.fit import fit
from tensorgrad.node import Node
from tensorgrad.ops.compare import zeros_like
from tensorgrad.tracer import Tracer, new_level


class Reverse(Tracer):
    """A value and the node that made it, at one level."""

    __slots__ = ("node",)

    def __init__(self, value: Any, level: int, node: Node | None = None) -> None:
        super().__init__(value, level)
        self.node = node or Node(None, (), None, value.shape)

    def process(self, op: Any, inputs: tuple[Any, ...], params: tuple[Any, ...]) -> Any:
        if op.replays:
            return op.formula(*inputs, *params)
        mine = [isinstance(x, Reverse) and x.level == self.level for x in inputs]
        values = tuple(x.value if m else x for x, m in zip(inputs, mine))
        out = op(values, *params) if op.variadic else op(*values, *params)
        outs = out if isinstance(out, tuple) else (out,)
        nodes = [
            x.node if m and moves else None for x, m, moves in zip(inputs, mine, op.spread(inputs))
        ]
        return op.visible_part(op.record(values, params, outs, nodes, self._wrap))

    def _wrap(self, value: Any, node: Node | None) -> Any:
        return value if node is None else Reverse(value, self.level, node)


def pull(outputs: list[tuple[Any, Any]], inputs: list[Reverse]) -> list[Any]:
    """The gradients of the inputs, given (output, gradient) pairs of one level; None for none."""
    sinks: dict[Node, Any] = {x.node: None for x in inputs}
    level = inputs[0].level if inputs else 0
    roots = [(o.node, g) for o, g in outputs if isinstance(o, Reverse) and o.level == level]
    run(roots, sinks=sinks, retain_graph=True)
    return [sinks[x.node] for x in inputs]


def transpose(
    function: Callable[[Any], Any], like: Any, cotangent: Any, shape: tuple[int, ...]
) -> Any:
    """A^T cotangent for a linear function A of a tensor like `like`, its result of `shape`."""
    with new_level() as level:
        u = Reverse(zeros_like(like), level)
        out = function(u)
        if out.shape != shape:
            out = fit(out, shape)
        part = pull([(out, cotangent)], [u])[0]
    return zeros_like(like) if part is None else part
