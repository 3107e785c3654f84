"""PyTorch's CPU generator, bit for bit: MT19937 (Matsumoto and Nishimura 1998) and what ATen makes of its draws.

float32 takes 24 bits of one 32-bit draw, float64 53 bits of two; the first draw of a pair is its upper half.
"""

from __future__ import annotations

import math
import sys
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tensorgrad.rng import checks
from tensorgrad.rng.boxmuller import box_muller, scale
from tensorgrad.rng.exact import libm
from tensorgrad.rng.generator import Array, Generator

N = 624  # words of state
LOW_24, LOW_53 = np.uint32(2**24 - 1), np.uint64(2**53 - 1)
HALF_WORD, UNIT_24, UNIT_53 = np.uint64(32), np.float32(2.0**-24), 2.0**-53
DEFAULT_SEED = 67280421310721  # of a PyTorch generator that was never seeded
STATE = np.dtype(
    [
        ("seed", np.uint64), ("left", np.int32), ("seeded", np.int32), ("next", np.uint64),
        ("words", np.uint64, N), ("normal_x", np.float64), ("normal_y", np.float64), ("normal_rho", np.float64),
        ("normal_is_valid", np.int32), ("next_float", np.float32), ("next_float_is_valid", np.bool_),
    ],
    align=True,
)  # fmt: skip


class MersenneGenerator(Generator, device="cpu"):
    """The stream of `torch.Generator()`: the same seed and the same calls give the same numbers.

    Its state has PyTorch's layout, 5056 bytes, so states travel both ways.  float32 normals equal those of PyTorch's
    vector code on x86; PyTorch on other processors may differ in the last place.
    """

    _part = 2**14

    def __init__(self, device: object = "cpu") -> None:
        super().__init__(device)
        self._engine = np.random.MT19937(0)
        self._seeder = np.random.RandomState(self._engine)
        self._reseed(DEFAULT_SEED)

    # Seeds and states

    def _reseed(self, seed: int) -> None:
        self._seed = seed
        self._seeder.seed(seed & 0xFFFFFFFF)
        self._untouched = True  # PyTorch tells a fresh state from one that has used up its words
        self._spare: float | None = None  # the second normal of a pair, waiting for its turn

    def initial_seed(self) -> int:
        return self._seed

    def get_state(self) -> NDArray[np.uint8]:
        engine = self._engine.state["state"]
        place = 0 if self._untouched else engine["pos"]
        state = np.zeros((), STATE)
        state["seed"], state["seeded"], state["words"] = self._seed, 1, engine["key"]
        state["next"], state["left"] = place, 1 if self._untouched else N + 1 - place
        if self._spare is not None:
            state["normal_is_valid"], state["normal_y"] = 1, self._spare
        return np.frombuffer(state.tobytes(), np.uint8).copy()

    def set_state(self, state: Array) -> Self:
        state = np.asarray(state)
        if state.dtype != np.uint8:
            raise TypeError(f"set_state: expected an array of uint8, got {state.dtype}")
        if state.size != STATE.itemsize:
            raise RuntimeError(f"set_state: a state of this generator has {STATE.itemsize} bytes, got {state.size}")
        new = np.frombuffer(state.tobytes(), STATE)[0]
        left, place = int(new["left"]), int(new["next"])
        untouched = (left, place) == (1, 0)
        if new["seeded"] != 1 or not (untouched or (1 <= left <= N and left + place == N + 1)):
            raise RuntimeError("set_state: these bytes are no state of an MT19937 generator")
        key = new["words"].astype(np.uint32)
        with self._lock:
            self._engine.state = {
                "bit_generator": "MT19937",
                "state": {"key": key, "pos": N if untouched else place},
            }
            self._seed, self._untouched = int(new["seed"]), untouched
            self._spare = float(new["normal_y"]) if new["normal_is_valid"] else None
        return self

    def get_offset(self) -> int:
        raise RuntimeError("get_offset: a Mersenne twister has no offset; use get_state, or a PhiloxGenerator")

    def set_offset(self, offset: int) -> None:
        raise RuntimeError("set_offset: a Mersenne twister has no offset; use set_state, or a PhiloxGenerator")

    # Draws

    def _words(self, n: int) -> NDArray[np.uint64]:
        """n draws of 32 bits."""
        self._untouched = self._untouched and n == 0
        return self._engine.random_raw(n)  # type: ignore[return-value]

    def _wide_words(self, n: int) -> NDArray[np.uint64]:
        """n draws of 64 bits."""
        pairs = self._words(2 * n)
        wide = pairs[0::2] << HALF_WORD
        wide |= pairs[1::2]
        return wide

    def _uniform(self, n: int, kind: Any) -> Array:
        if kind == np.float32:
            digits = self._words(n).astype(np.uint32)
            digits &= LOW_24
            u = digits.view(np.int32).astype(np.float32)
            u *= UNIT_24
            return u
        wide = self._wide_words(n)
        wide &= LOW_53
        return wide.view(np.int64) * UNIT_53

    def _integers(self, n: int, count: int, wide: bool) -> Array:
        words = self._wide_words(n) if wide else self._words(n)
        return words if count == 2**64 else words % np.uint64(count)

    def _bernoulli(self, n: int, p: float) -> Array:
        """53-bit uniform < p, compared as integers."""
        wide = self._wide_words(n)
        wide &= LOW_53
        return wide < np.uint64(math.ceil(p * 2.0**53))

    def _normal(self, out: Array, mean: float, std: float) -> None:
        if out.size < 16 or not out.flags.c_contiguous:
            self._fill("normal_", out, lambda n: scale(self._normals(n), mean, std))
            return
        flat, kind = out.reshape(-1), checks.computed_in(out)
        rest = flat.size % 16
        for start in range(0, flat.size - rest, 2 * self._part):
            part = flat[start : flat.size - rest][: 2 * self._part]
            u = self._uniform(part.size, kind)
            if rest and start + part.size + rest == flat.size:
                if not checks.is_half(out):  # PyTorch draws for the ragged end, and again for the last sixteen
                    self._uniform(rest, kind)
                u = np.concatenate((u, self._uniform(16, kind)))
            z = self._blocks(u, mean, std, flat.size)
            part[...] = z[: part.size]
            if z.size > part.size:
                flat[-16:] = z[-16:]

    def _blocks(self, u: Array, mean: float, std: float, total: int) -> Array:
        """Normals from blocks of sixteen uniforms: eight for radii, eight for angles; eight cosines, eight sines."""
        z = u.reshape(-1, 2, 8)
        radii, angles = z.swapaxes(0, 1).reshape(2, -1)
        if u.dtype == np.float32 and _worth_a_twin(total):
            from tensorgrad.rng import twins

            twins.box_muller(radii, angles, np.float32(mean), np.float32(std))
        else:
            radii, angles = (scale(part, mean, std) for part in box_muller(radii, angles))
        z[:, 0], z[:, 1] = radii.reshape(-1, 8), angles.reshape(-1, 8)
        return u

    def _normals(self, n: int) -> Array:
        """Pair after pair, r = sqrt(-2 log(1 - u2)) and t = 2 pi u1: r cos t, then r sin t, kept if it is one too many."""
        spare = [] if self._spare is None or n == 0 else [self._spare]
        missing = n - len(spare)
        angle, radius = self._uniform(missing + missing % 2, np.float64).reshape(-1, 2).T
        radius = np.sqrt(-2.0 * libm("log1p")(-radius))
        theta = 2.0 * math.pi * angle
        pairs = np.stack((radius * libm("cos")(theta), radius * libm("sin")(theta)), axis=1).reshape(-1)
        if n:
            self._spare = float(pairs[-1]) if missing % 2 else None
        return np.concatenate((spare, pairs[:missing]))

    def _permutation(self, n: int) -> Array:
        if n < (2**32 - 1) // 20:
            return self._swapped(n)
        from tensorgrad.rng import twins

        order = np.empty(n, np.int64)
        for start in range(0, n, 2**20):
            places = np.arange(start, min(start + 2**20, n), dtype=np.int64)
            places = (self._wide_words(places.size) % (places + 1).view(np.uint64)).view(np.int64)
            twins.insert_forward(order, places, start)
        return order

    def _swapped(self, n: int) -> Array:
        """Fisher and Yates: element i changes places with one of the n - i from i on."""
        left = np.arange(n, 1, -1, dtype=np.uint64)
        offsets = (self._words(left.size) % left).view(np.int64)
        if n >= 2**17:
            from tensorgrad.rng import twins

            order = np.arange(n)
            twins.swap_forward(order, offsets, 0)
            return order
        swapped = list(range(n))
        for i, offset in enumerate(offsets.tolist()):
            swapped[i], swapped[i + offset] = swapped[i + offset], swapped[i]
        return np.array(swapped, np.int64)

    # Arithmetic

    def _scale(self, z: Array, start: Any, width: Any) -> Array:
        return scale(z, start, width)

    def _function(self, name: str, x: Array) -> Array:
        return libm(name)(x)


def _worth_a_twin(n: int) -> bool:
    """Importing and compiling Numba takes a second or two: only for the largest arrays, or if it is here already."""
    return n >= (2**20 if "numba" in sys.modules else 2**22)
