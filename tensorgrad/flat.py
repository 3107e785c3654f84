"""The flattened callers: Op.__call__ written out for each kind of signature, for the usual case.

That case: exact Tensors of one float dtype and array type, nothing careful.  Others go to the op.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorgrad import mode
from tensorgrad.dtypes import float32, float64
from tensorgrad.node import Node, tick
from tensorgrad.op import PICK, Op
from tensorgrad.tensor import Operable, Tensor

_PATTERNS = {(): 0, ("x",): 1, ("y",): 2, ("x", "y"): 3, ("out",): 4, ("x_shape",): 5,
             ("x_shape", "*"): 6, ("*",): 7, ("out", "*"): 8, ("x", "*"): 9}  # fmt: skip
"""What a rule asks for, as a number that the callers test; "*" is all parameters, -1 the rest."""

new_tensor, new_node = Tensor.__new__, Node.__new__


def _pattern(op: Op, i: int) -> int:
    names = dict(zip(op.inputs, ("x", "y"))) | {"out": "out", op.inputs[0] + "_shape": "x_shape"}
    asks, n = op.asks[i], len(op.params)
    whole = n and asks[-n:] == op.params
    asks = asks[:-n] if whole else asks
    return _PATTERNS.get((*(names.get(ask, "?") for ask in asks), *("*" if whole else "")), -1)


def flatten(op: Op) -> Callable[..., Any]:
    """The quickest caller this op can have, as a plain function that also serves as a method."""
    call: Callable[..., Any]
    simple = op.outputs == ("out",) and op.joint is None and not op.variadic and not op.many
    if op.variadic:
        call = _sequence(op)
    elif op.many:
        call = _split(op)
    elif simple and len(op.inputs) == 1:
        call = _unary(op) if not op.params else _unary_with_parameters(op)
    elif (
        simple and len(op.inputs) == 2 and not op.params and op.kind in ("elementwise", "bilinear")
    ):
        call = _binary(op)
    else:
        call = _several(op)

    call.__name__ = call.__qualname__ = op.name
    call.op = op  # type: ignore[attr-defined]
    return call


def _sequence(op: Op) -> Callable[..., Any]:
    """out = f((x, y, ...); parameters)"""
    impls, read = op.impls, op.readers[0]

    def call(xs: Any, *params: Any) -> Any:
        first = xs[0] if xs else None
        if type(first) is not Tensor:
            function = impls.get(type(first))
            if function is None or any(type(x) is not type(first) for x in xs):
                return op(xs, *params)
            return function(xs, *params)
        recording = True
        if mode.careful:
            if mode.careful != mode.resting:
                return op(xs, *params)
            recording = mode.thread.grad
        d, kind = first.array.dtype, type(first.array)
        arrays, nodes, recorded = [], [], False
        for x in xs:
            if type(x) is not Tensor:
                return op(xs, *params)
            a, nx = x.array, x.node
            if a.dtype is not d or type(a) is not kind:
                return op(xs, *params)
            arrays.append(a)
            nodes.append(nx)
            recorded = recorded or nx is not None
        try:
            out = impls[kind](arrays, *params)
        except Exception:
            return op(xs, *params)
        t = new_tensor(Tensor)
        t.array, t.grad, t.node = out, None, None
        if recorded and recording:
            values = tuple(arrays)
            kept = (tuple([f(values, params, (out,)) for f in read]),)
            t.node = Node(op, tuple(nodes), kept, out.shape)
        return t

    return call


def _split(op: Op) -> Callable[..., Any]:
    """(out, out, ...) = f(x; parameters)"""
    impls, read = op.impls, op.readers[0]

    def call(x: Any, *params: Any) -> Any:
        if type(x) is not Tensor:
            function = impls.get(type(x))
            return op(x, *params) if function is None else function(x, *params)
        recording = True
        if mode.careful:
            if mode.careful != mode.resting:
                return op(x, *params)
            recording = mode.thread.grad
        a, nx = x.array, x.node
        try:
            outs = impls[type(a)](a, *params)
        except Exception:
            return op(x, *params)
        if nx is None or not recording or a.dtype.kind not in "fV":
            return tuple([Tensor(out) for out in outs])
        kept = (tuple([f((a,), params, outs) for f in read]),)
        trunk = Node(op, (nx,), kept, tuple([out.shape for out in outs]))
        return tuple([
            Tensor(out, Node(PICK, (trunk,), i, out.shape)) for i, out in enumerate(outs)
        ])  # fmt: skip

    return call


def _several(op: Op) -> Callable[..., Any]:
    """out = f(x, y, z, ...; parameters), residuals and all"""
    impls, count, visible = op.impls, len(op.inputs), op.visible
    readers, single = op.readers, op.visible == 1 and op.joint is None and not op.replays
    discrete = op.kind == "discrete"
    moves = (True,) * count if discrete else op.moves
    numbers = op.kind in ("elementwise", "linear", "discrete")  # may stand for an input

    def call(*args: Any) -> Any:
        kind: Any = None
        for x in args[:count]:
            if type(x) is Tensor:
                break
            if isinstance(x, Operable):
                return op(*args)
            if kind is None and type(x) in impls:
                kind = type(x)
        else:
            if kind is None:
                return op(*args)
            out = impls[kind](*args)  # arrays in, arrays out: a rule is calling
            return out[0] if visible == 1 and type(out) is tuple else out
        recording = True
        if mode.careful:
            if mode.careful != mode.resting:
                return op(*args)
            recording = mode.thread.grad
        if len(args) < count:
            return op(*args)
        d = kind = None
        recorded = False
        values, nodes, params = [], [], args[count:]
        for x, moving in zip(args, moves):
            if type(x) is Tensor:
                a = x.array
                if kind is None:
                    kind = type(a)
                elif type(a) is not kind:
                    return op(*args)
                node = None
                if moving:
                    if d is None:
                        d = a.dtype
                    elif a.dtype is not d:
                        return op(*args)
                    if recording and not discrete:
                        node = x.node
                        recorded = recorded or node is not None
                values.append(a)
                nodes.append(node)
            elif (
                x is None
                or (moving and numbers and (type(x) is float or type(x) is int))
                or (not moving and type(x) is kind)
            ):
                values.append(x)
                nodes.append(None)
            else:
                return op(*args)
        if not (d is float32 or d is float64):
            return op(*args)
        try:
            outs = impls[kind](*values, *params)
        except Exception:
            return op(*args)
        if type(outs) is not tuple:
            outs = (outs if type(outs) is kind else np.asarray(outs),)
        if not recorded and visible == 1:
            t = new_tensor(Tensor)
            t.array, t.node, t.grad = outs[0], None, None
            return t
        if single:
            kept = tuple([
                None if n is None else tuple([f(values, params, outs) for f in read])
                for n, read in zip(nodes, readers)
            ])  # fmt: skip
            return Tensor(outs[0], Node(op, tuple(nodes), kept, outs[0].shape))
        results = op.record(values, params, outs, nodes, Tensor)
        return results[0] if visible == 1 else results[:visible]

    return call


def _unary(op: Op) -> Callable[..., Any]:
    """out = f(x)"""
    impls, keep, readers = op.impls, _pattern(op, 0), op.readers[0]
    differentiable, any_dtype = op.moves[0], not op.floats
    nothing = ((),)

    def call(x: Any) -> Any:
        if type(x) is not Tensor:
            function = impls.get(type(x))
            return op(x) if function is None else function(x)
        recording = True
        if mode.careful:
            if mode.careful != mode.resting:
                return op(x)
            recording = mode.thread.grad
        a = x.array
        d = a.dtype
        if not (d is float32 or d is float64 or (any_dtype and op.takes(d))):
            return op(x)
        try:
            out = impls[type(a)](a)
        except Exception:
            return op(x)
        if type(out) is not type(a):
            out = np.asarray(out)
        t = new_tensor(Tensor)
        t.array = out
        t.grad = None
        nx = x.node
        if nx is None or not differentiable or not recording:
            t.node = None
            return t
        t.node = n = new_node(Node)
        n.op = op
        n.parents = (nx,)
        n.shape = out.shape
        if keep == 4:
            n.kept = ((out,),)
        elif keep == 1:
            n.kept = ((a,),)
        elif keep == 0:
            n.kept = nothing
        else:
            n.kept = (tuple([read((a,), (), (out,)) for read in readers]),)
        n.born = tick()
        return t

    return call


def _unary_with_parameters(op: Op) -> Callable[..., Any]:
    """out = f(x; parameters)"""
    impls, keep, readers = op.impls, _pattern(op, 0), op.readers[0]
    differentiable, any_dtype, count = op.moves[0], not op.floats, len(op.params)
    nothing = ((),)

    def call(x: Any, *params: Any) -> Any:
        if type(x) is not Tensor or len(params) != count:
            function = impls.get(type(x))
            return op(x, *params) if function is None else function(x, *params)
        recording = True
        if mode.careful:
            if mode.careful != mode.resting:
                return op(x, *params)
            recording = mode.thread.grad
        a = x.array
        d = a.dtype
        if not (d is float32 or d is float64 or (any_dtype and op.takes(d))):
            return op(x, *params)
        try:
            out = impls[type(a)](a, *params)
        except Exception:
            return op(x, *params)
        if type(out) is not type(a):
            out = np.asarray(out) if op.element is None else op.element(a, *params)
        t = new_tensor(Tensor)
        t.array = out
        t.grad = None
        nx = x.node
        if nx is None or not differentiable or not recording:
            t.node = None
            return t
        t.node = n = new_node(Node)
        n.op = op
        n.parents = (nx,)
        n.shape = out.shape
        if keep == 6:
            n.kept = ((a.shape, *params),)
        elif keep == 7:
            n.kept = (params,)
        elif keep == 5:
            n.kept = ((a.shape,),)
        elif keep == 8:
            n.kept = ((out, *params),)
        elif keep == 9:
            n.kept = ((a, *params),)
        elif keep == 0:
            n.kept = nothing
        else:
            n.kept = (tuple([read((a,), params, (out,)) for read in readers]),)
        n.born = tick()
        return t

    return call


def _binary(op: Op) -> Callable[..., Any]:
    """out = f(x, y)"""
    impls = op.impls
    keep_x, keep_y = _pattern(op, 0), _pattern(op, 1)
    read_x, read_y = op.readers
    moves_x, moves_y = op.moves
    plain = op.kind == "elementwise"  # a Python number is a fine second operand

    def call(x: Any, y: Any) -> Any:
        if type(x) is not Tensor:
            function = impls.get(type(x))
            return op(x, y) if function is None or isinstance(y, Operable) else function(x, y)
        recording = True
        if mode.careful:
            if mode.careful != mode.resting:
                return op(x, y)
            recording = mode.thread.grad
        a = x.array
        d = a.dtype
        if not (d is float32 or d is float64):
            return op(x, y)
        if type(y) is Tensor:
            b = y.array
            if b.dtype is not d or type(b) is not type(a):
                return op(x, y)
            ny = y.node
        elif (type(y) is float or type(y) is int) and plain:
            b = y
            ny = None
        else:
            return op(x, y)
        try:
            out = impls[type(a)](a, b)
        except Exception:
            return op(x, y)
        if type(out) is not type(a):
            out = np.asarray(out)
        t = new_tensor(Tensor)
        t.array = out
        t.grad = None
        nx = x.node
        if not recording or (nx is None and ny is None):
            t.node = None
            return t
        t.node = n = new_node(Node)
        n.op = op
        n.parents = (nx, ny)
        n.shape = out.shape
        kept_x: tuple[Any, ...] | None
        kept_y: tuple[Any, ...] | None
        if nx is None or not moves_x:
            kept_x = None
        elif keep_x == 2:
            kept_x = (b,)
        elif keep_x == 0:
            kept_x = ()
        elif keep_x == 3:
            kept_x = (a, b)
        else:
            kept_x = tuple([read((a, b), (), (out,)) for read in read_x])
        if ny is None or not moves_y:
            kept_y = None
        elif keep_y == 1:
            kept_y = (a,)
        elif keep_y == 0:
            kept_y = ()
        elif keep_y == 3:
            kept_y = (a, b)
        else:
            kept_y = tuple([read((a, b), (), (out,)) for read in read_y])
        n.kept = (kept_x, kept_y)
        n.born = tick()
        return t

    return call
