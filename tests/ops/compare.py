"""One call in both frameworks: inputs, results, gradients, as NumPy arrays that can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from hypothesis import settings
from hypothesis.extra import numpy as hnp

import tensorgrad as tg

DTYPES = [
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
]  # fmt: skip
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
few = settings(max_examples=25)
ERRORS = (RuntimeError, IndexError, TypeError, ValueError, AssertionError, ZeroDivisionError)


def to_torch(array: Any) -> Any:
    """A torch tensor with a copy of the array; bfloat16 passes by way of float32."""
    if array.dtype.kind == "V":
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def to_numpy(x: Any) -> Any:
    """The array of a tensor of either framework; torch's bfloat16 comes as float32."""
    if isinstance(x, torch.Tensor):
        x = x.detach()
        return (x.float() if x.dtype is torch.bfloat16 else x).numpy(force=True)
    if isinstance(x, tg.Tensor):
        return x.detach().array
    return np.asarray(x)


def dtype_name(x: Any) -> str:
    return str(x.dtype).removeprefix("torch.")


def is_float(x: Any) -> bool:
    return dtype_name(x) in ("float16", "bfloat16", "float32", "float64")


def tensors(result: Any) -> list[Any]:
    """The tensors of a result: one, or a tuple or list of them."""
    return list(result) if isinstance(result, (tuple, list)) else [result]


def floats(result: Any) -> list[Any]:
    return [x for x in tensors(result) if x.requires_grad]


def weights(outs: Sequence[Any], seed: int = 1) -> list[np.ndarray]:
    """A gradient to enter at each output, all numbers different."""
    draw = np.random.default_rng(seed)
    return [draw.uniform(0.5, 1.5, tuple(x.shape)) for x in outs]


def leaves(arrays: Sequence[Any], t: Any, grad: bool = True) -> list[Any]:
    make = to_torch if t is torch else (lambda a: tg.from_numpy(a.copy()))
    return [make(a).requires_grad_(grad) for a in arrays]


def seeds(outs: Sequence[Any], t: Any) -> list[Any]:
    return [leaves([w], t, False)[0].to(x.dtype) for w, x in zip(weights(outs), outs, strict=True)]


def gradients(t: Any, outs: Sequence[Any], xs: Sequence[Any], **options: Any) -> list[Any]:
    """The gradients of the outputs, weighted, for each input; zeros where there is none."""
    if not outs:
        return []
    gs = options.pop("grad_outputs", None) or seeds(outs, t)
    return list(t.autograd.grad(outs, xs, gs, allow_unused=True, materialize_grads=True, **options))


def run(t: Any, call: Callable[..., Any], arrays: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The results and the gradients of one call."""
    xs = leaves(arrays, t)
    result = tensors(call(t, *xs))
    return result, gradients(t, floats(result), xs)


def assert_same(
    mine: Sequence[Any], theirs: Sequence[Any], rtol: float = 1e-9, what: str = ""
) -> None:
    """Equal in number, shape, dtype and value; infinities and NaN in the same places."""
    assert len(mine) == len(theirs), f"{what}: {len(mine)} results, PyTorch has {len(theirs)}"
    for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        x, y = to_numpy(a), to_numpy(b)
        same = x.shape == y.shape and dtype_name(a) == dtype_name(b)
        if not (same and close(x, y, rtol)):
            raise AssertionError(f"{what} {i}: mine\n{a}\nPyTorch's\n{b}")


def close(x: Any, y: Any, rtol: float) -> bool:
    x, y = (v.astype(np.float64) if v.dtype.kind in "fV" else v for v in (x, y))
    if x.dtype.kind not in "fc":
        return bool(np.array_equal(x, y))
    return bool(np.allclose(x, y, rtol, rtol, equal_nan=True))


def outcome(function: Callable[[], Any]) -> Any:
    """The result, or the class of the error."""
    try:
        return function()
    except ERRORS as error:
        return type(error)


def nodes_of(outs: Sequence[Any]) -> Iterator[Any]:
    """Every node behind the outputs, the youngest first."""
    found, stack = set(), [x.node for x in outs if x.node is not None]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += [p for p in node.parents if p is not None]
    return iter(sorted(found, key=lambda n: -n.born))


def numbers(shape: Any, seed: int = 0, low: float = -3.0, high: float = 3.0) -> Any:
    return np.random.default_rng(seed).uniform(low, high, shape)


def both(call: Callable[..., Any], *arrays: Any) -> None:
    """Value and gradient of a call, or the class of its error, agree in both frameworks."""
    mine, theirs = (outcome(lambda t=t: run(t, call, arrays)) for t in (tg, torch))
    if isinstance(mine, type) or isinstance(theirs, type):
        assert isinstance(mine, type) and isinstance(theirs, type), (
            f"mine {mine}, PyTorch's {theirs}"
        )
        assert issubclass(theirs, mine), f"mine {mine}, PyTorch's {theirs}"
        return
    assert_same(mine[0], theirs[0], what="value")
    assert_same(mine[1], theirs[1], what="gradient")
