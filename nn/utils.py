"""Gradients clipped, and parameters as one vector: torch.nn.utils."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tensorgrad import memory
from tensorgrad.backend import device_of, move, xp_of
from tensorgrad.dtypes import get_default_dtype
from tensorgrad.ops.shape import cat
from tensorgrad.tensor import Tensor

Tensors = Tensor | Iterable[Tensor]


def get_total_norm(
    tensors: Tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """(sum |x|^p)^(1/p) over all elements of all tensors, 0-d; for p = norm_type infinite, max |x|.

    RuntimeError for a norm that is nan or infinite, if error_if_nonfinite.
    """
    arrays = [x.array for x in _listed(tensors)]
    p = float(norm_type)
    if not arrays:
        return Tensor(np.zeros((), get_default_dtype()))
    xp, where = xp_of(arrays[0]), device_of(arrays[0])
    norms = xp.stack([move(_norm(array, p), where) for array in arrays])
    total = Tensor(xp.asarray(_norm(norms, p)))
    if error_if_nonfinite and not xp.isfinite(total.array):
        raise RuntimeError(
            f"clip_grad_norm_: the total norm of order {p} is non-finite ({total.item()}), so the "
            "gradients cannot be clipped; with error_if_nonfinite=False they are scaled by it"
        )
    return total


def _norm(array: Any, p: float) -> Any:
    """The p-norm of an array, 0-d; half types are summed in float32."""
    xp = xp_of(array)
    x = array.astype(np.float32) if array.dtype.itemsize == 2 else array
    if p == 2 and x.dtype.kind == "f" and x.flags.c_contiguous:
        norm = xp.sqrt(xp.dot(x.reshape(-1), x.reshape(-1)))  # no temporary as large as x
    elif p == math.inf:
        norm = abs(x).max() if x.size else 0
    elif p == 0:
        norm = xp.count_nonzero(x)
    else:
        norm = (abs(x) ** p).sum() ** (1 / p)
    return xp.asarray(norm).astype(array.real.dtype)


def clip_grads_with_norm_(parameters: Tensors, max_norm: float, total_norm: Tensor) -> None:
    """grad *= min(1, max_norm / (total_norm + 1e-6)), in place."""
    total = total_norm.array
    xp = xp_of(total)
    factor = xp.asarray(xp.minimum(float(max_norm) / (total + 1e-6), 1))
    # On a GPU a look at the factor would cost more than the product.
    if isinstance(factor, np.ndarray) and factor == 1:
        return
    for grad in _grads(parameters):
        grad *= move(factor, device_of(grad)).astype(grad.dtype)
        memory.stamp(grad)


def clip_grad_norm_(
    parameters: Tensors, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """grad *= min(1, max_norm / (norm + 1e-6)), in place; returns the norm of all gradients, 0-d.

    Pascanu, Mikolov and Bengio 2013.  RuntimeError for a norm that is nan or infinite, if
    error_if_nonfinite.
    """
    parameters = _listed(parameters)
    grads = [Tensor(grad) for grad in _grads(parameters)]
    total = get_total_norm(grads, norm_type, error_if_nonfinite)
    clip_grads_with_norm_(parameters, max_norm, total)
    return total


def clip_grad_value_(parameters: Tensors, clip_value: float) -> None:
    """grad = max(-v, min(grad, v)), in place."""
    bound = float(clip_value)
    for grad in _grads(parameters):
        xp_of(grad).clip(grad, -bound, bound, out=grad)
        memory.stamp(grad)


def parameters_to_vector(parameters: Tensors) -> Any:
    """All elements of all parameters, one after another, in one dimension; differentiable."""
    return cat([parameter.reshape(-1) for parameter in _listed(parameters)])


def vector_to_parameters(vec: Tensor, parameters: Tensors) -> None:
    """The parameters become views of the vector, in order.  RuntimeError if the counts differ."""
    if not isinstance(vec, Tensor):
        raise TypeError(f"vector_to_parameters: expected a Tensor, not {type(vec).__name__}")
    parameters = _listed(parameters)
    count = sum(parameter.numel() for parameter in parameters)
    if vec.shape != (count,):
        raise RuntimeError(
            f"vector_to_parameters: a vector of shape {vec.shape} for {count} elements"
        )
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.data = Tensor(vec.array[start:end].reshape(parameter.shape))
        start = end


def _listed(tensors: Tensors) -> list[Tensor]:
    if isinstance(tensors, Tensor):
        return [tensors]
    listed = list(tensors)
    if not listed and isinstance(tensors, Iterator):
        warnings.warn(
            "an iterator without parameters was given: used up before? nothing is done",
            stacklevel=3,
        )
    return listed


def _grads(parameters: Tensors) -> list[Any]:
    """The gradients' arrays, of those that have one."""
    return [x.grad.array for x in _listed(parameters) if x.grad is not None]
