"""Random tensors: on the CPU, PyTorch's numbers from the same seed; on the GPU, Philox."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.backend import device as Device
from tensorgrad.backend import xp_for
from tensorgrad.creation import made
from tensorgrad.dtypes import as_dtype, get_default_dtype, int64
from tensorgrad.ops.shape import sizes_of
from tensorgrad.tensor import Operable, Tensor

_generators: dict[str, Any] = {}


def generator_for(where: Any = "cpu", generator: Any = None) -> Any:
    """The generator given, or a device's default one: MT19937 on the CPU, Philox on the GPU."""
    if generator is not None:
        return generator
    kind = "cpu" if where is None else Device(where).type
    if kind not in _generators:
        from tensorgrad.rng import Generator

        _generators[kind] = Generator(kind)
        _generators[kind].manual_seed(_seed)
    return _generators[kind]


_seed = 67280421310721  # PyTorch's default seed


def manual_seed(seed: int) -> Any:
    """Seed the generators of every device; returns the CPU's."""
    global _seed
    _seed = int(seed)
    for generator in _generators.values():
        generator.manual_seed(_seed)
    return generator_for("cpu")


def initial_seed() -> int:
    """The seed in force."""
    return int(generator_for("cpu").initial_seed())


def seed() -> int:
    """Seed the CPU generator from the system's entropy; returns the seed."""
    return int(generator_for("cpu").seed())


def get_rng_state() -> Tensor:
    """The CPU generator's state as bytes, laid out as PyTorch's."""
    return Tensor(generator_for("cpu").get_state())


def set_rng_state(new_state: Any) -> None:
    generator_for("cpu").set_state(new_state.array if isinstance(new_state, Tensor) else new_state)


def use_philox(on: bool = True) -> None:
    """Draw the GPU's counter-based random numbers on the CPU, bit for bit, instead of PyTorch's."""
    from tensorgrad.rng import Generator, PhiloxGenerator

    _generators["cpu"] = (PhiloxGenerator("cpu") if on else Generator("cpu")).manual_seed(_seed)


def _float(dtype: Any) -> Any:
    return get_default_dtype() if dtype is None else as_dtype(dtype)


def rand(
    *size: Any,
    generator: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Uniform on [0, 1)."""
    return made(generator_for(device, generator).rand(sizes_of(size), _float(dtype)), requires_grad)


def randn(
    *size: Any,
    generator: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Normal with mean 0 and variance 1."""
    return made(
        generator_for(device, generator).randn(sizes_of(size), _float(dtype)), requires_grad
    )


def randint(
    low: int,
    high: Any = None,
    size: Any = None,
    *,
    generator: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Integers uniform on [low, high); randint(high, size) starts at 0."""
    if size is None:
        low, high, size = 0, low, high
    if high is None or size is None:
        raise TypeError("randint: takes (high, size) or (low, high, size)")
    dtype = int64 if dtype is None else as_dtype(dtype)
    return made(
        generator_for(device, generator).randint(int(low), int(high), tuple(size), dtype),
        requires_grad,
    )


def randperm(n: int, *, generator: Any = None, dtype: Any = None, device: Any = None) -> Tensor:
    """The numbers 0 to n-1 in random order."""
    return Tensor(
        generator_for(device, generator).randperm(n, int64 if dtype is None else as_dtype(dtype))
    )


def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Any = None) -> Tensor:
    """Normal with these means and standard deviations: numbers with a size, or tensors."""
    if size is None:
        shape = np.broadcast_shapes(*(v.shape for v in (mean, std) if isinstance(v, Operable)))
        return randn(shape, generator=generator) * std + mean  # type: ignore[no-any-return]
    out = xp_for(None).empty(tuple(size), get_default_dtype())
    return Tensor(generator_for(None, generator).normal_(out, mean, std))


def rand_like(x: Any, *, dtype: Any = None, generator: Any = None) -> Tensor:
    return rand(
        x.shape, dtype=x.dtype if dtype is None else dtype, device=x.device, generator=generator
    )


def randn_like(x: Any, *, dtype: Any = None, generator: Any = None) -> Tensor:
    return randn(
        x.shape, dtype=x.dtype if dtype is None else dtype, device=x.device, generator=generator
    )


def randint_like(x: Any, low: int, high: int | None = None, *, dtype: Any = None) -> Tensor:
    low, high = (0, low) if high is None else (low, high)
    return randint(low, high, x.shape, dtype=x.dtype if dtype is None else dtype, device=x.device)


def bernoulli(x: Any, *, generator: Any = None) -> Tensor:
    """Ones with the probabilities in x, zeros elsewhere."""
    return Tensor(generator_for(x.device, generator).bernoulli(x.array))


def multinomial(
    x: Any, num_samples: int, replacement: bool = False, *, generator: Any = None
) -> Tensor:
    """Indices drawn in proportion to x: (n,) or (m, n) -> (num_samples,) or (m, num_samples)."""
    return Tensor(generator_for(x.device, generator).multinomial(x.array, num_samples, replacement))


for _function in (bernoulli, multinomial):
    setattr(Operable, _function.__name__, _function)

__all__ = [
    "bernoulli", "get_rng_state", "initial_seed", "manual_seed", "multinomial", "normal", "rand",
    "rand_like", "randint", "randint_like", "randn", "randn_like", "randperm", "seed",
    "set_rng_state",
]  # fmt: skip
