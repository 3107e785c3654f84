"""What every random generator offers: seeds and states, samplers that fill an array, samplers that make one.

`Generator` checks arguments, walks memory and transforms uniforms; a subclass draws them (mersenne.py, philox.py).
"""

from __future__ import annotations

import math
import operator
import secrets
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, ClassVar, Self

import numpy as np

from tensorgrad.rng import checks
from tensorgrad.rng.checks import Array, Shape


class Generator(ABC):
    """A stream of random numbers and the distributions drawn from it.

    `Generator(device)` is a `MersenneGenerator` for "cpu" and a `PhiloxGenerator` for "cuda".  Methods that end in
    an underscore fill the array they are given and return it.  They go through it in the order of memory, as
    PyTorch does: x.T receives what x would.  The other methods return a new array.
    """

    device: str
    _of_device: ClassVar[dict[str, type[Generator]]] = {}
    _part: ClassVar[int] = 2**62  # elements filled at a time

    def __init_subclass__(cls, device: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        if device:
            cls._of_device[device] = cls

    def __new__(cls, device: object = "cpu") -> Generator:
        kind = str(device).partition(":")[0]
        if cls is Generator and kind not in cls._of_device:
            raise RuntimeError(f"Generator: no device {str(device)!r}; choose one of {', '.join(cls._of_device)}")
        return super().__new__(cls._of_device[kind] if cls is Generator else cls)

    def __init__(self, device: object = "cpu") -> None:
        self.device = str(device)
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} device={self.device!r} seed={self.initial_seed()}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.clone_state()

    # Seeds and states

    def manual_seed(self, seed: int) -> Self:
        """Begin the stream of `seed`, an int from -2^63 to 2^64 - 1 (negative ones count down from 2^64)."""
        if isinstance(seed, bool | float | str):
            raise RuntimeError(f"manual_seed: expected an int, got {seed!r} of type {type(seed).__name__}")
        seed = operator.index(seed)
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f"manual_seed: {seed} lies outside -2^63 to 2^64 - 1")
        with self._lock:
            self._reseed(seed % 2**64)
        return self

    def seed(self) -> int:
        """Begin a stream with a seed from the operating system, and return that seed."""
        return self.manual_seed(secrets.randbits(53)).initial_seed()

    def clone_state(self) -> Self:
        """Another generator, at the same place of the same stream."""
        return type(self)(self.device).set_state(self.get_state())

    @abstractmethod
    def initial_seed(self) -> int:
        """The seed that the stream began with."""

    @abstractmethod
    def get_state(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The state as a 1-D uint8 array."""

    @abstractmethod
    def set_state(self, state: Array) -> Self:
        """Continue from a state of `get_state`.  TypeError if it is not uint8, RuntimeError if it is no state."""

    @abstractmethod
    def get_offset(self) -> int:
        """How far along its stream a counter-based generator is.  RuntimeError on other generators."""

    @abstractmethod
    def set_offset(self, offset: int) -> None:
        """Move a counter-based generator along its stream.  RuntimeError on other generators."""

    # Fill an array in place

    def uniform_(self, out: Array, low: float = 0.0, high: float = 1.0) -> Array:
        """out ~ U[low, high).  RuntimeError if low > high, or a bound or the width is beyond the dtype."""
        checks.uniform(out, low, high)
        kind = checks.computed_in(out)
        if (low, high) == (0, 1) and kind == out.dtype:
            return self._fill("uniform_", out, lambda n: self._uniform(n, kind))
        start, width = kind(low), kind(high) - kind(low)
        first, last = (float(np.asarray(kind(bound)).astype(out.dtype)) for bound in (low, high))

        def values(n: int) -> Array:
            u = self._scale(self._uniform(n, kind), start, width).astype(out.dtype, copy=False)
            u[u == last] = first  # rounding may have reached the upper bound
            return u

        return self._fill("uniform_", out, values)

    def normal_(self, out: Array, mean: float = 0.0, std: float = 1.0) -> Array:
        """out ~ N(mean, std^2).  RuntimeError if std < 0."""
        checks.floating("normal_", out)
        if not std >= 0:
            raise RuntimeError(f"normal_: std must be at least 0, got {std}")
        checks.target("normal_", out, self.device)
        with self._lock:
            self._normal(out, mean, std)
        return out

    def trunc_normal_(
        self, out: Array, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
    ) -> Array:
        """out ~ N(mean, std^2) given a <= out <= b, by rejection: from normals, or from uniforms if few would pass.

        RuntimeError if a > b or std < 0.
        """
        if not a - 2 * std <= mean <= b + 2 * std:
            message = f"trunc_normal_: mean={mean} is more than two std from [{a}, {b}]; the distribution may be off"
            warnings.warn(message, stacklevel=2)
        below_a, below_b = (math.erf((bound - mean) / std / math.sqrt(2)) / 2 for bound in (a, b))
        kind = out.dtype.type
        low, high, centre, spread = kind(a), kind(b), kind(mean), kind(std)
        peak = kind(-0.5 * ((max(a, min(mean, b)) - mean) / std) ** 2)

        def draw(sample: Array) -> Array:
            """Fill `sample`; True where an element is refused."""
            if below_b - below_a > 0.3:
                self.normal_(sample, mean, std)
                return (sample < low) | (sample > high)
            self.uniform_(sample, a, b)
            height = ((sample - centre) / spread) ** 2 * kind(-0.5) - peak
            u = self.uniform_(self.xp.empty_like(sample))
            with np.errstate(divide="ignore"):
                return self._function("log", u.astype(np.float64)).astype(out.dtype) > height

        refused = draw(out)
        while refused.any():
            again = self.xp.empty_like(out)
            still = draw(again)
            out[refused] = again[refused]
            refused &= still
        return out

    def random_(self, out: Array, low: int | None = None, high: int | None = None) -> Array:
        """out ~ the integers low, ..., high - 1, all alike.

        Without `high`: up to the largest of the dtype (2^digits for floats).  RuntimeError if the range is empty or
        does not fit the dtype.
        """
        low_, count = checks.integer_range(out, low, high)
        wide = count >= 2**28 and not (low is None and out.dtype == np.int32)
        start = np.uint64(low_ % 2**64)
        return self._fill("random_", out, lambda n: (self._integers(n, count, wide) + start).view(np.int64))

    def bernoulli_(self, out: Array, p: Any = 0.5) -> Array:
        """out = 1 with probability p, else 0.  `p` is a number, or a floating array that broadcasts to `out`.

        RuntimeError if a probability lies outside [0, 1].
        """
        if not hasattr(p, "shape") or isinstance(p, np.generic):
            if not 0 <= p <= 1:
                raise RuntimeError(f"bernoulli_: p must be between 0 and 1, got {p}")
            return self._fill("bernoulli_", out, lambda n: self._bernoulli(n, float(p)))
        kind = checks.computed_in(p)
        limits = checks.probabilities(p, out.shape).transpose(checks.memory_order(out)).reshape(-1).astype(kind)
        parts = self._parts(limits)
        return self._fill("bernoulli_", out, lambda n: self._uniform(n, kind) < next(parts))

    def exponential_(self, out: Array, lambd: float = 1.0) -> Array:
        """out = -log(1 - u) / lambd.  RuntimeError unless lambd > 0."""
        checks.floating("exponential_", out)
        checks.positive("exponential_", lambd=lambd)
        return self._fill("exponential_", out, lambda n: (-1 / lambd) * self._function("log1p", -self._uniform(n, np.float64)))

    def log_normal_(self, out: Array, mean: float = 1.0, std: float = 2.0) -> Array:
        """log(out) ~ N(mean, std^2).  RuntimeError unless std > 0."""
        checks.floating("log_normal_", out)
        checks.positive("log_normal_", std=std)
        return self._fill("log_normal_", out, lambda n: self._function("exp", self._scale(self._normals(n), mean, std)))

    def cauchy_(self, out: Array, median: float = 0.0, sigma: float = 1.0) -> Array:
        """out = median + sigma tan(pi (u - 1/2)).  RuntimeError unless sigma > 0."""
        checks.floating("cauchy_", out)
        checks.positive("cauchy_", sigma=sigma)

        def values(n: int) -> Array:
            return self._scale(self._function("tan", math.pi * (self._uniform(n, np.float64) - 0.5)), median, sigma)

        return self._fill("cauchy_", out, values)

    def geometric_(self, out: Array, p: float) -> Array:
        """out = ceil(log u / log(1 - p)), the trials up to the first success.  RuntimeError unless 0 < p < 1."""
        checks.number("geometric_", out.dtype)
        if not 0 < p < 1:
            raise RuntimeError(f"geometric_: p must lie between 0 and 1, got {p}")
        return self._fill("geometric_", out, lambda n: np.ceil(self._function("log", self._uniform(n, np.float64)) / math.log1p(-p)))

    # Make an array

    def rand(self, shape: Shape, dtype: Any = np.float32) -> Array:
        """Uniform on [0, 1)."""
        return self.uniform_(self._empty("rand", shape, dtype))

    def randn(self, shape: Shape, dtype: Any = np.float32) -> Array:
        """Standard normal."""
        return self.normal_(self._empty("randn", shape, dtype))

    def randint(self, low: int, high: int, shape: Shape, dtype: Any = np.int64) -> Array:
        """The integers low, ..., high - 1, all alike."""
        return self.random_(self._empty("randint", shape, dtype), operator.index(low), operator.index(high))

    def bernoulli(self, p: Array) -> Array:
        """1 with the probability in each element of `p`, else 0; in the shape and dtype of `p`."""
        return self.bernoulli_(self._empty("bernoulli", p.shape, p.dtype), p)

    def dropout_mask(self, shape: Shape, p: float, like: Array | None = None) -> Array:
        """True where an element is kept, with probability 1 - p.

        Consumes what PyTorch's dropout consumes: nothing for p = 0 and p = 1.  There the noise has the memory layout
        of the input, so give the input as `like` unless it is C-contiguous.  ValueError if p is outside [0, 1].
        """
        if not 0 <= p <= 1:
            raise ValueError(f"dropout: p must be between 0 and 1, got {p}")
        mask = self._empty("dropout", shape, np.bool_, like)
        if 0 < p < 1:
            return self.bernoulli_(mask, 1 - p)
        mask[...] = p == 0
        return mask

    def randperm(self, n: int, dtype: Any = np.int64) -> Array:
        """0, ..., n - 1 in random order.  RuntimeError if n < 0 or the dtype cannot count so far."""
        n, dtype = operator.index(n), np.dtype(dtype)
        checks.permutation(n, dtype)
        with self._lock:
            return self._permutation(n).astype(dtype, copy=False)

    def multinomial(self, probs: Array, num_samples: int, replacement: bool = False) -> Array:
        """Indices drawn with the weights in each row of `probs`, (V) -> (k) or (B, V) -> (B, k), int64.

        One sample, or several without replacement, is a race: the k largest of p / q with q ~ Exp(1).  Several with
        replacement fall into the normalised cumulative sum.  RuntimeError if weights are negative, not finite or
        all zero, or if fewer than num_samples of them are above zero and none is replaced.
        """
        checks.multinomial(probs, num_samples, replacement)
        if probs.shape[0] == 0:
            return self._empty("multinomial", (0, num_samples), np.int64)
        if replacement and num_samples > 1:
            return self._search(probs, num_samples)
        race = self.exponential_(self._empty("multinomial", probs.shape, probs.dtype, like=probs))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            race = (probs / race).astype(checks.computed_in(probs), copy=False)
        if num_samples == 1:
            return race.argmax(-1)[..., None]
        winners = (-race).argpartition(num_samples - 1, axis=-1)[..., :num_samples]
        order = (-self.xp.take_along_axis(race, winners, -1)).argsort(-1)
        return self.xp.take_along_axis(winners, order, -1)

    def _search(self, probs: Array, k: int) -> Array:
        """The places at which k float64 uniforms a row fall into the row's cumulative sum."""
        cumulative = probs.astype(checks.computed_in(probs)).cumsum(-1)
        cumulative /= cumulative[..., -1:].copy()
        cumulative[..., -1] = 1
        rows = cumulative.reshape(-1, probs.shape[-1])
        with self._lock:
            u = self._uniform(len(rows) * k, np.float64).reshape(-1, k)
        found = [self.xp.searchsorted(row.astype(np.float64), sample) for row, sample in zip(rows, u, strict=True)]
        return self.xp.stack(found).reshape(*probs.shape[:-1], k).astype(np.int64)

    # How arrays are made and walked

    @property
    def xp(self) -> ModuleType:
        """The array module of this generator's device."""
        if self.device == "cpu":
            return np
        import cupy

        module: ModuleType = cupy
        return module

    def _empty(self, op: str, shape: Shape, dtype: Any, like: Array | None = None) -> Array:
        if like is not None:
            return self.xp.empty_like(like, dtype=dtype)
        return self.xp.empty(checks.shape(op, shape), dtype)

    def _fill(self, op: str, out: Array, values: Callable[[int], Array]) -> Array:
        """out = values(n), part after part in the order of memory.  Half types are rounded by way of float32."""
        checks.target(op, out, self.device)
        ordered = out if out.flags.c_contiguous else out.transpose(checks.memory_order(out))
        dense = ordered.flags.c_contiguous
        flat = ordered.reshape(-1) if dense else self.xp.empty(out.size, out.dtype)
        with self._lock:
            for part in self._parts(flat):
                new = values(part.size)
                part[...] = new.astype(np.float32) if new.dtype == np.float64 and checks.is_half(out) else new
        if not dense:
            ordered[...] = flat.reshape(ordered.shape)
        return out

    def _parts(self, flat: Array) -> Iterator[Array]:
        return (flat[start : start + self._part] for start in range(0, flat.size, self._part))

    # What a subclass draws

    @abstractmethod
    def _reseed(self, seed: int) -> None:
        """Begin the stream of a seed from 0 to 2^64 - 1."""

    @abstractmethod
    def _uniform(self, n: int, kind: Any) -> Array:
        """n uniforms in [0, 1), multiples of 2^-24 (kind float32) or 2^-53 (float64)."""

    @abstractmethod
    def _normal(self, out: Array, mean: float, std: float) -> None:
        """Fill `out` from N(mean, std^2)."""

    @abstractmethod
    def _normals(self, n: int) -> Array:
        """n float64 standard normals, independent of how n is split over calls."""

    @abstractmethod
    def _integers(self, n: int, count: int, wide: bool) -> Array:
        """n uint64 integers below count <= 2^64, of a 32-bit draw each or (wide) of a 64-bit draw."""

    @abstractmethod
    def _bernoulli(self, n: int, p: float) -> Array:
        """n bools, true with probability p."""

    @abstractmethod
    def _permutation(self, n: int) -> Array:
        """0, ..., n - 1 in random order, int64."""

    @abstractmethod
    def _scale(self, z: Array, start: Any, width: Any) -> Array:
        """start + width z."""

    @abstractmethod
    def _function(self, name: str, x: Array) -> Array:
        """log, log1p, exp or tan of float64 numbers."""
