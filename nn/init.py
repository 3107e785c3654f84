"""Initial values, written in place without grad: torch.nn.init's draws in the same order."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from tensorgrad.backend import xp_of
from tensorgrad.mode import no_grad
from tensorgrad.ops.choices import where
from tensorgrad.random import randperm
from tensorgrad.tensor import Tensor

F = TypeVar("F", bound=Callable[..., Any])


def _unrecorded(function: F) -> F:
    """The function under no_grad."""
    return no_grad()(function)


# ---- constants


@_unrecorded
def constant_(tensor: Tensor, val: float) -> Tensor:
    """x = val"""
    return tensor.fill_(val)  # type: ignore[no-any-return]


def ones_(tensor: Tensor) -> Tensor:
    """x = 1"""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """x = 0"""
    return constant_(tensor, 0.0)


@_unrecorded
def eye_(tensor: Tensor) -> Tensor:
    """x[i, j] = 1 where i = j, else 0.  ValueError unless x is 2-d."""
    _check_dims("eye_", tensor, tensor.ndim == 2, "2")
    tensor.zero_()
    for i in range(min(tensor.shape)):
        tensor[i, i] = 1
    return tensor


@_unrecorded
def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """x[o, i, middle] = 1 where o = i, in each group: a convolution that hands its channels on.

    x (out, in, k), (out, in, k1, k2) or (out, in, k1, k2, k3).  ValueError for other shapes.
    """
    _check_dims("dirac_", tensor, tensor.ndim in (3, 4, 5), "3, 4 or 5")
    if tensor.shape[0] % groups:
        raise ValueError(
            f"dirac_: {tensor.shape[0]} output channels do not divide into {groups} groups"
        )
    outs = tensor.shape[0] // groups
    middle = tuple(k // 2 for k in tensor.shape[2:])
    tensor.zero_()
    for group in range(groups):
        for i in range(min(outs, tensor.shape[1])):
            tensor[(group * outs + i, i, *middle)] = 1
    return tensor


# ---- draws


@_unrecorded
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """x ~ U[a, b)"""
    return tensor.uniform_(a, b, generator=generator)  # type: ignore[no-any-return]


@_unrecorded
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """x ~ N(mean, std^2)"""
    return tensor.normal_(mean, std, generator=generator)  # type: ignore[no-any-return]


@_unrecorded
def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
    generator: Any = None,
) -> Tensor:  # fmt: skip
    """x ~ N(mean, std^2), drawn anew wherever it falls outside [a, b].

    Where less than 0.3 of the normal's weight lies in [a, b]: x ~ U[a, b), kept with the odds of
    the density to its peak.
    """
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            f"trunc_normal_: mean {mean} is more than 2 std ({std}) away from [{a}, {b}]; "
            "the distribution may be wrong",
            stacklevel=3,
        )

    def below(x: float) -> float:
        return (1 + math.erf((x - mean) / std / math.sqrt(2))) / 2

    if below(b) - below(a) > 0.3:
        low, high = (tensor.dtype.type(bound).item() for bound in (a, b))
        tensor.normal_(mean, std, generator=generator)
        while (outside := (tensor < low) | (tensor > high)).any():
            tensor.copy_(
                where(outside, _like(tensor).normal_(mean, std, generator=generator), tensor)
            )
        return tensor
    peak = -0.5 * ((max(a, min(mean, b)) - mean) / std) ** 2

    def refused(x: Tensor) -> Any:
        log_density = ((x - mean) / std) ** 2 * -0.5 - peak
        return _like(x).uniform_(generator=generator).log() > log_density

    tensor.uniform_(a, b, generator=generator)
    pending = refused(tensor)
    while pending.any():
        candidates = _like(tensor).uniform_(a, b, generator=generator)
        tensor.copy_(where(pending, candidates, tensor))
        pending = pending & refused(candidates)
    return tensor


def _like(tensor: Tensor) -> Tensor:
    return Tensor(xp_of(tensor.array).empty_like(tensor.array))


# ---- draws that keep the scale of activations and gradients

_GAINS = {"tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}
_LINEAR = {"linear", "sigmoid"} | {f"conv{t}{d}d" for t in ("", "_transpose") for d in (1, 2, 3)}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor on the weights before a nonlinearity: 1 for linear, 5/3 for tanh, sqrt 2 for relu,
    sqrt(2 / (1 + param^2)) for leaky_relu of slope param.

    ValueError for a nonlinearity it does not know.
    """
    if nonlinearity in _LINEAR:
        return 1.0
    if nonlinearity == "leaky_relu":
        if param is not None and (isinstance(param, bool) or not isinstance(param, (int, float))):
            raise ValueError(
                f"calculate_gain: leaky_relu's negative slope is a number, not {param!r}"
            )
        return math.sqrt(2.0 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in _GAINS:
        known = ", ".join(sorted(_LINEAR | set(_GAINS) | {"leaky_relu"}))
        raise ValueError(
            f"calculate_gain: unsupported nonlinearity {nonlinearity!r}; choose from {known}"
        )
    return _GAINS[nonlinearity]


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """Inputs per output and outputs per input: of (out, in, ...), in * rest and out * rest."""
    _check_dims("fan in and fan out", tensor, tensor.ndim >= 2, "2 or more")
    rest = math.prod(tensor.shape[2:])
    return tensor.shape[1] * rest, tensor.shape[0] * rest


def _fan(tensor: Tensor, mode: str) -> int:
    modes = ("fan_in", "fan_out")
    if mode.lower() not in modes:
        raise ValueError(f"kaiming: mode {mode!r} is not supported, please use one of {modes}")
    return _calculate_fan_in_and_fan_out(tensor)[modes.index(mode.lower())]


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """x ~ U[-a, a), a = gain sqrt(6 / (fan_in + fan_out)).  Glorot and Bengio 2010."""
    a = gain * math.sqrt(2.0 / sum(_calculate_fan_in_and_fan_out(tensor))) * math.sqrt(3.0)
    return uniform_(tensor, -a, a, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """x ~ N(0, std^2), std = gain sqrt(2 / (fan_in + fan_out)).  Glorot and Bengio 2010."""
    return normal_(
        tensor, 0.0, gain * math.sqrt(2.0 / sum(_calculate_fan_in_and_fan_out(tensor))), generator
    )


def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:  # fmt: skip
    """x ~ U[-b, b), b = gain sqrt(3 / fan); `a` is leaky_relu's slope.  He et al. 2015."""
    if _is_empty(tensor):
        return tensor
    bound = math.sqrt(3.0) * (calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode)))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:  # fmt: skip
    """x ~ N(0, std^2), std = gain / sqrt(fan); `a` is leaky_relu's slope.  He et al. 2015."""
    if _is_empty(tensor):
        return tensor
    std = calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode))
    return normal_(tensor, 0.0, std, generator)


def _is_empty(tensor: Tensor) -> bool:
    if 0 in tensor.shape:
        warnings.warn("kaiming: a tensor without elements stays as it is", stacklevel=3)
        return True
    return False


# ---- structured draws


@_unrecorded
def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> Tensor:
    """x with orthonormal rows or columns, whichever are fewer, times gain; x (rows, ...).

    Saxe et al. 2013.
    """
    _check_dims("orthogonal_", tensor, tensor.ndim >= 2, "2 or more")
    if not tensor.numel():
        return tensor
    rows = tensor.shape[0]
    x, xp = _like(tensor.reshape(rows, -1)).normal_(generator=generator).array, xp_of(tensor.array)
    wide = x.shape[0] < x.shape[1]
    q, r = xp.linalg.qr(x.T if wide else x)
    q = q * xp.sign(xp.diagonal(r))  # makes the distribution uniform: Mezzadri 2006
    tensor.copy_(Tensor((q.T if wide else q).reshape(tensor.shape))).mul_(gain)
    return tensor


@_unrecorded
def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """x ~ N(0, std^2), but 0 for the share `sparsity` of each column.  Martens 2010."""
    _check_dims("sparse_", tensor, tensor.ndim == 2, "2")
    rows, columns = tensor.shape
    tensor.normal_(0, std, generator=generator)
    for column in range(columns):
        tensor[randperm(rows)[: math.ceil(sparsity * rows)], column] = 0
    return tensor


def _check_dims(name: str, tensor: Tensor, good: bool, wanted: str) -> None:
    if not good:
        raise ValueError(
            f"{name}: only tensors with {wanted} dimensions are supported, "
            f"this one has shape {tensor.shape}"
        )
