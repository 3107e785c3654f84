"""Whole matrices of derivatives, built from the products that vjp and jvp give.

jacrev takes one pass per output element, jacfwd one per input element: choose the smaller side.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tensorgrad.backend import xp_of
from tensorgrad.dtypes import is_differentiable
from tensorgrad.func.reverse import Reverse, pull
from tensorgrad.func.transforms import Fn, grad, jvp, vjp
from tensorgrad.ops.compare import zeros_like
from tensorgrad.ops.shape import reshape, stack
from tensorgrad.tensor import Tensor
from tensorgrad.tracer import Tracer, new_level
from tensorgrad.tree import leaves, map_tree, rebuild

Argnums = int | tuple[int, ...]


def jacrev(func: Fn, argnums: Argnums = 0, *, has_aux: bool = False) -> Fn:
    """A function that returns J[i, j] = d f(x)[i] / d x[j], by one reverse pass per i.

    Shape: f's, then x's.  For trees: a tree like f's result of trees like the argument; for a tuple
    of argnums each of those is a tuple.  With has_aux f returns (result, aux), J comes as (J, aux).
    """

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        partial, moving = _of_chosen("jacrev", func, argnums, args, kwargs)
        out, pullback, *aux = vjp(partial, moving, has_aux=has_aux)
        zeros = [zeros_like(o) for o in leaves(out)]

        def rows(i: int, o: Any) -> Any:
            _check_float("jacrev", o)
            parts = [pullback(rebuild(out, _with(zeros, i, seed))) for seed in _basis(o)]
            return _stacked(parts, moving, lambda x: (*o.shape, *x.shape), dim=0)

        index = iter(range(len(zeros)))
        jacobian = map_tree(lambda o: _unpacked(rows(next(index), o), argnums), out)
        return (jacobian, aux[0]) if has_aux else jacobian

    return wrapped


def jacfwd(func: Fn, argnums: Argnums = 0, has_aux: bool = False) -> Fn:
    """A function that returns J[i, j] = d f(x)[i] / d x[j], by one forward pass per j.

    Arguments and result as for jacrev.
    """

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        partial, moving = _of_chosen("jacfwd", func, argnums, args, kwargs)
        xs = leaves(moving)
        zeros = [zeros_like(x) for x in xs]
        out: Any = None
        aux: list[Any] = []
        columns = []  # per input leaf: J of every output leaf
        for i, x in enumerate(xs):
            _check_float("jacfwd", x)
            parts = []
            for seed in _basis(x):
                out, tangent, *aux = jvp(
                    partial, (moving,), (rebuild(moving, _with(zeros, i, seed)),), has_aux=has_aux
                )
                parts.append(tangent)
            if out is None:
                out = partial(moving)
                out, *aux = out if has_aux else (out,)
            columns.append(leaves(_stacked(parts, out, _outer(x), dim=-1)))
        entries = iter(zip(*columns, strict=True))
        jacobian = map_tree(lambda o: _unpacked(rebuild(moving, next(entries)), argnums), out)
        return (jacobian, aux[0]) if has_aux else jacobian

    return wrapped


def hessian(func: Fn, argnums: Argnums = 0) -> Fn:
    """A function that returns H[i, j] = d^2 f / d x[i] d x[j]: forward mode over reverse mode."""
    return jacfwd(jacrev(func, argnums), argnums)


def hvp(func: Fn, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """H t without the matrix H: the derivative of the gradient along t, for a few calls of func.

    func returns one element.  One entry per primal (a single one bare).  Pearlmutter 1994.
    """
    if not isinstance(primals, tuple) or not isinstance(tangents, tuple):
        raise RuntimeError("hvp: primals and tangents must be tuples")
    slope = grad(func, 0 if len(primals) == 1 else tuple(range(len(primals))))
    return jvp(slope, primals, tangents)[1]


def linearize(func: Fn, *primals: Any) -> tuple[Any, Fn]:
    """(f(x), push) with push(t) = J t, as often as wanted without calling f again.

    push takes one tangent per primal; it is the transpose of the transpose, vjp's pullback.
    """
    value, pullback = vjp(func, *primals)

    def push(*tangents: Any) -> Any:
        xs, ts, outs = leaves(primals), leaves(tangents), leaves(value)
        if len(xs) != len(ts) or any(x.shape != t.shape for x, t in zip(xs, ts, strict=True)):
            raise RuntimeError(
                f"linearize: tangents of shapes {[t.shape for t in ts]} do not match primals of "
                f"shapes {[x.shape for x in xs]}"
            )
        with new_level() as level:
            us = [Reverse(zeros_like(o), level) for o in outs]
            parts = leaves(pullback(rebuild(value, us)))
            moved = pull(list(zip(parts, ts, strict=True)), us)
        return rebuild(
            value, [zeros_like(o) if t is None else t for o, t in zip(outs, moved, strict=True)]
        )

    return value, push


# ---- the parts


def _of_chosen(
    name: str, func: Fn, argnums: Argnums, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Fn, tuple[Any, ...]]:
    """func as a function of the tuple of chosen arguments, and that tuple."""
    chosen = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if any(not -len(args) <= i < len(args) for i in chosen):
        raise RuntimeError(f"{name}: argnums {argnums} is out of range for {len(args)} arguments")
    chosen = tuple(i % len(args) for i in chosen)

    def partial(moving: tuple[Any, ...]) -> Any:
        full = list(args)
        for i, x in zip(chosen, moving, strict=True):
            full[i] = x
        return func(*full, **kwargs)

    return partial, tuple(args[i] for i in chosen)


def _unpacked(entries: tuple[Any, ...], argnums: Argnums) -> Any:
    return entries[0] if isinstance(argnums, int) else entries


def _check_float(name: str, x: Any) -> None:
    if not is_differentiable(x.dtype):
        raise RuntimeError(f"{name}: a tensor of {x.dtype} has no derivative; only floats do")


def _basis(x: Any) -> Iterator[Tensor]:
    """The tensors of x's shape with one element 1 and all others 0."""
    while isinstance(x, Tracer):
        x = x.value
    xp = xp_of(x.array)
    for i in range(x.array.size):
        one = xp.zeros(x.array.size, x.dtype)
        one[i] = 1
        yield Tensor(one.reshape(x.shape))


def _outer(x: Any) -> Fn:
    return lambda o: (*o.shape, *x.shape)


def _with(values: list[Any], i: int, value: Any) -> list[Any]:
    return [*values[:i], value, *values[i + 1 :]]


def _stacked(parts: list[Any], like: Any, shape: Any, dim: int) -> Any:
    """A tree like `like`: the parts' entries side by side along `dim`, in the shape asked for."""
    columns = zip(*map(leaves, parts), strict=True) if parts else iter(())

    def entry(x: Any) -> Any:
        if not parts:
            return reshape(zeros_like(x)[None][:0], shape(x))
        return reshape(stack(next(columns), dim), shape(x))

    return map_tree(entry, like)
