"""What a sampler may be asked for, and the order in which it goes through memory.

The limits are PyTorch's, and so are the classes of the errors.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

Array = Any  # a numpy.ndarray or a cupy.ndarray
Shape = int | Sequence[int]

INTEGERS = ("uint8", "int8", "int16", "int32", "int64")
UNSIGNED = ("uint16", "uint32", "uint64")
DIGITS = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}
"""Bits of the significand, the hidden one included."""
LARGEST = {
    "bfloat16": (2 - 2**-7) * 2.0**127,
    "float16": 65504.0,
    "float32": (2 - 2**-23) * 2.0**127,
    "float64": float(np.finfo(np.float64).max),
}


@cache
def name_of(dtype: Any) -> str:
    """`dtype.name`, which NumPy puts together anew each time it is asked."""
    return str(dtype.name)


def computed_in(out: Array) -> Any:
    """The type in which samples for `out` arise: float64 for itself, else float32."""
    return np.float64 if out.dtype == np.float64 else np.float32


def is_half(out: Array) -> bool:
    return name_of(out.dtype) in ("float16", "bfloat16")


def memory_order(out: Array) -> list[int]:
    """The axes from the longest stride to the shortest: transposed so, `out` is read as it lies."""
    return sorted(range(out.ndim), key=lambda axis: -abs(out.strides[axis]))


def floating(op: str, out: Array) -> None:
    if name_of(out.dtype) not in DIGITS:
        raise RuntimeError(f"{op}: expected a floating dtype, got {name_of(out.dtype)}")


def number(op: str, dtype: Any) -> None:
    if name_of(dtype) not in DIGITS and name_of(dtype) not in INTEGERS:
        raise RuntimeError(f"{op}: expected an integer or floating dtype, got {name_of(dtype)}")


def positive(op: str, **parameter: float) -> None:
    ((name, value),) = parameter.items()
    if not value > 0:
        raise RuntimeError(f"{op}: {name} must be greater than 0, got {value}")


def shape(op: str, sizes: Shape) -> tuple[int, ...]:
    each: Any = (sizes,) if hasattr(sizes, "__index__") else sizes
    result = tuple(map(operator.index, each))
    if any(size < 0 for size in result):
        raise RuntimeError(f"{op}: a size in {result} is negative")
    return result


def target(op: str, out: Array, device: str) -> None:
    """An array must live where the generator does, and its elements apart from each other."""
    if isinstance(out, np.ndarray) != (device == "cpu"):
        kind = type(out).__module__.partition(".")[0]
        raise RuntimeError(
            f"{op}: a generator on {device!r} cannot fill a {kind} array; use one on its device"
        )
    if 0 in out.strides and any(
        stride == 0 and size > 1 and out.size
        for stride, size in zip(out.strides, out.shape, strict=True)
    ):
        raise RuntimeError(
            f"{op}: elements of this expanded {out.shape} array share memory; copy it first"
        )


def uniform(out: Array, low: float, high: float) -> None:
    floating("uniform_", out)
    if low == 0 and high == 1:
        return
    name = name_of(out.dtype)
    for part, value in (("low", low), ("high", high), ("high - low", abs(high - low))):
        if not -LARGEST[name] <= value <= LARGEST[name]:
            raise RuntimeError(f"uniform_: {part}={value} is out of bounds for {name}")
    if low > high:
        raise RuntimeError(f"uniform_: the range from low={low} to high={high} is empty")


def integer_range(out: Array, low: int | None, high: int | None) -> tuple[int, int]:
    """(first, how many): the integers that `random_` chooses from.

    A bound that a floating dtype would round outwards moves inwards; one beyond the integers that
    it holds exactly warns.
    """
    name = name_of(out.dtype)
    digits = DIGITS.get(name)
    if digits is None and name not in (*INTEGERS, *UNSIGNED, "bool"):
        raise RuntimeError(f"random_: expected an integer, floating or boolean dtype, got {name}")
    first = 0 if low is None else operator.index(low)
    if high is None and first == -(2**63):
        if name not in ("int64", "float64", "float32", "bfloat16"):
            raise RuntimeError(f"random_: {name} cannot hold every 64-bit integer; use int64")
        return 0, 2**64  # a draw, read as a signed integer, is the number itself
    least, most = _limits(name)
    end = operator.index(high) if high is not None else 1 + (2**digits if digits else int(most))
    if first >= end:
        raise RuntimeError(f"random_: expected low < high, got low={first} and high={end}")
    if digits:
        first = _exact_from(first, digits)
        end = end if high is None else _exact_to(end, digits)
        if first >= end:
            raise RuntimeError(f"random_: {name} holds no integer from low={low} up to high={high}")
    for side, bound in (("low", first), ("high - 1", end - 1)):
        if not least <= bound <= most:
            raise RuntimeError(f"random_: {side}={bound} is out of bounds for {name}")
        if digits and abs(bound) > 2**digits:
            message = f"random_: {side}={bound} is beyond 2^{digits}: {name} skips integers there"
            warnings.warn(message, stacklevel=4)
    return first, end - first


def _limits(name: str) -> tuple[float, float]:
    if name in LARGEST:
        return -LARGEST[name], LARGEST[name]
    if name == "bool":
        return 0, 1
    return int(np.iinfo(name).min), min(int(np.iinfo(name).max), 2**63 - 1)


def _rounded(value: int, digits: int) -> tuple[int, int]:
    """`value` rounded to `digits` bits, ties to even, and the distance to the next number there."""
    step = 1 << max(abs(value).bit_length() - digits, 0)
    return round(Fraction(value, step)) * step, step


def _exact_from(first: int, digits: int) -> int:
    nearest, step = _rounded(first + 1, digits)
    return nearest + step if nearest < first else first


def _exact_to(end: int, digits: int) -> int:
    nearest, step = _rounded(end - 1, digits)
    # Where the rounded bound overflows int64 PyTorch's comparison fails, and the bound stays.
    return nearest - step if end <= nearest < 2**63 else end


def probabilities(p: Array, shape: tuple[int, ...]) -> Array:
    """`p` broadcast to `shape`, if its elements are probabilities."""
    floating("bernoulli_", p)
    if p.size and not ((p >= 0) & (p <= 1)).all():
        raise RuntimeError(
            f"bernoulli_: probabilities must be between 0 and 1, got {p.min()} to {p.max()}"
        )
    try:
        return p if p.shape == shape else np.broadcast_to(p, shape)
    except ValueError:
        raise RuntimeError(
            f"bernoulli_: probabilities of shape {p.shape} do not broadcast to {shape}"
        ) from None


def permutation(n: int, dtype: Any) -> None:
    number("randperm", dtype)
    name = name_of(dtype)
    if n < 0:
        raise RuntimeError(f"randperm: n must be at least 0, got {n}")
    room = 1 + (2 ** DIGITS[name] if name in DIGITS else int(np.iinfo(dtype).max))
    if n > room:
        raise RuntimeError(f"randperm: {name} has room for n={room}, got n={n}; use a wider dtype")


def multinomial(probs: Array, num_samples: int, replacement: bool) -> None:
    floating("multinomial", probs)
    if probs.ndim not in (1, 2):
        raise RuntimeError(f"multinomial: expected shape (V) or (B, V), got {probs.shape}")
    categories = probs.shape[-1]
    if num_samples <= 0:
        raise RuntimeError(f"multinomial: num_samples must be at least 1, got {num_samples}")
    if not replacement and num_samples > categories:
        raise RuntimeError(
            f"multinomial: {num_samples} samples of {categories} categories need replacement=True"
        )
    if categories > 2**24:
        raise RuntimeError(f"multinomial: {categories} categories are more than 2^24")
    if not ((probs >= 0) & (probs < np.inf)).all():
        raise RuntimeError("multinomial: a probability is negative, infinite or NaN")
    above = (probs > 0).sum(-1)
    if (above == 0).any():
        raise RuntimeError("multinomial: the probabilities of a row sum to 0")
    if not replacement and (above < num_samples).any():
        raise RuntimeError(
            f"multinomial: only {int(above.min())} probabilities of a row are above 0, fewer than "
            f"num_samples={num_samples}; draw fewer, or set replacement=True"
        )
