"""Calling a Module that has hooks: before forward, after it, and around its gradients in backward.

For backward hooks inputs and outputs pass a gate: a node that sees all their gradients at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tensorgrad import mode
from tensorgrad.backend import xp_of
from tensorgrad.kinds import linear
from tensorgrad.tensor import Hook, Tensor

BEFORE, AFTER, BACKWARD_BEFORE, BACKWARD = "before", "after", "backward before", "backward"

Gradients = tuple[Tensor | None, ...]


class Hooked(NamedTuple):
    """A hook, and when and how it wants to be called."""

    when: str
    function: Callable[..., Any]
    with_kwargs: bool = False
    always: bool = False


def register(hooks: dict[int, Any], hook: Hooked, prepend: bool) -> Hook:
    """Put the hook behind the others, or before them; the handle takes it back."""
    others = dict(hooks)
    handle = Hook(hooks, hook)  # type: ignore[arg-type]
    if prepend:
        for key, other in others.items():
            del hooks[key]
            hooks[key] = other
    return handle


def call(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """forward(*args, **kwargs) with every hook of the module."""
    hooks: list[Hooked] = list(module._hooks.values())
    after = [hook for hook in hooks if hook.when == AFTER]
    try:
        for hook in hooks:
            if hook.when == BEFORE:
                args, kwargs = _before(hook, module, args, kwargs)
        boundary = None
        if mode.thread.grad and any(h.when in (BACKWARD, BACKWARD_BEFORE) for h in hooks):
            boundary = Boundary(module, hooks)
            args = boundary.enter(args)
        out = module.forward(*args, **kwargs)
        while after:
            hook = after.pop(0)
            answer = _after(hook, module, args, kwargs, out)
            out = out if answer is None else answer
        return out if boundary is None else boundary.leave(out)
    except Exception:
        for hook in after:
            if hook.always:
                try:
                    _after(hook, module, args, kwargs, None)
                except Exception as second:
                    warnings.warn(
                        f"a forward hook of {type(module).__name__} failed, too: {second!r}",
                        stacklevel=3,
                    )
        raise


def _before(
    hook: Hooked, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not hook.with_kwargs:
        answer = hook.function(module, args)
        if answer is not None:
            args = answer if isinstance(answer, tuple) else (answer,)
        return args, kwargs
    answer = hook.function(module, args, kwargs)
    if answer is None:
        return args, kwargs
    if not (isinstance(answer, tuple) and len(answer) == 2):
        raise RuntimeError(
            "forward pre-hook: with with_kwargs=True it returns None or (args, kwargs), "
            f"not {type(answer).__name__}"
        )
    return answer


def _after(
    hook: Hooked, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> Any:
    if hook.with_kwargs:
        return hook.function(module, args, kwargs, out)
    return hook.function(module, args, out)


# ---- backward

_gate = linear(
    "module_boundary", lambda xp, xs, /, seen: tuple(x.view() for x in xs),
    view=True, variadic=True, many=True, joint=lambda g, seen: seen(g),
)  # fmt: skip
_gate.op.pure = False  # a hook may hold what it returns

OnGradients = Callable[[Gradients], Gradients]


def gate(tensors: Sequence[Tensor], seen: OnGradients) -> tuple[Tensor, ...]:
    """The tensors as outputs of one node: what seen(gradients) returns goes on in backward."""

    def rule(gs: Sequence[Any]) -> list[Any]:
        recording = any(isinstance(g, Tensor) for g in gs)
        answer = seen(tuple(None if g is None else _tensor(g) for g in gs))
        return [g if g is None or recording else g.array for g in answer]

    op, arrays = _gate.op, tuple(x.array for x in tensors)
    outs = op.run(arrays, (rule,))
    passed: tuple[Tensor, ...] = op.record(arrays, (rule,), outs, [x.node for x in tensors], Tensor)
    return passed


def _tensor(g: Any) -> Tensor:
    return g if isinstance(g, Tensor) else Tensor(xp_of(g).asarray(g))


class Boundary:
    """One call of a module as backward sees it: in at the outputs, out at the inputs."""

    def __init__(self, module: Any, hooks: list[Hooked]) -> None:
        self.module = module
        self.before = [hook.function for hook in hooks if hook.when == BACKWARD_BEFORE]
        self.hooks = [hook.function for hook in hooks if hook.when == BACKWARD]
        self.arguments = 0
        self.inputs: list[int] = []  # the positions of the arguments that require grad
        self.results = 0
        self.outputs: list[int] = []
        self.grad_output: Gradients | None = None

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, those that require grad through a gate."""
        self.arguments, self.inputs = len(args), _moving(args)
        return _through(args, self.inputs, self.at_inputs) if self.hooks else args

    def leave(self, out: Any) -> Any:
        """The output, a tensor or a tuple with tensors, through a gate."""
        outs = out if isinstance(out, tuple) else (out,)
        self.results, self.outputs = len(outs), _moving(outs)
        passed = _through(outs, self.outputs, self.at_outputs)
        if not isinstance(out, tuple):
            return passed[0]
        return type(out)(*passed) if hasattr(out, "_fields") else passed

    def at_outputs(self, gs: Gradients) -> Gradients:
        grads = _spread(gs, self.outputs, self.results)
        for hook in self.before:
            grads = self.replaced("backward pre-hook", hook(self.module, grads), grads)
        if self.inputs:
            self.grad_output = grads
            return tuple(grads[i] for i in self.outputs)
        for hook in self.hooks:  # backward ends inside: there is no later moment to call them
            answer = hook(self.module, (None,) * self.arguments, grads)
            if answer is not None and any(g is not None for g in answer):
                raise RuntimeError(
                    f"backward hook of {type(self.module).__name__}: no input requires grad, so "
                    "there is no gradient to replace; return None"
                )
        return tuple(grads[i] for i in self.outputs)

    def at_inputs(self, gs: Gradients) -> Gradients:
        grads, grad_output = _spread(gs, self.inputs, self.arguments), self.grad_output
        if grad_output is None:  # a second derivative arrives, which did not pass the outputs
            return gs
        for hook in self.hooks:
            answer = hook(self.module, grads, grad_output)
            grads = self.replaced("backward hook", answer, grads)
        self.grad_output = None
        return tuple(grads[i] for i in self.inputs)

    def replaced(self, what: str, answer: Any, grads: Gradients) -> Gradients:
        if answer is None:
            return grads
        given: Gradients = answer if isinstance(answer, tuple) else (answer,)
        if len(given) != len(grads):
            raise RuntimeError(
                f"{what} of {type(self.module).__name__}: returned {len(given)} gradients, "
                f"{len(grads)} were given"
            )
        return given


def _moving(values: Sequence[Any]) -> list[int]:
    return [i for i, x in enumerate(values) if type(x) is Tensor and x.node is not None]


def _through(values: Sequence[Any], chosen: list[int], seen: OnGradients) -> tuple[Any, ...]:
    passed = (
        dict(zip(chosen, gate([values[i] for i in chosen], seen), strict=True)) if chosen else {}
    )
    return tuple(passed.get(i, x) for i, x in enumerate(values))


def _spread(gs: Gradients, places: list[int], length: int) -> Gradients:
    at = dict(zip(places, gs, strict=True))
    return tuple(at.get(i) for i in range(length))
