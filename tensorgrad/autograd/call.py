"""One call of a Function, as the engine sees an op: its backward and its forward mode.

The node keeps the saved arrays; Tensors are made of them anew, so nothing points back at an output.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import copy
from typing import Any

from tensorgrad import mode
from tensorgrad.autograd.context import FunctionCtx
from tensorgrad.backend import xp_of
from tensorgrad.convert import cast
from tensorgrad.dtypes import is_differentiable
from tensorgrad.fit import fit
from tensorgrad.func.reverse import Reverse, pull
from tensorgrad.node import Node
from tensorgrad.op import PICK
from tensorgrad.ops.compare import zeros_like
from tensorgrad.tensor import Operable, Tensor
from tensorgrad.tracer import Tracer, new_level

INPUT, OUTPUT, OTHER = 0, 1, 2


class OutsideTheTable:
    """What backward, drawing and inspection ask of any op, for one that is not in the table."""

    kind, visible, formula = "general", 1, None
    view = variadic = many = pure = replays = keeps_arrays = False
    reuse = None
    name: str
    rules: tuple[Any, ...] = ()
    inputs: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    asks: tuple[tuple[str, ...], ...] = ((),)


class Call(OutsideTheTable):
    """An application of a Function at one level; `sources` says where each saved tensor came from.

    In a transform the saved values are those of one level lower, with their own history.
    """

    asks = (("saved",),)

    def __init__(self, function: Any, args: tuple[Any, ...], ctx: FunctionCtx, out: Any) -> None:
        outs = out if isinstance(out, tuple) else (out,)
        saved, for_jvp, fixed, dirty = ctx.taken()
        self.function, self.name, self.ctx = function, function.__name__, ctx
        self.several = isinstance(out, tuple)
        self.given = tuple(map(_facts, args))
        self.made = tuple(map(_facts, outs))
        self.moves = tuple(
            isinstance(o, Operable) and is_differentiable(o.dtype) and not among(o, fixed)
            for o in outs
        )
        self.n_saved, self.for_jvp, self.dirty = len(saved), for_jvp is not None, dirty != ()
        saved = saved + (for_jvp or ())
        self.sources = tuple(_source(s, args, outs, dirty) for s in saved)
        self.keeps_arrays = saved != ()
        self.node: Callable[[], Any] = lambda: None

    def lifted(self, saved: Any, args: Any, outs: Any) -> tuple[Call, Any]:
        """The same call seen from one level higher, and what it saved: this level's values."""
        places = (args, outs)
        return copy(self), tuple(
            value if kind == OTHER else places[kind][i]
            for (kind, i), value in zip(self.sources, saved, strict=True)
        )

    def record(
        self, saved: Any, parents: tuple[Any, ...], outs: tuple[Any, ...], wrap: Callable[..., Any]
    ) -> tuple[Any, ...]:
        """The outputs, with nodes if a parent has one and the output is differentiable."""
        trunk = None
        shapes: Any = [() if made is None else made[0] for made in self.made]
        if any(p is not None for p in parents) and any(self.moves):
            trunk = Node(self, parents, ((saved,),), tuple(shapes) if self.several else shapes[0])
            self.node = weakref.ref(trunk)

        def result(i: int, o: Any) -> Any:
            if self.made[i] is None:
                return o
            return wrap(o, self._end(trunk, i, shapes[i]) if trunk and self.moves[i] else None)

        return tuple(result(i, o) for i, o in enumerate(outs))

    def _end(self, trunk: Node, i: int, shape: tuple[int, ...]) -> Node:
        """The node of output i."""
        return Node(PICK, (trunk,), i, shape) if self.several else trunk

    # ---- backward

    def joint(self, g: Any, saved: tuple[Any, ...]) -> list[Any]:
        """One part per argument: arrays in plain backward, else the tensors of the user's."""
        gs = g if self.several else [g]
        node = self.node()
        plain = not isinstance(next(x for x in gs if x is not None), Operable)
        with mode.no_grad() if plain else nullcontext():
            parts = self.pull(gs, saved, node.parents, node)
        if plain:  # views, which are nobody's own buffer: the user may hold the array
            return [None if p is None else p.array.view() for p in parts]
        return parts

    def pull(self, gs: Sequence[Any], saved: Any, wanted: Sequence[Any], node: Any) -> list[Any]:
        """The user's backward, its answer checked: a tensor for each wanted argument, or None."""
        ctx = self._context(wanted, saved[: self.n_saved], node)
        like = next(x for x in gs if x is not None)
        parts = self.function.backward(ctx, *(self._gradient(i, g, like) for i, g in enumerate(gs)))
        parts = list(parts) if isinstance(parts, (tuple, list)) else [parts]
        n = len(self.given)
        if len(parts) < n or any(p is not None for p in parts[n:]):
            raise RuntimeError(
                f"{self.name}.backward returned {len(parts)} gradients for {n} arguments of apply; "
                "give one for each, None for what is no tensor"
            )
        return [self._part(i, part, wanted[i]) for i, part in enumerate(parts[:n])]

    def _context(self, wanted: Sequence[Any], saved: Any, node: Any) -> FunctionCtx:
        needs = tuple(w is not None for w in wanted)
        sources = zip(self.sources, saved, strict=False)  # what was saved for jvp comes behind
        return self.ctx.seen_from(needs, tuple(self._revived(*s, node) for s in sources))

    def _revived(self, source: tuple[int, int], value: Any, node: Any) -> Any:
        """A saved array as a tensor with its history."""
        if value is None or isinstance(value, Operable):
            return value
        kind, i = source
        if node is None or kind == OTHER:
            return Tensor(value)
        if kind == INPUT:
            return Tensor(value, node.parents[i])
        return Tensor(value, self._end(node, i, value.shape) if self.moves[i] else None)

    def _gradient(self, i: int, g: Any, like: Any) -> Any:
        """The gradient of output i as a tensor; zeros where none arrived, unless declined."""
        if g is not None:
            return g if isinstance(g, Operable) else Tensor(xp_of(g).asarray(g))
        if self.made[i] is None or not self.ctx._materialize:
            return None
        while isinstance(like, Operable):
            like = like.value if isinstance(like, Tracer) else like.array
        return Tensor(xp_of(like).zeros(*self.made[i]))

    def _part(self, i: int, part: Any, want: Any) -> Any:
        if part is None:
            return None
        if self.given[i] is None:
            raise RuntimeError(
                f"{self.name}.backward returned a gradient for argument {i}, which is no tensor; "
                "give None for it"
            )
        if not isinstance(part, Operable):
            raise RuntimeError(
                f"{self.name}.backward: the gradient of argument {i} is of type "
                f"{type(part).__name__}, not a tensor or None"
            )
        shape, dtype = self.given[i]
        if part.shape != shape and not _stretches(shape, part.shape):
            raise RuntimeError(
                f"{self.name}.backward: the gradient of argument {i} has shape {part.shape}, "
                f"the argument {shape}"
            )
        if want is None:
            return None
        return part if part.dtype == dtype else cast(part, dtype)

    # ---- forward mode

    def push(
        self, saved: Any, tangents: Sequence[Any], args: Sequence[Any], outs: Sequence[Any]
    ) -> list[Any]:
        """The outputs' tangents, by the user's jvp or by the transpose of the user's backward."""
        if self.function.jvp is not None:
            return self._jvp(saved, tangents, args, outs)
        with new_level() as level:
            us = [
                Reverse(zeros_like(o), level) if m else None
                for o, m in zip(outs, self.moves, strict=True)
            ]
            parts = zip(self.pull(us, saved, tangents, None), tangents, strict=True)
            pairs = [(p, t) for p, t in parts if p is not None]
            pairs = [(p if p.shape == t.shape else fit(p, t.shape), t) for p, t in pairs]
            moved = iter(pull(pairs, [u for u in us if u is not None]))
        found = [next(moved) if m else None for m in self.moves]
        return [
            zeros_like(o) if t is None and m else t
            for t, o, m in zip(found, outs, self.moves, strict=True)
        ]

    def _jvp(
        self, saved: Any, tangents: Sequence[Any], args: Sequence[Any], outs: Sequence[Any]
    ) -> list[Any]:
        ctx = self._context(tangents, saved[: self.n_saved], None)
        if self.for_jvp:
            ctx._saved = tuple(None if v is None else _tensor(v) for v in saved[self.n_saved :])
        if self.ctx._materialize:
            tangents = [
                zeros_like(a) if t is None and isinstance(a, Operable) else t
                for t, a in zip(tangents, args, strict=True)
            ]
        ts = self.function.jvp(ctx, *tangents)
        ts = list(ts) if isinstance(ts, (tuple, list)) else [ts]
        if len(ts) != len(outs):
            raise RuntimeError(
                f"{self.name}.jvp returned {len(ts)} tangents for {len(outs)} outputs"
            )
        for i, (t, o) in enumerate(zip(ts, outs, strict=True)):
            if t is not None and self.moves[i] and t.shape != o.shape:
                raise RuntimeError(
                    f"{self.name}.jvp: the tangent of output {i} has shape {t.shape}, "
                    f"the output {o.shape}"
                )
        return [
            None if t is None or not m else t if t.dtype == o.dtype else cast(t, o.dtype)
            for t, o, m in zip(ts, outs, self.moves, strict=True)
        ]


def among(x: Any, others: Sequence[Any]) -> bool:
    return any(x is other for other in others)


def _facts(x: Any) -> Any:
    return (x.shape, x.dtype) if isinstance(x, Operable) else None


def _tensor(x: Any) -> Any:
    return x if isinstance(x, Operable) else Tensor(x)


def _source(x: Any, args: Any, outs: Any, dirty: Any) -> tuple[int, int]:
    """Where a saved tensor came from; what was changed in place counts as the output it became."""
    places = [(INPUT, args), (OUTPUT, outs)]
    for kind, values in reversed(places) if among(x, dirty) else places:
        for i, value in enumerate(values):
            if x is value and x is not None:
                return kind, i
    return OTHER, 0


def _stretches(small: tuple[int, ...], big: tuple[int, ...]) -> bool:
    """Whether a tensor of shape `small` broadcasts to `big`."""
    extra = len(big) - len(small)
    return extra >= 0 and all(a in (1, b) for a, b in zip(small, big[extra:], strict=True))
