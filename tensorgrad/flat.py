"""The flattened callers: Op.__call__ written out for one and two inputs, for the usual case.

That case: exact Tensors of one float dtype and array type, nothing careful.  Others go to the op.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorgrad import mode
from tensorgrad.dtypes import float32, float64
from tensorgrad.node import Node, tick
from tensorgrad.op import Op
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
    if simple and len(op.inputs) == 1 and op.kind in ("elementwise", "linear", "general", "fused"):
        call = _unary(op) if not op.params else _unary_with_parameters(op)
    elif (
        simple and len(op.inputs) == 2 and not op.params and op.kind in ("elementwise", "bilinear")
    ):
        call = _binary(op)
    elif op.variadic or op.many:

        def call(*args: Any) -> Any:
            return op(*args)

    else:
        call = _several(op)

    call.__name__ = call.__qualname__ = op.name
    call.op = op  # type: ignore[attr-defined]
    return call


def _several(op: Op) -> Callable[..., Any]:
    """out = f(x, y, z, ...; parameters), residuals and all"""
    impls, moves, count, visible = op.impls, op.moves, len(op.inputs), op.visible

    def call(*args: Any) -> Any:
        x = args[0]
        if type(x) is not Tensor:
            function = impls.get(type(x))
            if function is not None and not any(isinstance(a, Operable) for a in args):
                out = function(*args)  # arrays in, arrays out: a rule is calling
                return out[0] if visible == 1 and type(out) is tuple else out
            return op(*args)
        a = x.array
        d = a.dtype
        if mode.careful or not (d is float32 or d is float64):
            return op(*args)
        values, nodes, params = [], [], args[count:]
        for y, moving in zip(args, moves):
            if type(y) is Tensor:
                b = y.array
                if type(b) is not type(a) or (moving and b.dtype is not d):
                    return op(*args)
                values.append(b)
                nodes.append(y.node if moving else None)
            elif y is None or (type(y) is type(a) and not moving):
                values.append(y)
                nodes.append(None)
            else:
                return op(*args)
        try:
            outs = impls[type(a)](*values, *params)
        except Exception:
            return op(*args)
        if type(outs) is not tuple:
            outs = (outs if type(outs) is type(a) else np.asarray(outs),)
        results = op.record(values, params, outs, nodes, Tensor)
        return results[0] if visible == 1 else results

    return call


def _unary(op: Op) -> Callable[..., Any]:
    """out = f(x)"""
    impls, keep, readers = op.impls, _pattern(op, 0), op.readers[0]
    differentiable, any_dtype = op.moves[0], not op.floats
    nothing = ((),)

    def call(x: Any) -> Any:
        if type(x) is not Tensor or mode.careful:
            function = impls.get(type(x))
            return op(x) if function is None else function(x)
        a = x.array
        d = a.dtype
        if not (d is float32 or d is float64 or any_dtype):
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
        if nx is None or not differentiable:
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
        if type(x) is not Tensor or mode.careful or len(params) != count:
            function = impls.get(type(x))
            return op(x, *params) if function is None else function(x, *params)
        a = x.array
        d = a.dtype
        if not (d is float32 or d is float64 or any_dtype):
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
        if nx is None or not differentiable:
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
        if type(x) is not Tensor or mode.careful:
            function = impls.get(type(x))
            return op(x, y) if function is None or isinstance(y, Operable) else function(x, y)
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
        if nx is None and ny is None:
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
