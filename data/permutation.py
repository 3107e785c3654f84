"""A seeded permutation of 0 .. n-1 that is a formula: no table, any place of it at once."""

from __future__ import annotations

from typing import Any

import numpy as np

Numbers = np.ndarray[tuple[int, ...], np.dtype[Any]]
ROUNDS = 7


def permuted(places: Numbers, n: int, seed: int, epoch: int) -> Numbers:
    """pi(i) for each place i, where pi permutes 0 .. n-1 and depends on seed and epoch.

    A Feistel network (l, r) -> (r, l ^ f(r)) over the smallest even number of bits that holds n,
    applied again where the result is n or more.  Luby & Rackoff 1988; Black & Rogaway 2002.
    """
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    shift = np.uint64(half)
    keys = round_keys(seed, epoch)
    out = np.asarray(places, np.uint64).copy()
    active = np.arange(out.size)
    while active.size:
        value = out[active]
        left, right = value >> shift, value & mask
        for key in keys:
            left, right = right, left ^ (mixed(right + key) & mask)
        out[active] = value = (left << shift) | right
        active = active[value >= n]
    return out.astype(np.int64)


def round_keys(seed: int, epoch: int) -> Numbers:
    """One 64-bit key for each round."""
    start = np.array([seed % 2**64, epoch % 2**64], np.uint64)
    base = mixed(mixed(start[:1]) + start[1:])
    return mixed(base + np.arange(1, ROUNDS + 1, dtype=np.uint64) * GOLDEN)


GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mixed(x: Numbers) -> Numbers:
    """splitmix64's finaliser: a bit of x changes every bit of the result.  Steele et al. 2014."""
    x = x + GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    out: Numbers = x ^ (x >> np.uint64(31))
    return out
