"""Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011): random numbers of a seed and a place.

The same bits from NumPy and CuPy.  Nothing is consumed by the functions here: a step of training
can be played again from its (seed, offset).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import numpy as np

from tensorgrad.rng import checks, portable
from tensorgrad.rng.checks import Array, Shape
from tensorgrad.rng.generator import DEFAULT_SEED, Generator

ROUNDS = 10
MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL = 0x9E3779B9, 0xBB67AE85  # added to the key from round to round
HALF, LOW = np.uint64(32), np.uint64(2**32 - 1)

CUDA = r"""
extern "C" __global__
void philox(unsigned int* out, unsigned long long n,
            unsigned long long seed, unsigned long long offset) {
    unsigned long long i = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x;
    if (4 * i >= n) return;
    unsigned long long place = offset + i;
    unsigned int a = place, b = place >> 32, c = 0, d = 0, k = seed, l = seed >> 32;
    for (int round = 0; round < 10; ++round) {
        unsigned long long p = 0xD2511F53ull * a, q = 0xCD9E8D57ull * c;
        a = (unsigned int)(q >> 32) ^ b ^ k;
        b = q;
        c = (unsigned int)(p >> 32) ^ d ^ l;
        d = p;
        k += 0x9E3779B9u;
        l += 0xBB67AE85u;
    }
    unsigned int block[4] = {a, b, c, d};
    for (int j = 0; j < 4 && 4 * i + j < n; ++j) out[4 * i + j] = block[j];
}
"""


def philox4x32(counter: tuple[Array, ...], key: tuple[int, int]) -> tuple[Array, ...]:
    """Ten rounds on blocks of four 32-bit words, one uint64 array for each word of the blocks."""
    a, b, c, d = counter
    first, second = key
    for _ in range(ROUNDS):
        p, q = a * MULTIPLIERS[0], c * MULTIPLIERS[1]
        a, b = q >> HALF ^ b ^ np.uint64(first), q & LOW
        c, d = p >> HALF ^ d ^ np.uint64(second), p & LOW
        first, second = (first + WEYL[0]) % 2**32, (second + WEYL[1]) % 2**32
    return a, b, c, d


def words(seed: int, offset: int, n: int, xp: Any = np) -> Array:
    """n uint32: element 4 i + j is word j of the block of key `seed` and counter offset + i."""
    blocks = -(-n // 4)
    if xp is not np:
        out = xp.empty(n, np.uint32)
        if n:
            arguments = out, np.uint64(n), np.uint64(seed), np.uint64(offset)
            _cuda()((-(-blocks // 128),), (128,), arguments)
        return out
    out = np.empty((blocks, 4), np.uint32)
    for start in range(0, blocks, 2**12):  # as many as stay in the cache
        part = out[start : start + 2**12]
        place = np.arange(len(part), dtype=np.uint64) + np.uint64((offset + start) % 2**64)
        zero = np.zeros_like(place)
        counter = place & LOW, place >> HALF, zero, zero
        for j, word in enumerate(philox4x32(counter, (seed % 2**32, seed >> 32))):
            part[:, j] = word
    return out.reshape(-1)[:n]


@cache
def _cuda() -> Any:
    import cupy

    return cupy.RawKernel(CUDA, "philox")


def uniform(seed: int, offset: int, shape: Shape, dtype: Any = np.float32, xp: Any = np) -> Array:
    """U[0, 1), of 24 bits of one word (float32) or 53 bits of two (float64)."""
    sizes, dtype = _float("uniform", shape, dtype)
    n = math.prod(sizes)
    return _uniform(words(seed, offset, _length(n, dtype), xp), n, dtype).reshape(sizes)


def normal(seed: int, offset: int, shape: Shape, dtype: Any = np.float32, xp: Any = np) -> Array:
    """N(0, 1): of two draws, r cos t and r sin t with r = sqrt(-2 log u).  Box and Muller 1958."""
    sizes, dtype = _float("normal", shape, dtype)
    n = math.prod(sizes)
    return _normal(words(seed, offset, _length(n, dtype), xp), n, dtype).reshape(sizes)


def integers(seed: int, offset: int, shape: Shape, low: int, high: int, xp: Any = np) -> Array:
    """int64 low + draw mod (high - low), with draws of 64 bits.  RuntimeError if low >= high."""
    if low >= high:
        raise RuntimeError(f"integers: expected low < high, got low={low} and high={high}")
    sizes = checks.shape("integers", shape)
    draws = _below(_wide(words(seed, offset, 2 * math.prod(sizes), xp)), high - low)
    return (draws + np.uint64(low % 2**64)).view(np.int64).reshape(sizes)


def bernoulli(seed: int, offset: int, shape: Shape, p: float, xp: Any = np) -> Array:
    """True with probability p: word < 2^32 p.  RuntimeError if p is outside [0, 1]."""
    if not 0 <= p <= 1:
        raise RuntimeError(f"bernoulli: p must be between 0 and 1, got {p}")
    sizes = checks.shape("bernoulli", shape)
    return _under(words(seed, offset, math.prod(sizes), xp), p).reshape(sizes)


def dropout_mask(seed: int, offset: int, shape: Shape, p: float, xp: Any = np) -> Array:
    """True where an element is kept, with probability 1 - p.  ValueError if p is outside [0, 1]."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must be between 0 and 1, got {p}")
    return bernoulli(seed, offset, shape, 1 - p, xp)


def _float(op: str, shape: Shape, dtype: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise RuntimeError(f"{op}: expected float32 or float64, got {dtype}")
    return checks.shape(op, shape), dtype


def _length(n: int, dtype: Any) -> int:
    """The words that n uniforms or n normals take, in whole pairs."""
    return (n + n % 2) * (2 if dtype == np.float64 else 1)


def _wide(word: Array) -> Array:
    """Two by two as uint64, the first the upper half."""
    return word[0::2].astype(np.uint64) << HALF | word[1::2]


def _uniform(word: Array, n: int, dtype: Any) -> Array:
    if dtype == np.float64:
        return (_wide(word)[:n] >> np.uint64(11)).view(np.int64) * 2.0**-53
    return (word[:n] >> np.uint32(8)).view(np.int32).astype(np.float32) * np.float32(2.0**-24)


def _normal(word: Array, n: int, dtype: Any) -> Array:
    real = dtype.type
    draw = _wide(word) if dtype == np.float64 else word
    u = (draw[0::2].astype(dtype) + real(0.5)) * real(2.0 ** (-8 * dtype.itemsize))  # in (0, 1]
    radius = np.sqrt(portable.log(u) * real(-2))
    cosine, sine = portable.circle(draw[1::2])
    return np.stack((radius * cosine, radius * sine), axis=1).reshape(-1)[:n]


def _below(draws: Array, count: int) -> Array:
    return draws if count == 2**64 else draws % np.uint64(count)


def _under(word: Array, p: float) -> Array:
    limit = math.ceil(p * 2.0**32)
    return word < np.uint32(limit) if limit < 2**32 else word == word


class PhiloxGenerator(Generator, device="cuda"):
    """A stream on a counter: the same numbers on every device, from any place of the stream.

    Each sampler takes whole blocks of four words from its offset on, and moves it.  A state is the
    seed and the offset, 16 bytes.  Numbers agree bit for bit across devices, except `multinomial`
    with replacement: a GPU adds up cumulative sums in another order.
    """

    _state_bytes = 16

    def __init__(self, device: object = "cuda") -> None:
        super().__init__(device)
        self._reseed(DEFAULT_SEED)

    def _reseed(self, seed: int) -> None:
        self._seed, self._offset = seed, 0

    def _pack(self) -> bytes:
        return np.array([self._seed, self._offset], np.uint64).tobytes()

    def _unpack(self, state: bytes) -> None:
        self._seed, self._offset = np.frombuffer(state, np.uint64).tolist()

    def get_offset(self) -> int:
        """The blocks used up since the seed was set."""
        return self._offset

    def set_offset(self, offset: int) -> None:
        offset = operator.index(offset)
        if not 0 <= offset < 2**64:
            raise RuntimeError(f"set_offset: {offset} lies outside 0 to 2^64 - 1")
        self._offset = offset

    def _place(self) -> AbstractContextManager[Any]:
        if self.device == "cpu":
            return nullcontext()
        index = int(self.device.partition(":")[2] or 0)
        place: AbstractContextManager[Any] = self.xp.cuda.Device(index)
        return place

    # Draws

    def _words(self, n: int) -> Array:
        start, self._offset = self._offset, (self._offset + -(-n // 4)) % 2**64
        return words(self._seed, start, n, self.xp)

    def _uniform(self, n: int, kind: Any) -> Array:
        return _uniform(self._words(_length(n, kind)), n, kind)

    def _normal(self, out: Array, mean: float, std: float) -> None:
        kind = checks.computed_in(out)

        def values(n: int) -> Array:
            z = _normal(self._words(_length(n, kind)), n, np.dtype(kind))
            return self._scale(z, kind(mean), kind(std))

        self._fill("normal_", out, values)

    def _normals(self, n: int) -> Array:
        return _normal(self._words(_length(n, np.float64)), n, np.dtype(np.float64))

    def _integers(self, n: int, count: int, wide: bool) -> Array:
        return _below(_wide(self._words(2 * n)), count)

    def _bernoulli(self, n: int, p: float) -> Array:
        return _under(self._words(n), p)

    def _permutation(self, n: int) -> Array:
        """The order of n draws of 64 bits."""
        return self.xp.argsort(_wide(self._words(2 * n)), kind="stable")

    # Arithmetic

    def _scale(self, z: Array, start: Any, width: Any) -> Array:
        return z * width + start

    def _function(self, name: str, x: Array) -> Array:
        if name == "log1p":
            return portable.log(1.0 + x)  # exact: x is a multiple of 2^-53 above -1
        function: Callable[[Array], Array] = getattr(portable, name)
        return function(x)
