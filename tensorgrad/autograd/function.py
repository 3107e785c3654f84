"""autograd.Function: an operation whose forward and backward are your own Python.

Inside transforms its arguments are unwrapped level by level; the user's forward sees plain tensors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tensorgrad import memory, mode
from tensorgrad.autograd.call import Call, OutsideTheTable, among
from tensorgrad.autograd.context import FunctionCtx
from tensorgrad.dtypes import is_differentiable
from tensorgrad.func.forward import Dual
from tensorgrad.func.reverse import Reverse
from tensorgrad.node import Node
from tensorgrad.tensor import Operable, Tensor
from tensorgrad.tracer import Tracer, innermost
from tensorgrad.views import rewritten


class Function:
    """A custom differentiable operation, used as `Exp.apply(x)`:

    class Exp(Function):
        @staticmethod
        def forward(ctx, x):
            out = tg.exp(x)
            ctx.save_for_backward(out)
            return out

        @staticmethod
        def backward(ctx, g):
            (out,) = ctx.saved_tensors
            return g * out

    backward returns one gradient per argument of apply, None for what is no tensor.  Forward may
    also be written `forward(*args)` beside `setup_context(ctx, inputs, output)`.  `jvp(ctx,
    *tangents)` is optional: without it forward mode transposes backward, which must then consist
    of tensorgrad's operations.
    """

    setup_context: Callable[..., Any] | None = None
    jvp: Callable[..., Any] | None = None

    def __init__(self) -> None:
        name = type(self).__name__
        raise RuntimeError(f"{name}: a Function has no instances; call {name}.apply(...)")

    @staticmethod
    def forward(*args: Any) -> Any:
        """forward(ctx, *args), or forward(*args) beside setup_context: a tensor or a tuple."""
        raise RuntimeError("Function: define the static method forward(ctx, ...)")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """The gradients of the arguments, given those of the outputs."""
        raise RuntimeError("Function: define the static method backward(ctx, ...)")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Forward, recorded."""
        needs = tuple(isinstance(a, Operable) and a.requires_grad for a in args)
        outs, call, _ = _apply(cls, args, needs)
        return outs if call.several else outs[0]


Made = tuple[tuple[Any, ...], Call, tuple[Any, ...]]
"""The outputs at a level, the call, and what it saved as that level sees it."""


def _apply(function: Any, args: tuple[Any, ...], needs: tuple[bool, ...]) -> Made:
    tracer = innermost(args)
    if tracer is None:
        return _base(function, args, needs)
    kind, level = type(tracer), tracer.level
    if kind not in (Reverse, Dual):  # other transforms see the operations that forward is made of
        return _forward(function, args, needs)[:3]

    def mine(a: Any) -> bool:
        return isinstance(a, kind) and a.level == level

    lower = tuple(a.value if mine(a) else a for a in args)
    live = [a if mine(a) and is_differentiable(a.dtype) else None for a in args]
    outs, call, saved = _apply(function, lower, needs)
    if call.dirty:
        raise RuntimeError(f"{call.name}: mark_dirty: a traced value cannot be changed in place")
    call, saved = call.lifted(saved, lower, outs)
    if isinstance(tracer, Reverse):
        parents = tuple(None if a is None else a.node for a in live)
        outs = call.record(saved, parents, outs, tracer._wrap)
    elif any(call.moves) and any(a is not None for a in live):
        ts = call.push(saved, [None if a is None else a.tangent for a in live], lower, outs)
        outs = tuple(o if t is None else Dual(o, t, level) for o, t in zip(outs, ts, strict=True))
    return outs, call, saved


def _forward(
    function: Any, args: tuple[Any, ...], needs: tuple[bool, ...]
) -> tuple[Any, Call, Any, Any]:
    """The user's forward: its outputs, the call, what it saved and what it changed in place."""
    ctx = FunctionCtx(needs)
    if function.setup_context is None:
        out = function.forward(ctx, *args)
    else:
        out = function.forward(*args)
        function.setup_context(ctx, args, out)
    outs = out if isinstance(out, tuple) else (out,)
    if innermost(args) is None and innermost(outs) is not None:
        raise RuntimeError(
            f"{function.__name__}: forward uses a value of a surrounding transform that is no "
            "argument; pass it to apply"
        )
    saved, dirty = (*ctx._saved, *(ctx._saved_forward or ())), ctx._dirty
    call = Call(function, args, ctx, out)
    return outs, call, tuple(s.array if type(s) is Tensor else s for s in saved), dirty


def _base(function: Any, args: tuple[Any, ...], needs: tuple[bool, ...]) -> Made:
    """Forward of real tensors, and its node."""
    if mode.careful:
        for a in args:
            if type(a) is Tensor:
                memory.renew(a)
    recording = mode.thread.grad
    with mode.no_grad():
        outs, call, saved, dirty = _forward(function, args, needs)
    for x in dirty:
        if not among(x, outs):
            raise RuntimeError(
                f"{call.name}: mark_dirty: an input changed in place must be returned by forward"
            )
        if recording and x.node is not None and x.node.op is None:
            raise RuntimeError(
                f"{call.name}: a leaf that requires grad cannot be changed in place; use a clone()"
            )
    parents = tuple(a.node if recording and type(a) is Tensor else None for a in args)
    results = call.record(saved, parents, outs, lambda value, node: Tensor(value.array, node))
    if mode.careful:
        _show_watchers(call, args, outs, results)
    if dirty:
        pairs = list(zip(outs, results, strict=True))
        for x, result in pairs:
            if recording and among(x, dirty):
                rewritten(x, result.node)
        results = tuple(x if among(x, dirty) else result for x, result in pairs)
    return results, call, saved


def _show_watchers(call: Call, args: Any, outs: Any, results: Any) -> None:
    for watch in mode.thread.watchers:
        values, made = ([x.array if type(x) is Tensor else x for x in xs] for xs in (args, outs))
        watch(call, values, (), made, results)


# ---- backward passes that cannot be differentiated


class _Barrier(OutsideTheTable):
    """The op of what a once-differentiable backward returned."""

    def __init__(self, name: str) -> None:
        self.name = name

    def joint(self, g: Any) -> Any:
        raise RuntimeError(
            f"{self.name} is once differentiable; its gradient cannot be differentiated again"
        )


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a backward that is no differentiable function: NumPy, a kernel, in-place code.

    What it returns has no history, and differentiating it is an error instead of a wrong number.
    """
    name = backward.__qualname__

    @functools.wraps(backward)
    def wrapped(ctx: Any, *grads: Any) -> Any:
        seen = [x for x in (*grads, *ctx.saved_tensors) if isinstance(x, Operable)]
        if any(isinstance(x, Tracer) for x in seen):
            raise RuntimeError(f"{name} is once differentiable; no transform can pass through it")
        with mode.no_grad():
            parts = backward(ctx, *grads)
        history = tuple(x.node for x in seen if isinstance(x, Tensor) and x.node is not None)
        if not mode.thread.grad or not history:
            return parts

        def barred(part: Any) -> Any:
            if type(part) is not Tensor or not is_differentiable(part.dtype):
                return part
            return Tensor(part.array, Node(_Barrier(name), history, ((),), part.shape))

        return tuple(map(barred, parts)) if isinstance(parts, (tuple, list)) else barred(parts)

    return wrapped
