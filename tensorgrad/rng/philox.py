"""Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011): random bits as a function of a seed and a counter.

The same bits from NumPy and CuPy, and the same numbers: logarithms and angles are computed here from + - * / and sqrt,
which round alike everywhere.  `words(seed, offset, n)` is pure: nothing is consumed, so a step can be played again.
"""

from __future__ import annotations

import math
import operator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from types import ModuleType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tensorgrad.rng import checks
from tensorgrad.rng.generator import Array, Generator

ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85  # added to the key before each round but the first

HALF, LOW = np.uint64(32), np.uint64(2**32 - 1)

CUDA = r"""
extern "C" __global__
void philox(unsigned int* out, unsigned long long n, unsigned long long seed, unsigned long long offset) {
    unsigned long long i = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x;
    if (4 * i >= n) return;
    unsigned long long counter = offset + i;
    unsigned int a = counter, b = counter >> 32, c = 0, d = 0, k = seed, l = seed >> 32;
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
    """Ten rounds on blocks of four 32-bit words, a uint64 array for each word of the block."""
    a, b, c, d = counter
    first, second = key
    for _ in range(ROUNDS):
        p, q = a * np.uint64(MULTIPLIERS[0]), c * np.uint64(MULTIPLIERS[1])
        a, b = q >> HALF ^ b ^ np.uint64(first), q & LOW
        c, d = p >> HALF ^ d ^ np.uint64(second), p & LOW
        first, second = (first + WEYL[0]) % 2**32, (second + WEYL[1]) % 2**32
    return a, b, c, d


def words(seed: int, offset: int, n: int, xp: ModuleType = np) -> Array:
    """n uint32: element 4 i + j is word j of block offset + i.  The key is the seed, the counter (block, 0)."""
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
        place = np.arange(len(part), dtype=np.uint64) + np.uint64(offset + start)
        zero = np.zeros_like(place)
        block = philox4x32((place & LOW, place >> HALF, zero, zero), (seed % 2**32, seed >> 32))
        for j, word in enumerate(block):
            part[:, j] = word
    return out.reshape(-1)[:n]


@cache
def _cuda() -> Any:
    import cupy

    return cupy.RawKernel(CUDA, "philox")


# Numbers from words


def wide(word: Array) -> Array:
    """uint32 words, two by two, as uint64: the first is the upper half."""
    return word[0::2].astype(np.uint64) << HALF | word[1::2]


def uniform(seed: int, offset: int, shape: checks.Shape, dtype: Any = np.float32, xp: ModuleType = np) -> Array:
    """U[0, 1) with 24 bits of one word (float32) or 53 bits of two (float64)."""
    return _shaped(_uniform, seed, offset, shape, dtype, xp)


def normal(seed: int, offset: int, shape: checks.Shape, dtype: Any = np.float32, xp: ModuleType = np) -> Array:
    """N(0, 1) by Box and Muller: of two draws, sqrt(-2 log u) cos t and sqrt(-2 log u) sin t."""
    return _shaped(_normal, seed, offset, shape, dtype, xp)


def integers(seed: int, offset: int, shape: checks.Shape, low: int, high: int, xp: ModuleType = np) -> Array:
    """low, ..., high - 1, int64: low + draw mod (high - low), with draws of 64 bits.  RuntimeError if low >= high."""
    if low >= high:
        raise RuntimeError(f"integers: expected low < high, got low={low} and high={high}")
    sizes = checks.shape("integers", shape)
    draws = wide(words(seed, offset, 2 * math.prod(sizes), xp))
    return (_below(draws, high - low) + np.uint64(low % 2**64)).view(np.int64).reshape(sizes)


def bernoulli(seed: int, offset: int, shape: checks.Shape, p: float, xp: ModuleType = np) -> Array:
    """True with probability p: word < 2^32 p.  ValueError if p is outside [0, 1]."""
    if not 0 <= p <= 1:
        raise ValueError(f"bernoulli: p must be between 0 and 1, got {p}")
    sizes = checks.shape("bernoulli", shape)
    return _under(words(seed, offset, math.prod(sizes), xp), p).reshape(sizes)


def dropout_mask(seed: int, offset: int, shape: checks.Shape, p: float, xp: ModuleType = np) -> Array:
    """True where an element is kept, with probability 1 - p.  ValueError if p is outside [0, 1]."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must be between 0 and 1, got {p}")
    return bernoulli(seed, offset, shape, 1 - p, xp)


def _shaped(make: Any, seed: int, offset: int, shape: checks.Shape, dtype: Any, xp: ModuleType) -> Array:
    sizes, dtype = checks.shape("philox", shape), np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise RuntimeError(f"philox: expected float32 or float64, got {dtype}")
    n = math.prod(sizes)
    return make(words(seed, offset, _length(n, dtype), xp), n, dtype).reshape(sizes)


def _length(n: int, dtype: Any) -> int:
    """The words that n uniforms take, or n normals: enough for whole pairs."""
    return (n + n % 2) * (2 if dtype == np.float64 else 1)


def _below(draws: Array, count: int) -> Array:
    return draws if count == 2**64 else draws % np.uint64(count)


def _under(word: Array, p: float) -> Array:
    limit = math.ceil(p * 2.0**32)
    return word < np.uint32(limit) if limit < 2**32 else word == word
