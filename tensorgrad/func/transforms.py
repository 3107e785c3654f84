"""Transforms: jvp, vjp, grad, value_and_grad, Jacobians, Hessians.  They nest in any order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensorgrad.func.forward import Dual
from tensorgrad.func.reverse import Reverse, pull
from tensorgrad.ops.compare import zeros_like
from tensorgrad.tracer import new_level
from tensorgrad.tree import leaves, map_tree, rebuild

Fn = Callable[..., Any]


def jvp(
    func: Fn, primals: tuple[Any, ...], tangents: tuple[Any, ...], *, has_aux: bool = False
) -> Any:
    """(f(x), J t): the value and its derivative along the tangents.  Trees in, trees out."""
    if not isinstance(primals, tuple) or not isinstance(tangents, tuple):
        raise RuntimeError("jvp: primals and tangents must be tuples")
    xs, ts = leaves(primals), leaves(tangents)
    if len(xs) != len(ts) or any(x.shape != t.shape for x, t in zip(xs, ts)):
        raise RuntimeError(
            f"jvp: tangents of shapes {[t.shape for t in ts]} do not match "
            f"primals of shapes {[x.shape for x in xs]}"
        )
    with new_level() as level:
        pairs = iter(ts)
        out = func(*map_tree(lambda x: Dual(x, next(pairs), level), primals))
        out, aux = out if has_aux else (out, None)
    value = map_tree(lambda o: o.value if _mine(o, Dual, level) else o, out)
    tangent = map_tree(lambda o: o.tangent if _mine(o, Dual, level) else zeros_like(o), out)
    return (value, tangent, _lower(aux, level)) if has_aux else (value, tangent)


def vjp(func: Fn, *primals: Any, has_aux: bool = False) -> Any:
    """(f(x), pull) with pull(v) = J^T v, one entry per primal (a single one bare)."""
    with new_level() as level:
        inputs = map_tree(lambda x: Reverse(x, level), primals)
        out = func(*inputs)
        out, aux = out if has_aux else (out, None)
    value = _lower(out, level)

    def pullback(cotangent: Any) -> Any:
        outs, gs = leaves(out), leaves(cotangent)
        if len(outs) != len(gs) or any(o.shape != g.shape for o, g in zip(outs, gs)):
            raise RuntimeError(
                f"vjp: cotangents of shapes {[g.shape for g in gs]} do not match outputs of shapes "
                f"{[o.shape for o in outs]}"
            )
        xs = leaves(inputs)
        parts = [
            zeros_like(x.value) if g is None else g
            for x, g in zip(xs, pull(list(zip(outs, gs)), xs))
        ]
        grads = rebuild(inputs, parts)
        return grads[0] if len(primals) == 1 else grads

    return (value, pullback, _lower(aux, level)) if has_aux else (value, pullback)


def _mine(x: Any, kind: type, level: int) -> bool:
    return isinstance(x, kind) and x.level == level  # type: ignore[attr-defined]


def _lower(tree: Any, level: int) -> Any:
    return map_tree(lambda o: o.value if getattr(o, "level", -1) == level else o, tree)


def value_and_grad(func: Fn, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Fn:
    """A function that returns (f(x), df/dx) for the arguments named; f must return one element."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        chosen = (argnums,) if isinstance(argnums, int) else tuple(argnums)
        if any(not -len(args) <= i < len(args) for i in chosen):
            raise RuntimeError(f"grad: argnums {argnums} is out of range for {len(args)} arguments")
        chosen = tuple(i % len(args) for i in chosen)

        def partial(*moving: Any) -> Any:
            full = list(args)
            for i, x in zip(chosen, moving):
                full[i] = x
            return func(*full, **kwargs)

        value, pullback, *aux = vjp(partial, *(args[i] for i in chosen), has_aux=has_aux)
        if not hasattr(value, "shape") or value.numel() != 1:
            raise RuntimeError(
                f"grad: expected a function that returns one element, it returned "
                f"{getattr(value, 'shape', type(value).__name__)}"
            )
        grads = pullback(zeros_like(value) + 1)
        if not isinstance(argnums, int) and len(chosen) == 1:
            grads = (grads,)
        return ((value, aux[0]) if has_aux else value), grads

    return wrapped


def grad(func: Fn, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Fn:
    """A function that returns df/dx; with has_aux (df/dx, aux)."""
    both = value_and_grad(func, argnums, has_aux)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        value, grads = both(*args, **kwargs)
        return (grads, value[1]) if has_aux else grads

    return wrapped
