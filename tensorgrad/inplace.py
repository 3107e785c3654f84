"""In-place operations: compute as ever, write the result into the memory, take over its history.

A leaf that requires grad refuses; an input that the op's own rules ask for is copied first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorgrad import memory, mode
from tensorgrad.backend import is_array, xp_of
from tensorgrad.convert import alias, as_array, cast
from tensorgrad.dtypes import category
from tensorgrad.kinds import linear
from tensorgrad.op import Op
from tensorgrad.ops import elementwise as E
from tensorgrad.ops.indexing import _slice, _take, in_steps, split_index
from tensorgrad.tensor import Operable, Tensor, method
from tensorgrad.tracer import Tracer
from tensorgrad.views import rewritten, shares_a_leaf


def _check(name: str, x: Any) -> None:
    if isinstance(x, Tracer):
        raise RuntimeError(
            f"{name}: a value being traced by {type(x).__name__} cannot be changed in place"
        )
    if mode.careful:
        memory.renew(x)
    if mode.thread.grad and x.node is not None:
        if x.node.op is None:
            raise RuntimeError(
                f"{name}: a leaf that requires grad cannot be changed in place; "
                "do it under no_grad(), or on a clone()"
            )
        if x.node.op.view and shares_a_leaf(x):
            raise RuntimeError(
                f"{name}: this is a view of a leaf that requires grad; "
                "do it under no_grad(), or on a clone()"
            )
    if is_array(x.array) and isinstance(x.array, np.ndarray) and not x.array.flags.writeable:
        raise RuntimeError(
            f"{name}: this tensor is read-only memory or was expanded; clone() it first"
        )
    if 0 in getattr(x.array, "strides", ()) and x.array.size > 1:
        for n, s in zip(x.shape, x.array.strides):
            if s == 0 and n > 1:
                raise RuntimeError(
                    f"{name}: several elements of this expanded tensor share memory; "
                    "clone() it first"
                )


def touched(x: Tensor, part: Any = None) -> None:
    """Stamp the memory of x (or of a part of it), unless x is `.data` of another tensor."""
    if "unchecked" not in x.__dict__:
        memory.stamp(x.array if part is None else part)


def assign(name: str, x: Tensor, result: Any) -> Tensor:
    """x's memory and history become those of `result`."""
    if result.shape != x.shape:
        raise RuntimeError(
            f"{name}: the result has shape {result.shape}, the tensor changed in place {x.shape}"
        )
    if category(result.dtype) > category(x.dtype):
        raise RuntimeError(
            f"{name}: a result of {result.dtype} cannot be kept in a tensor of {x.dtype}"
        )
    xp_of(x.array).copyto(x.array, result.array, casting="unsafe")
    touched(x)
    if mode.thread.grad and (x.node is not None or result.node is not None):
        if result.dtype != x.dtype:
            result = cast(result, x.dtype)
        elif result.node is not None and (name == "copy_" or result.node.op is None):
            result = alias(result)  # a node of its own: the other keeps its hooks and its gradient
        rewritten(x, result.node)
    return x


def _fresh(*values: Any) -> None:
    """Let operands take over what was written to their memory."""
    if mode.careful:
        for value in values:
            if type(value) is Tensor:
                memory.renew(value)


def in_place(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The in-place form of an op or of a function that returns a tensor: x.name(...) changes x."""
    op: Op | None = getattr(function, "op", None)
    own = op is None or any(op.inputs[0] in asks for asks in op.asks)
    direct = op is not None and isinstance(op.source, str) and len(op.inputs) == 2 and not op.floats

    def call(x: Any, *args: Any, **kwargs: Any) -> Any:
        if (
            direct
            and type(x) is Tensor
            and x.node is None
            and not mode.careful
            and len(args) == 1
            and not kwargs
        ):
            y, a = (
                args[0],
                x.array,
            )  # p.data += step: no history, nothing to check but what NumPy checks
            if (
                type(y) is Tensor
                and y.node is None
                and y.array.dtype is a.dtype
                and y.array.shape == a.shape
            ):
                b = y.array
                if type(a) is type(b) and a.flags.writeable and 0 not in a.strides:
                    op.implementation(type(a))(a, b, a)  # type: ignore[union-attr]
                    if "unchecked" not in x.__dict__:
                        memory.stamp(a)
                    return x
        _check(name, x)
        _fresh(*args)
        recording = mode.thread.grad and (
            x.node is not None or any(getattr(a, "node", None) is not None for a in args)
        )
        if (
            direct
            and not recording
            and len(args) == 1
            and not kwargs
            and not (mode.careful and mode.thread.watchers)
        ):
            y = args[0].array if type(args[0]) is Tensor else args[0]
            if (
                (type(y) is float
                and category(x.dtype) == 2
                and x.dtype.kind == "f")
                or (
                    type(y) is type(x.array)
                    and y.dtype == x.dtype
                    and (y.shape == x.shape or y.ndim == 0)
                )
            ):
                op.implementation(type(x.array))(x.array, y, x.array)  # type: ignore[union-attr]
                touched(x)
                return x
        source = Tensor(x.array.copy(), x.node) if recording and own else x
        return assign(name, x, function(source, *args, **kwargs))

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"The in-place form of {name.rstrip('_')}: changes the tensor and returns it."
    return call


_IN_PLACE = [
    "add", "sub", "mul", "div", "neg", "square", "reciprocal", "abs", "sign", "floor", "ceil",
    "round", "trunc", "remainder", "pow", "sqrt", "rsqrt", "exp", "exp2", "expm1", "log", "log2",
    "log10", "log1p", "sin", "cos", "tan",
    "tanh", "sigmoid", "erf", "relu", "clamp", "masked_fill",
]  # fmt: skip
for _name in _IN_PLACE:
    method(in_place(getattr(E, _name), _name + "_"), _name + "_")
for _dunder, _function in {"__iadd__": E.add, "__isub__": E.sub, "__imul__": E.mul,
                           "__itruediv__": E.div,
                           "__ipow__": E.pow}.items():  # fmt: skip
    method(in_place(_function, _dunder), _dunder)


# ---- x[index] = value

set_item = linear(
    "set_item", lambda xp, x, value, /, index: _with_item(x, value, index),
    dx=lambda g, index: _erase(g, index), dvalue=lambda g, index: _read(g, index),
)  # fmt: skip
_erase = linear(
    "erase_item",
    lambda xp, x, /, index: _with_item(x, 0, index),
    dx=lambda g, index: _erase(g, index),
)


def _with_item(x: Any, value: Any, index: Any) -> Any:
    out = x.copy()
    out[index] = value
    return out


def _read(g: Any, index: Any) -> Any:
    """g[index] for an index that is ready."""
    parts = index if isinstance(index, tuple) else (index,)
    return (_take if any(is_array(p) or isinstance(p, bool) for p in parts) else _slice)(g, index)


def setitem(x: Any, index: Any, value: Any) -> None:
    """x[index] = value, recorded: the old elements lose their gradient, the value receives it."""
    _check("setitem", x)
    plain, basic = split_index(x, index)
    steps = None if basic else in_steps(plain)
    if steps is not None:
        return setitem(_slice(x, steps[0]), steps[1], value)
    if isinstance(value, Tracer):
        raise RuntimeError(
            "setitem: a traced value cannot be stored in a plain tensor; use where() or cat()"
        )
    _fresh(value)
    if type(value) is Tensor and value.node is not None and value.dtype != x.dtype:
        value = cast(value, x.dtype)
    source = value.array if type(value) is Tensor else value
    if not is_array(source) and not isinstance(source, (int, float, bool, complex)):
        source = as_array(source)
    if hasattr(source, "dtype") and source.dtype.kind == "c" and category(x.dtype) < 3:
        raise RuntimeError(f"setitem: complex values cannot be kept in a tensor of {x.dtype}")
    if isinstance(source, np.ndarray) and not isinstance(x.array, np.ndarray):
        source = xp_of(x.array).asarray(source)
    try:
        if np.shares_memory(x.array, source) if isinstance(source, np.ndarray) else False:
            source = source.copy()
        x.array[plain] = source
    except (ValueError, IndexError) as error:
        kind = IndexError if isinstance(error, IndexError) else RuntimeError
        raise kind(f"setitem: shape {x.shape} at {index!r}: {error}") from None
    touched(x, x.array[_as_view(plain)] if basic else None)
    node = value.node if type(value) is Tensor else None
    if mode.thread.grad and (x.node is not None or node is not None):
        op: Op = set_item.op
        made = op.record(
            (x.array, source), (plain,), (x.array,), (x.node, node), lambda array, node: node
        )
        rewritten(x, made[0])


def _as_view(index: Any) -> Any:
    """A basic index that gives a view even of a single element."""
    parts = index if isinstance(index, tuple) else (index,)
    return parts if Ellipsis in parts else (*parts, Ellipsis)


method(setitem, "__setitem__")


# ---- filling


def copy_(x: Any, src: Any, non_blocking: bool = False) -> Any:
    """x's elements become src's (broadcast, cast, moved between devices)."""
    _check("copy_", x)
    _fresh(src)
    src = src if isinstance(src, Operable) else Tensor(as_array(src))
    if src.device != x.device:
        src = src.to(x.device)
    if src.dtype != x.dtype:
        src = cast(src, x.dtype)
    return assign("copy_", x, src.expand(x.shape) if src.shape != x.shape else src)


def fill_(x: Any, value: Any) -> Any:
    """Every element becomes `value`."""
    _check("fill_", x)
    _fresh(value)
    if isinstance(value, Tensor):
        if value.ndim:
            raise RuntimeError(
                f"fill_: the value must be a number or a 0-d tensor, not of shape {value.shape}"
            )
        return assign("fill_", x, cast(value, x.dtype).expand(x.shape))
    x.array.fill(value)
    touched(x)
    if mode.thread.grad and x.node is not None:
        rewritten(x, None)
    return x


def zero_(x: Any) -> Any:
    """Every element becomes zero."""
    return fill_(x, 0)


def _random(name: str) -> Callable[..., Any]:
    def call(x: Any, *args: Any, generator: Any = None, **kwargs: Any) -> Any:
        from tensorgrad.random import generator_for

        _check(name, x)
        args = tuple(a.array if isinstance(a, Tensor) else a for a in args)
        getattr(generator_for(x.device, generator), name)(x.array, *args, **kwargs)
        touched(x)
        if mode.thread.grad and x.node is not None:
            rewritten(x, None)
        return x

    call.__name__ = name
    return call


for _name in (
    "uniform_",
    "normal_",
    "random_",
    "bernoulli_",
    "exponential_",
    "log_normal_",
    "cauchy_",
    "geometric_",
):
    method(_random(_name), _name)
for _function in (copy_, fill_, zero_):
    method(_function, _function.__name__)
