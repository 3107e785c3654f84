"""The older names of func's transforms, as in torch.autograd.functional: (func, inputs, vector).

inputs: a tensor or a tuple of them.  Results have no history unless create_graph is set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensorgrad import func as F
from tensorgrad import mode
from tensorgrad.ops.compare import ones_like
from tensorgrad.tensor import Operable
from tensorgrad.tree import leaves, map_tree

Fn = Callable[..., Any]


def jacobian(
    func: Fn, inputs: Any, create_graph: bool = False, strategy: str = "reverse-mode"
) -> Any:
    """J[i, j] = d f(x)[i] / d x[j]; per output and input where there are several."""
    transforms: dict[str, Any] = {"reverse-mode": F.jacrev, "forward-mode": F.jacfwd}
    if strategy not in transforms:
        raise ValueError(f"jacobian: strategy must be one of {', '.join(transforms)}")
    return _apply(transforms[strategy](func, _argnums(inputs)), inputs, create_graph)


def hessian(func: Fn, inputs: Any, create_graph: bool = False) -> Any:
    """H[i, j] = d^2 f / d x[i] d x[j] of a function that returns one element."""
    return _apply(F.hessian(_scalar("hessian", func), _argnums(inputs)), inputs, create_graph)


def vjp(func: Fn, inputs: Any, v: Any = None, create_graph: bool = False) -> tuple[Any, Any]:
    """(f(x), v^T J); v is shaped like the result, and may be left out for a single element."""

    def product(*xs: Any) -> Any:
        out, pullback = F.vjp(func, *xs)
        return out, pullback(_ones("vjp", out) if v is None else v)

    return _apply(product, inputs, create_graph)  # type: ignore[no-any-return]


def jvp(func: Fn, inputs: Any, v: Any = None, create_graph: bool = False) -> tuple[Any, Any]:
    """(f(x), J v); v is shaped like the inputs, and may be left out for a single element."""

    def product(*xs: Any) -> Any:
        given = _tuple(_ones("jvp", inputs) if v is None else v)
        return F.jvp(func, xs, given)

    return _apply(product, inputs, create_graph)  # type: ignore[no-any-return]


def hvp(func: Fn, inputs: Any, v: Any = None, create_graph: bool = False) -> tuple[Any, Any]:
    """(f(x), H v) of a function that returns one element."""
    scalar = _scalar("hvp", func)

    def product(*xs: Any) -> Any:
        given = _tuple(_ones("hvp", inputs) if v is None else v)
        return func(*xs), F.hvp(scalar, xs, given)

    return _apply(product, inputs, create_graph)  # type: ignore[no-any-return]


vhp = hvp  # v^T H: H is symmetric


def _tuple(x: Any) -> tuple[Any, ...]:
    return (x,) if isinstance(x, Operable) else tuple(x)


def _argnums(inputs: Any) -> int | tuple[int, ...]:
    return 0 if isinstance(inputs, Operable) else tuple(range(len(inputs)))


def _apply(function: Fn, inputs: Any, create_graph: bool) -> Any:
    """function(*inputs): recorded, or as if no input had a history."""
    with mode.enable_grad() if create_graph else mode.no_grad():
        return function(*_tuple(inputs))


def _ones(name: str, like: Any) -> Any:
    if any(x.numel() != 1 for x in leaves(like)):
        raise RuntimeError(f"{name}: v may be left out only where there is a single element")
    return map_tree(ones_like, like)


def _scalar(name: str, func: Fn) -> Fn:
    def checked(*xs: Any) -> Any:
        out = func(*xs)
        if not isinstance(out, Operable) or out.numel() != 1:
            raise RuntimeError(f"{name}: the function must return one element")
        return out

    return checked
