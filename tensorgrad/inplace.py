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
from tensorgrad.op import Op
from tensorgrad.ops.indexing import _set_item, _slice, in_steps, split_index
from tensorgrad.tensor import Operable, Tensor, method
from tensorgrad.tracer import Tracer
from tensorgrad.views import follow, rewritten, shares_a_leaf


def _check_history(name: str, x: Any) -> None:
    """Refuse what is being traced, leaves that require grad, and views of them."""
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


def _check(name: str, x: Any) -> None:
    """Refuse, too, memory that cannot be written, or that several elements share."""
    _check_history(name, x)
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
            elif isinstance(value, (tuple, list)):
                _fresh(*value)


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
            y, a = args[0], x.array
            # p.data += step: no history, nothing to check but what NumPy checks
            if (
                type(y) is Tensor
                and y.node is None
                and y.array.dtype is a.dtype
                and a.dtype.kind != "c"
                and y.array.shape == a.shape
                and type(y.array) is type(a)
                and a.flags.writeable
                and 0 not in a.strides
            ):
                try:
                    op.implementation(type(a))(a, y.array, a)  # type: ignore[union-attr]
                except (TypeError, ValueError):
                    pass  # the ordinary way says why
                else:
                    if "unchecked" not in x.__dict__:
                        memory.stamp(a)
                    return x
        _check(name, x)
        operands = (*args, *kwargs.values()) if kwargs else args
        if mode.careful:
            _fresh(*operands)
        recording = mode.thread.grad and (x.node is not None or _any_history(operands))
        if (
            direct
            and not recording
            and len(args) == 1
            and not kwargs
            and not (mode.careful and mode.thread.watchers)
        ):
            y = args[0].array if type(args[0]) is Tensor else args[0]
            if (
                x.dtype.kind == "f"
                if type(y) is float
                else type(y) is type(x.array)
                and y.dtype == x.dtype
                and y.dtype.kind != "c"
                and (y.shape == x.shape or y.ndim == 0)
            ) and _written(op, x.array, y):
                touched(x)
                return x
        source = Tensor(x.array.copy(), x.node) if recording and own else x
        return assign(name, x, function(source, *args, **kwargs))

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"The in-place form of {name.rstrip('_')}: changes the tensor and returns it."
    return call


def _written(op: Any, a: Any, b: Any) -> bool:
    """a = op(a, b); False where NumPy refuses, and the ordinary way says why."""
    try:
        op.implementation(type(a))(a, b, a)
    except (TypeError, ValueError):
        return False
    return True


def _any_history(values: Any) -> bool:
    return any(
        _any_history(v) if isinstance(v, (tuple, list)) else getattr(v, "node", None) is not None
        for v in values
    )


def reshaping(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The in-place form of a view (t, squeeze): the memory stays, the tensor becomes the view."""

    def call(x: Any, *args: Any, **kwargs: Any) -> Any:
        _check_history(name, x)
        leaf = x.node is not None and x.node.op is None
        if not (mode.thread.grad or leaf or x.node is None):
            raise RuntimeError(
                f"{name}: under no_grad this tensor would no longer fit its history "
                f"({x.node.name()}); use {name.rstrip('_')}(), or detach() first"
            )
        out = function(x, *args, **kwargs)
        x.array = out.array
        if leaf:  # here only under no_grad
            x.node.shape = out.shape
            x.grad = None if x.grad is None else function(x.grad, *args, **kwargs)
        elif out is not x:
            follow(x, out.node)
            if "as_of" in out.__dict__:
                x.__dict__["as_of"] = out.__dict__["as_of"]
        return x

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"The in-place form of {name.rstrip('_')}: the tensor takes the view's shape."
    return call


NAMES = """
    abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr arccos arccosh arcsin
    arcsinh arctan arctan2 arctanh asin asinh atan atan2 atanh baddbmm bitwise_and
    bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil clamp clamp_max
    clamp_min clip copysign cos cosh cumprod cumsum deg2rad digamma div divide eq erf erfc erfinv
    exp exp2 expm1 fix float_power floor floor_divide fmod frac gcd ge greater greater_equal gt
    heaviside hypot i0 igamma igammac index_add index_copy index_fill index_put lcm ldexp le lerp
    less less_equal lgamma log log10 log1p log2 logical_and logical_not logical_or logical_xor
    logit lt masked_fill masked_scatter mul multiply mvlgamma nan_to_num ne neg negative nextafter
    not_equal polygamma pow rad2deg reciprocal relu remainder renorm round rsqrt scatter
    scatter_add scatter_reduce sgn sigmoid sign sin sinc sinh sqrt square sub subtract tan tanh
    tril triu true_divide trunc xlogy
"""
"""The methods of which PyTorch has an in-place form; those that exist here get theirs."""
RESHAPING = "squeeze unsqueeze t transpose swapaxes swapdims"
DUNDERS = {
    "__iadd__": "add", "__isub__": "sub", "__imul__": "mul", "__itruediv__": "div",
    "__ifloordiv__": "floor_divide", "__imod__": "remainder", "__ipow__": "pow",
    "__iand__": "bitwise_and", "__ior__": "bitwise_or", "__ixor__": "bitwise_xor",
    "__ilshift__": "bitwise_left_shift", "__irshift__": "bitwise_right_shift",
}  # fmt: skip


def give_forms() -> None:
    """Put the in-place form of every method of these tables on Tensors; called once, at import."""
    forms = {name + "_": (in_place, name) for name in NAMES.split()}
    forms |= {name + "_": (reshaping, name) for name in RESHAPING.split()}
    forms |= {dunder: (in_place, name) for dunder, name in DUNDERS.items()}
    for form, (make, name) in forms.items():
        function = Operable.__dict__.get(name)
        if function is not None:
            method(make(function, form), form)


# ---- x[index] = value


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
        op: Op = _set_item.op
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
