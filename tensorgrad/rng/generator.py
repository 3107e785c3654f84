"""What every random generator offers: seeds and states, samplers that fill an array or make one.

`Generator` checks arguments, walks memory and transforms uniforms.  Its subclasses draw them.
"""

from __future__ import annotations

import math
import operator
import secrets
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from tensorgrad.rng import checks
from tensorgrad.rng.checks import Array, Shape

DEFAULT_SEED = 67280421310721  # of a PyTorch generator that was never seeded


class Generator:
    """A stream of random numbers and the distributions drawn from it.

    `Generator(device)` is a `MersenneGenerator` for "cpu" and a `PhiloxGenerator` for "cuda".
    Methods that end in an underscore fill the array they are given and return it.  They go through
    it in the order of memory, as PyTorch does: x.T receives what x would.  The other methods return
    a new array.
    """

    device: str
    _of_device: ClassVar[dict[str, type[Generator]]] = {}
    _seed: int
    _part: ClassVar[int] = 2**62  # elements filled at a time
    _state_bytes: ClassVar[int]

    # What a subclass draws: n numbers at a time, 1-D.  Seeds are from 0 to 2^64 - 1.
    _reseed: Callable[[int], None]
    _pack: Callable[[], bytes]  # the state
    _unpack: Callable[[bytes], None]
    _uniform: Callable[[int, Any], Array]  # (n, kind): float32 multiples of 2^-24, float64 of 2^-53
    _normal: Callable[[Array, float, float], None]  # (out, mean, std): fills `out`
    _normals: Callable[[int], Array]  # float64, the same however n is split over calls
    _integers: Callable[[int, int, bool], Array]  # (n, count, wide): uint64, of 32 or 64 bits
    _bernoulli: Callable[[int, float], Array]  # (n, p): bool
    _permutation: Callable[[int], Array]  # int64
    _scale: Callable[[Array, Any, Any], Array]  # (z, start, width): start + width z
    _function: Callable[[str, Array], Array]  # "log", "log1p", "exp" or "tan" of float64

    def __init_subclass__(cls, device: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        if device:
            cls._of_device[device] = cls

    def __new__(cls, device: object = "cpu") -> Generator:
        if cls is not Generator:
            return super().__new__(cls)
        kind = str(device).partition(":")[0]
        if kind not in cls._of_device:
            choice = " or ".join(cls._of_device)
            raise RuntimeError(f"Generator: device must be {choice}, not {str(device)!r}")
        return super().__new__(cls._of_device[kind])

    def __init__(self, device: object = "cpu") -> None:
        self.device = str(device)
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} device={self.device!r} seed={self.initial_seed()}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.clone_state()

    # Seeds and states

    def manual_seed(self, seed: int) -> Self:
        """Begin the stream of `seed`, from -2^63 to 2^64 - 1; negative seeds count down from 2^64.

        RuntimeError if it is no int, ValueError if it is out of range.
        """
        if isinstance(seed, bool | float | str):
            raise RuntimeError(f"manual_seed: expected an int, got {type(seed).__name__} {seed!r}")
        seed = operator.index(seed)
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f"manual_seed: {seed} lies outside -2^63 to 2^64 - 1")
        with self._lock:
            self._reseed(seed % 2**64)
        return self

    def seed(self) -> int:
        """Begin a stream with a seed from the operating system, and return that seed."""
        self.manual_seed(secrets.randbits(53))
        return self.initial_seed()

    def initial_seed(self) -> int:
        """The seed that the stream began with."""
        return self._seed

    def get_state(self) -> NDArray[np.uint8]:
        """The state as a 1-D array of bytes."""
        with self._lock:
            return np.frombuffer(self._pack(), np.uint8).copy()

    def set_state(self, state: Array) -> Self:
        """Continue from a state of `get_state`.  TypeError unless uint8, RuntimeError if none."""
        state = np.asarray(state)
        if state.dtype != np.uint8:
            raise TypeError(f"set_state: expected an array of uint8, got {state.dtype}")
        if state.size != self._state_bytes:
            kind = type(self).__name__
            raise RuntimeError(
                f"set_state: a state of {kind} has {self._state_bytes} bytes, got {state.size}"
            )
        with self._lock:
            self._unpack(state.tobytes())
        return self

    def clone_state(self) -> Self:
        """Another generator, at the same place of the same stream."""
        return type(self)(self.device).set_state(self.get_state())

    def get_offset(self) -> int:
        """The blocks a counter-based generator has used up.  RuntimeError from the others."""
        raise RuntimeError(f"get_offset: {type(self).__name__} has no offset; use get_state")

    def set_offset(self, offset: int) -> None:
        """Move a counter-based generator along its stream.  RuntimeError from the others."""
        raise RuntimeError(f"set_offset: {type(self).__name__} has no offset; use set_state")

    # Fill an array in place

    def uniform_(self, out: Array, low: float = 0.0, high: float = 1.0) -> Array:
        """out ~ U[low, high).  RuntimeError if low > high or the dtype cannot hold the range."""
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
        with self._lock, self._place():
            self._normal(out, mean, std)
        return out

    def trunc_normal_(
        self, out: Array, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
    ) -> Array:
        """out ~ N(mean, std^2) given a <= out <= b, by rejection.

        Of normals if more than 0.3 of them pass, else of uniforms from a to b.  RuntimeError if
        a > b or std < 0; a warning if the mean is more than two std outside.
        """
        if not a - 2 * std <= mean <= b + 2 * std:
            message = f"trunc_normal_: mean={mean} is more than two std={std} from [{a}, {b}]"
            warnings.warn(message, stacklevel=2)
        kind = out.dtype.type
        low, high, centre, spread = kind(a), kind(b), kind(mean), kind(std)
        peak = kind(-0.5 * ((max(a, min(mean, b)) - mean) / std) ** 2)
        passing = _normal_cdf((b - mean) / std) - _normal_cdf((a - mean) / std)

        def draw(sample: Array) -> Array:
            """Fill `sample`; True where an element is refused."""
            if passing > 0.3:
                self.normal_(sample, mean, std)
                return (sample < low) | (sample > high)
            self.uniform_(sample, a, b)
            height = ((sample - centre) / spread) ** 2 * kind(-0.5) - peak
            u = self.uniform_(self.xp.empty_like(sample)).astype(np.float64)
            with np.errstate(divide="ignore"):
                return self._function("log", u).astype(out.dtype) > height

        refused = draw(out)
        while refused.any():
            again = self.xp.empty_like(out)
            still = draw(again)
            out[refused] = again[refused]
            refused &= still
        return out

    def random_(self, out: Array, low: int | None = None, high: int | None = None) -> Array:
        """out ~ the integers low, ..., high - 1, all alike.

        Without `high`: up to the dtype's largest, 2^digits for floats.  RuntimeError if the range
        is empty or the dtype cannot hold it.
        """
        first, count = checks.integer_range(out, low, high)
        wide = count >= 2**28 and not (low is None and out.dtype == np.int32)
        start = np.uint64(first % 2**64)

        def values(n: int) -> Array:
            return (self._integers(n, count, wide) + start).view(np.int64)

        return self._fill("random_", out, values)

    def bernoulli_(self, out: Array, p: Any = 0.5) -> Array:
        """out = 1 with probability p, else 0.

        `p` is a number, or a floating array that broadcasts to `out`.  RuntimeError if a
        probability lies outside [0, 1].
        """
        if not hasattr(p, "shape") or isinstance(p, np.generic):
            if not 0 <= p <= 1:
                raise RuntimeError(f"bernoulli_: p must be between 0 and 1, got {p}")
            return self._fill("bernoulli_", out, lambda n: self._bernoulli(n, float(p)))
        kind = checks.computed_in(p)
        p = checks.probabilities(p, out.shape).transpose(checks.memory_order(out))
        limits = self._parts(p.reshape(-1).astype(kind))
        return self._fill("bernoulli_", out, lambda n: self._uniform(n, kind) < next(limits))

    def exponential_(self, out: Array, lambd: float = 1.0) -> Array:
        """out = -log(1 - u) / lambd.  RuntimeError unless lambd > 0."""
        checks.floating("exponential_", out)
        checks.positive("exponential_", lambd=lambd)

        def values(n: int) -> Array:
            return (-1 / lambd) * self._function("log1p", -self._uniform(n, np.float64))

        return self._fill("exponential_", out, values)

    def log_normal_(self, out: Array, mean: float = 1.0, std: float = 2.0) -> Array:
        """log(out) ~ N(mean, std^2).  RuntimeError unless std > 0."""
        checks.floating("log_normal_", out)
        checks.positive("log_normal_", std=std)

        def values(n: int) -> Array:
            with np.errstate(over="ignore"):
                return self._function("exp", self._scale(self._normals(n), mean, std))

        return self._fill("log_normal_", out, values)

    def cauchy_(self, out: Array, median: float = 0.0, sigma: float = 1.0) -> Array:
        """out = median + sigma tan(pi (u - 1/2)).  RuntimeError unless sigma > 0."""
        checks.floating("cauchy_", out)
        checks.positive("cauchy_", sigma=sigma)

        def values(n: int) -> Array:
            angle = math.pi * (self._uniform(n, np.float64) - 0.5)
            return self._scale(self._function("tan", angle), median, sigma)

        return self._fill("cauchy_", out, values)

    def geometric_(self, out: Array, p: float) -> Array:
        """out = ceil(log u / log(1 - p)), the trials up to the first success.

        RuntimeError unless 0 < p < 1.
        """
        checks.number("geometric_", out.dtype)
        if not 0 < p < 1:
            raise RuntimeError(f"geometric_: p must lie between 0 and 1, got {p}")

        def values(n: int) -> Array:
            with np.errstate(divide="ignore"):
                log_u = self._function("log", self._uniform(n, np.float64))
            return np.ceil(log_u / math.log1p(-p))

        return self._fill("geometric_", out, values)

    # Make an array

    def rand(self, shape: Shape, dtype: Any = np.float32) -> Array:
        """Uniform on [0, 1)."""
        return self.uniform_(self._empty("rand", shape, dtype))

    def randn(self, shape: Shape, dtype: Any = np.float32) -> Array:
        """Standard normal."""
        return self.normal_(self._empty("randn", shape, dtype))

    def randint(self, low: int, high: int, shape: Shape, dtype: Any = np.int64) -> Array:
        """The integers low, ..., high - 1, all alike."""
        out = self._empty("randint", shape, dtype)
        return self.random_(out, operator.index(low), operator.index(high))

    def bernoulli(self, p: Array) -> Array:
        """1 with the probability in each element of `p`, else 0; in the shape and dtype of `p`."""
        return self.bernoulli_(self._empty("bernoulli", p.shape, p.dtype), p)

    def dropout_mask(self, shape: Shape, p: float, like: Array | None = None) -> Array:
        """True where an element is kept, with probability 1 - p.  ValueError if p is not in [0, 1].

        Draws what PyTorch's dropout draws: nothing if p is 0 or 1.  PyTorch lays the noise out in
        memory as the input: give the input as `like` unless it is C-contiguous.
        """
        if not 0 <= p <= 1:
            raise ValueError(f"dropout: p must be between 0 and 1, got {p}")
        mask = self._empty("dropout", shape, np.bool_, like)
        if 0 < p < 1:
            return self.bernoulli_(mask, 1 - p)
        mask[...] = p == 0
        return mask

    def randperm(self, n: int, dtype: Any = np.int64) -> Array:
        """0, ..., n - 1 in random order.  RuntimeError if n < 0 or the dtype cannot hold n - 1."""
        n, dtype = operator.index(n), np.dtype(dtype)
        checks.permutation(n, dtype)
        with self._lock, self._place():
            return self._permutation(n).astype(dtype, copy=False)

    def multinomial(self, probs: Array, num_samples: int, replacement: bool = False) -> Array:
        """Indices with the weights in each row of `probs`, (V) -> (k) or (B, V) -> (B, k), int64.

        One sample, or several without replacement, is a race: the k largest of p / q, q ~ Exp(1).
        Several with replacement fall into the normalised cumulative sum.  RuntimeError if weights
        are negative, not finite or all zero, or if fewer than num_samples of them are above zero
        and none is replaced.  (Among halves equal p / q are common, and their order is our own.)
        """
        checks.multinomial(probs, num_samples, replacement)
        if probs.shape[0] == 0:
            return self._empty("multinomial", (0, num_samples), np.int64)
        if replacement and num_samples > 1:
            return self._search(probs, num_samples)
        xp = self.xp
        race = self.exponential_(self._empty("multinomial", probs.shape, probs.dtype, like=probs))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            race = (probs / race).astype(checks.computed_in(probs), copy=False)
        if num_samples == 1:
            return race.argmax(-1)[..., None]
        winners = xp.argpartition(-race, num_samples - 1, axis=-1)[..., :num_samples]
        order = xp.argsort(-xp.take_along_axis(race, winners, -1), axis=-1)
        return xp.take_along_axis(winners, order, -1)

    def _search(self, probs: Array, k: int) -> Array:
        """The places at which k float64 uniforms a row fall into the row's cumulative sum."""
        xp = self.xp
        sums = probs.astype(checks.computed_in(probs)).cumsum(-1)
        sums /= sums[..., -1:].copy()
        sums[..., -1] = 1
        rows = sums.reshape(-1, probs.shape[-1]).astype(np.float64)
        with self._lock, self._place():
            u = self._uniform(len(rows) * k, np.float64).reshape(-1, k)
        places = [xp.searchsorted(row, sample) for row, sample in zip(rows, u, strict=True)]
        return xp.stack(places).reshape(*probs.shape[:-1], k).astype(np.int64)

    # How arrays are made and walked

    @property
    def xp(self) -> Any:
        """The array library of this generator's device."""
        if self.device == "cpu":
            return np
        from tensorgrad.backend import cupy

        return cupy()

    def _place(self) -> AbstractContextManager[Any]:
        """Within it, new arrays arise on this generator's device."""
        return nullcontext()

    def _empty(self, op: str, shape: Shape, dtype: Any, like: Array | None = None) -> Array:
        with self._place():
            if like is not None:
                return self.xp.empty_like(like, dtype=dtype)
            return self.xp.empty(checks.shape(op, shape), dtype)

    def _fill(self, op: str, out: Array, values: Callable[[int], Array]) -> Array:
        """out = values(n), part after part in the order of memory; halves round through float32."""
        checks.target(op, out, self.device)
        ordered = out if out.flags.c_contiguous else out.transpose(checks.memory_order(out))
        dense = ordered.flags.c_contiguous
        with self._lock, self._place():
            flat = ordered.reshape(-1) if dense else self.xp.empty(out.size, out.dtype)
            for part in self._parts(flat):
                new = values(part.size)
                if new.dtype == np.float64 and checks.is_half(out):
                    new = new.astype(np.float32)
                part[...] = new
            if not dense:
                ordered[...] = flat.reshape(ordered.shape)
        return out

    def _parts(self, flat: Array) -> Iterator[Array]:
        return (flat[start : start + self._part] for start in range(0, flat.size, self._part))


def _normal_cdf(x: float) -> float:
    return (1 + math.erf(x / math.sqrt(2))) / 2
