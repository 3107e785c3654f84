"""gradcheck: (f(x + eps) - f(x - eps)) / (2 eps) beside what backward and forward mode say.

gradgradcheck does the same to the gradient.  Entry by entry, so that a failure names the entry.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tensorgrad import func, mode
from tensorgrad.autograd.reverse import grad
from tensorgrad.backend import xp_of
from tensorgrad.dtypes import float64, is_differentiable
from tensorgrad.tensor import Operable, Tensor
from tensorgrad.tree import leaves

Fn = Callable[..., Any]


class GradcheckError(RuntimeError):
    """A derivative disagrees with central differences."""


def gradcheck(
    func: Fn, inputs: Any, *, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3,
    raise_exception: bool = True, nondet_tol: float = 0.0, check_forward_ad: bool = False,
    check_backward_ad: bool = True,
) -> bool:  # fmt: skip
    """Whether |derivative - differences| <= atol + rtol |differences|, entry by entry.

    func(*inputs) returns a tensor or a tree of tensors; the inputs that require grad are varied, in
    place, by eps, and should be float64.  nondet_tol: how much two backward passes may differ.
    Raises GradcheckError, which names op, output, input and entry; ValueError for unfit inputs.
    """
    args = _arguments(inputs)
    try:
        _check(func, args, eps, atol, rtol, nondet_tol, check_forward_ad, check_backward_ad)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Fn, inputs: Any, grad_outputs: Any = None, *, eps: float = 1e-6, atol: float = 1e-5,
    rtol: float = 1e-3, raise_exception: bool = True, nondet_tol: float = 0.0,
) -> bool:  # fmt: skip
    """gradcheck of the gradient of func, as a function of the inputs and of the gradients arriving.

    grad_outputs: a tensor per output; by default normal random ones, always the same.
    """
    args = _arguments(inputs)
    n = len(args)
    if grad_outputs is None:
        random = np.random.default_rng(0)
        grad_outputs = [_random_like(o, random) for o in _outputs(func, args) if o.node is not None]
    seeds = _arguments(grad_outputs)

    def gradient(*values: Any) -> list[Any]:
        outs = [o for o in _outputs(func, values[:n]) if o.node is not None]
        moving = [x for x in values[:n] if _moves(x)]
        parts = grad(outs, moving, values[n:], create_graph=True, allow_unused=True)
        return [p for p in parts if p is not None]

    return gradcheck(
        gradient, (*args, *seeds), eps=eps, atol=atol, rtol=rtol,
        raise_exception=raise_exception, nondet_tol=nondet_tol,
    )  # fmt: skip


def _check(
    function: Fn, args: tuple[Any, ...], eps: float, atol: float, rtol: float, nondet_tol: float,
    check_forward_ad: bool, check_backward_ad: bool,
) -> None:  # fmt: skip
    outs = _outputs(function, args)
    moving = [i for i, x in enumerate(args) if _moves(x)]
    numeric = {i: _differences(function, args, i, eps) for i in moving}

    def compare(way: str, i: int, j: int, found: Any) -> None:
        """d output j / d input i: an array (elements of the output, elements of the input)."""
        expected = numeric[i][j]
        wrong = ~(np.abs(found - expected) <= atol + rtol * np.abs(expected))
        if wrong.any():
            gap = np.where(np.isnan(found - expected), np.inf, np.abs(found - expected)) * wrong
            at, by = np.unravel_index(np.argmax(gap), gap.shape)
            o = tuple(map(int, np.unravel_index(at, outs[j].shape))) if outs[j].shape else ()
            x = tuple(map(int, np.unravel_index(by, args[i].shape))) if args[i].shape else ()
            name = "a tensor without history" if outs[j].node is None else outs[j].node.name()
            raise GradcheckError(
                f"gradcheck: {way} of {name}: d output {j}{list(o)} / d input {i}{list(x)} is "
                f"{found[at, by]:.9g}, by central differences {expected[at, by]:.9g} "
                f"({int(wrong.sum())} of {wrong.size} entries differ)"
            )

    for j, out in enumerate(outs):
        if check_backward_ad:
            rows = _backward(out, [args[i] for i in moving])
            for i, found in zip(moving, rows, strict=True):
                compare("backward", i, j, found)
            again = _backward(out, [args[i] for i in moving])
            for i, one, two in zip(moving, rows, again, strict=True):
                if not np.all(np.abs(one - two) <= nondet_tol):
                    raise GradcheckError(
                        f"gradcheck: backward of {out.node.name()}: two passes give different "
                        f"gradients of input {i}, by up to {np.max(np.abs(one - two)):.3g}"
                    )
    if check_forward_ad:
        for i in moving:
            for j, found in enumerate(_forward(function, args, i, len(outs))):
                compare("forward mode", i, j, found)


def _arguments(inputs: Any) -> tuple[Any, ...]:
    args = (inputs,) if isinstance(inputs, Operable) else tuple(inputs)
    moving = [(i, x) for i, x in enumerate(args) if _moves(x)]
    if not moving:
        raise ValueError("gradcheck: at least one input must be a tensor that requires grad")
    for i, x in moving:
        if x.array.size and any(
            s == 0 and n > 1 for s, n in zip(x.array.strides, x.shape, strict=True)
        ):
            raise ValueError(
                f"gradcheck: elements of input {i} share memory (it was expanded); clone() it first"
            )
        if x.dtype != float64:
            warnings.warn(
                f"gradcheck: input {i} is {x.dtype}; central differences need float64",
                stacklevel=3,
            )
    return args


def _moves(x: Any) -> bool:
    return isinstance(x, Tensor) and x.node is not None


def _outputs(function: Fn, args: Sequence[Any]) -> list[Any]:
    """The differentiable outputs of one call."""
    outs = [o for o in leaves(function(*args)) if is_differentiable(o.dtype)]
    if not outs:
        raise ValueError("gradcheck: the function returned no floating-point tensor")
    return outs


def _numbers(x: Any) -> Any:
    """A copy on the CPU, flat."""
    array = x.array if isinstance(x, Tensor) else x
    return np.array(array if isinstance(array, np.ndarray) else array.get(), np.float64).reshape(-1)


def _random_like(x: Any, random: Any) -> Any:
    array = xp_of(x.array).asarray(random.normal(size=x.shape), x.dtype)
    return Tensor(array).requires_grad_()


def _one_hot(x: Any) -> Iterator[Any]:
    """The basis of the tensors shaped like x."""
    xp = xp_of(x.array)
    for i in range(x.array.size):
        array = xp.zeros(x.shape, x.dtype)
        array.reshape(-1)[i] = 1
        yield Tensor(array)


def _differences(function: Fn, args: tuple[Any, ...], i: int, eps: float) -> list[Any]:
    """d output / d input i by central differences: per output (its elements, the input's)."""
    array = args[i].array
    columns: list[list[Any]] = []
    for at in np.ndindex(array.shape):
        kept = array[at].copy()
        ends = []
        try:
            for step in (eps, -eps):
                array[at] = kept + step
                ends.append([_numbers(o) for o in _outputs(function, args)])
        finally:
            array[at] = kept
        columns.append([(above - below) / (2 * eps) for above, below in zip(*ends, strict=True)])
    if not columns:
        return [np.zeros((o.array.size, 0)) for o in _outputs(function, args)]
    return [np.stack(column, 1) for column in zip(*columns, strict=True)]


def _backward(out: Any, inputs: list[Any]) -> list[Any]:
    """d out / d input by backward, one pass per element of the output."""
    rows: list[list[Any]] = [[] for _ in inputs]
    for seed in _one_hot(out) if out.node is not None else ():
        parts = grad(out, inputs, seed, retain_graph=True, allow_unused=True)
        for row, part, x in zip(rows, parts, inputs, strict=True):
            row.append(np.zeros(x.array.size) if part is None else _numbers(part))
    return [
        np.stack(row) if row else np.zeros((out.array.size, x.array.size))
        for row, x in zip(rows, inputs, strict=True)
    ]


def _forward(function: Fn, args: tuple[Any, ...], i: int, n_outs: int) -> list[Any]:
    """d output / d input i by forward mode, one pass per element of the input."""

    def alone(x: Any) -> Any:
        outs = leaves(function(*args[:i], x, *args[i + 1 :]))
        return [o for o in outs if is_differentiable(o.dtype)]

    with mode.no_grad():
        columns = [
            [_numbers(t) for t in func.jvp(alone, (args[i].detach(),), (seed,))[1]]
            for seed in _one_hot(args[i])
        ]
        empty = [np.zeros((o.array.size, 0)) for o in _outputs(function, args)]
    return [np.stack(column, 1) for column in zip(*columns, strict=True)] if columns else empty
