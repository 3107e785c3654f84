"""Forward mode: a Dual carries a value and its derivative along one direction.

No op has a second rule for this: its kind says how the rule, or the op itself, gives the tangent.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from tensorgrad.convert import cast
from tensorgrad.fit import broadcast
from tensorgrad.func.reverse import transpose
from tensorgrad.ops.compare import zeros_like
from tensorgrad.tracer import Tracer


class Dual(Tracer):
    """value + eps * tangent, with eps^2 = 0."""

    __slots__ = ("tangent",)

    def __init__(self, value: Any, tangent: Any, level: int) -> None:
        super().__init__(value, level)
        self.tangent = tangent

    def process(self, op: Any, inputs: tuple[Any, ...], params: tuple[Any, ...]) -> Any:
        if op.kind == "fused":
            return op.formula(*inputs, *params)
        mine = [isinstance(x, Dual) and x.level == self.level for x in inputs]
        values = tuple(x.value if m else x for x, m in zip(inputs, mine))
        tangents = [
            x.tangent if m and moves else None
            for x, m, moves in zip(inputs, mine, op.spread(inputs))
        ]
        out = _call(op, values, params)
        if op.kind == "discrete" or all(t is None for t in tangents):
            return out
        tangent = _TANGENT[op.kind](op, values, params, out, tangents)
        if op.many:
            return tuple(Dual(o, t, self.level) for o, t in zip(out, tangent))
        if tangent.shape != out.shape:
            tangent = broadcast(tangent, out.shape)
        return Dual(
            out, tangent if tangent.dtype == out.dtype else cast(tangent, out.dtype), self.level
        )


def _call(op: Any, values: Any, params: tuple[Any, ...]) -> Any:
    return op(values, *params) if op.variadic else op(*values, *params)


def _elementwise(op: Any, values: Any, params: Any, out: Any, tangents: list[Any]) -> Any:
    """The rule itself: a diagonal Jacobian is its own transpose."""
    total = None
    for rule, readers, t in zip(op.rules, op.readers, tangents):
        if t is not None:
            part = rule(t, *(read(values, params, (out,)) for read in readers))
            total = part if total is None else total + part
    return total


def _linear(op: Any, values: Any, params: Any, out: Any, tangents: list[Any]) -> Any:
    """The op itself, of the tangents."""
    moved = tuple(
        t if t is not None else zeros_like(v) if moves else v
        for v, t, moves in zip(values, tangents, op.spread(values))
    )
    return _call(op, moved, params)


def _bilinear(op: Any, values: Any, params: Any, out: Any, tangents: list[Any]) -> Any:
    """B(tx, y) + B(x, ty)."""
    total = None
    for i, t in enumerate(tangents):
        if t is not None:
            part = _call(op, (*values[:i], t, *values[i + 1 :]), params)
            total = part if total is None else total + part
    return total


def _applied(rule: Any, args: list[Any], g: Any) -> Any:
    return rule(g, *args)


def _general(op: Any, values: Any, params: Any, out: Any, tangents: list[Any]) -> Any:
    """The transpose of each rule, which is linear in the gradient."""
    total = None
    for rule, readers, t, v in zip(op.rules, op.readers, tangents, values):
        if t is not None:
            args = [read(values, params, (out,)) for read in readers]
            part = transpose(partial(_applied, rule, args), out, t, v.shape)
            total = part if total is None else total + part
    return total


_TANGENT = {
    "elementwise": _elementwise,
    "linear": _linear,
    "bilinear": _bilinear,
    "general": _general,
}
