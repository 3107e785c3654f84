"""PyTorch's CPU generator, bit for bit: MT19937 (Matsumoto and Nishimura 1998) and its use.

float32 takes 24 bits of one 32-bit draw, float64 53 bits of two, whose first is the upper half.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorgrad.rng import checks
from tensorgrad.rng.boxmuller import box_muller, scale
from tensorgrad.rng.checks import Array
from tensorgrad.rng.exact import libm
from tensorgrad.rng.generator import DEFAULT_SEED, Generator

N = 624  # words of state
STATE = np.dtype(
    [
        ("seed", np.uint64),
        ("left", np.int32),
        ("seeded", np.int32),
        ("next", np.uint64),
        ("words", np.uint64, N),
        ("normal_x", np.float64),  # this, rho and the float sample are kept for their room only
        ("normal_y", np.float64),
        ("normal_rho", np.float64),
        ("normal_is_valid", np.int32),
        ("next_float", np.float32),
        ("next_float_is_valid", np.bool_),
    ],
    align=True,
)
HALF, LOW_24, LOW_53 = np.uint64(32), np.uint32(2**24 - 1), np.uint64(2**53 - 1)
UNIT_24, UNIT_53 = np.float32(2.0**-24), 2.0**-53


class MersenneGenerator(Generator, device="cpu"):
    """The stream of `torch.Generator()`: the same seed and the same calls give the same numbers.

    Its states have PyTorch's layout, 5056 bytes, and travel both ways.  float32 normals equal those
    of PyTorch on x86; on other processors PyTorch itself may differ in the last place.
    """

    _part = 2**14
    _state_bytes = STATE.itemsize

    def __init__(self, device: object = "cpu") -> None:
        super().__init__(device)
        if self.device != "cpu":
            raise RuntimeError(f"MersenneGenerator: lives on 'cpu', not on {self.device!r}")
        self._engine = np.random.MT19937(0)
        self._seeder = np.random.RandomState(self._engine)
        self._reseed(DEFAULT_SEED)

    # States

    def _reseed(self, seed: int) -> None:
        self._seed = seed
        self._seeder.seed(seed & 0xFFFFFFFF)
        self._fresh = True  # PyTorch's states tell "no draw yet" from "all words used up"
        self._spare: float | None = None  # the second normal of a pair, waiting for its turn

    def _pack(self) -> bytes:
        engine = self._engine.state["state"]
        place = 0 if self._fresh else engine["pos"]
        state = np.zeros((), STATE)
        state["seed"], state["seeded"], state["words"] = self._seed, 1, engine["key"]
        state["next"], state["left"] = place, 1 if self._fresh else N + 1 - place
        if self._spare is not None:
            state["normal_is_valid"], state["normal_y"] = 1, self._spare
        return state.tobytes()

    def _unpack(self, state: bytes) -> None:
        new = np.frombuffer(state, STATE)[0]
        left, place = int(new["left"]), int(new["next"])
        fresh = (left, place) == (1, 0)
        used = left >= 1 and place >= 1 and left + place == N + 1
        if new["seeded"] != 1 or not (fresh or used):
            raise RuntimeError("set_state: these bytes are no state of an MT19937 generator")
        engine: Any = {"key": new["words"].astype(np.uint32), "pos": N if fresh else place}
        self._engine.state = {"bit_generator": "MT19937", "state": engine}
        self._seed, self._fresh = int(new["seed"]), fresh
        self._spare = float(new["normal_y"]) if new["normal_is_valid"] else None

    # Draws

    def _words(self, n: int) -> NDArray[np.uint64]:
        """n draws of 32 bits."""
        self._fresh = self._fresh and n == 0
        return np.asarray(self._engine.random_raw(n))

    def _wide_words(self, n: int) -> NDArray[np.uint64]:
        """n draws of 64 bits."""
        pairs = self._words(2 * n)
        wide: NDArray[np.uint64] = pairs[0::2] << HALF
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
        draws = self._wide_words(n) if wide else self._words(n)
        return draws if count == 2**64 else draws % np.uint64(count)

    def _bernoulli(self, n: int, p: float) -> Array:
        """A float64 uniform < p, compared as integers."""
        wide = self._wide_words(n)
        wide &= LOW_53
        return wide < np.uint64(math.ceil(p * 2.0**53))

    def _normal(self, out: Array, mean: float, std: float) -> None:
        """Sixteen by sixteen; one by one if there are fewer, or if they do not lie together."""
        if out.size < 16 or not out.flags.c_contiguous:
            self._fill("normal_", out, lambda n: scale(self._normals(n), mean, std))
            return
        flat, kind = out.reshape(-1), checks.computed_in(out)
        rest = flat.size % 16
        for start in range(0, flat.size - rest, 2 * self._part):
            part = flat[start : flat.size - rest][: 2 * self._part]
            u = self._uniform(part.size, kind)
            if rest and start + part.size + rest == flat.size:
                if not checks.is_half(out):  # drawn for the ragged end, in vain:
                    self._uniform(rest, kind)
                u = np.concatenate((u, self._uniform(16, kind)))  # the last sixteen are drawn anew
            z = self._blocks(u, mean, std, flat.size)
            part[...] = z[: part.size]
            if z.size > part.size:
                flat[-16:] = z[-16:]

    def _blocks(self, u: Array, mean: float, std: float, total: int) -> Array:
        """Uniforms to normals, in place: of sixteen, eight are radii and eight angles."""
        blocks = u.reshape(-1, 2, 8)
        first, second = blocks.swapaxes(0, 1).reshape(2, -1)
        if u.dtype == np.float32 and _worth_a_twin(total, here=2**20, absent=2**22):
            from tensorgrad.rng import twins

            twins.box_muller(first, second, np.float32(mean), np.float32(std))
        else:
            first, second = (scale(z, mean, std) for z in box_muller(first, second))
        blocks[:, 0], blocks[:, 1] = first.reshape(-1, 8), second.reshape(-1, 8)
        return u

    def _normals(self, n: int) -> Array:
        """Of uniforms u, v the pair r cos t, r sin t with r = sqrt(-2 log(1 - v)), t = 2 pi u.

        The second of a pair may wait for the next call.
        """
        if n == 0:
            return np.empty(0)
        ready = [] if self._spare is None else [self._spare]
        missing = n - len(ready)
        u, v = self._uniform(missing + missing % 2, np.float64).reshape(-1, 2).T
        radius, theta = np.sqrt(-2.0 * libm("log1p")(-v)), 2.0 * math.pi * u
        pairs = np.stack((radius * libm("cos")(theta), radius * libm("sin")(theta)), axis=1)
        self._spare = float(pairs[-1, 1]) if missing % 2 else None
        return np.concatenate((ready, pairs.reshape(-1)[:missing]))

    def _permutation(self, n: int) -> Array:
        """Fisher and Yates: element i changes places with one of those from i on."""
        if n >= (2**32 - 1) // 20:
            return self._large_permutation(n)
        left = np.arange(n, 1, -1, dtype=np.uint64)
        offsets = (self._words(left.size) % left).view(np.int64)
        if _worth_a_twin(n, here=2**12, absent=2**18):
            from tensorgrad.rng import twins

            order = np.arange(n)
            twins.swap_forward(order, offsets)
            return order
        swapped = list(range(n))
        for i, offset in enumerate(offsets.tolist()):
            swapped[i], swapped[i + offset] = swapped[i + offset], swapped[i]
        return np.array(swapped, np.int64)

    def _large_permutation(self, n: int) -> Array:
        """Inside out, with 64-bit draws: element i goes to one of the first i + 1 places."""
        from tensorgrad.rng import twins

        order = np.empty(n, np.int64)
        for start in range(0, n, 2**20):
            count = np.arange(start + 1, min(start + 2**20, n) + 1, dtype=np.uint64)
            places = (self._wide_words(count.size) % count).view(np.int64)
            twins.insert_forward(order, places, start)
        return order

    # Arithmetic

    def _scale(self, z: Array, start: Any, width: Any) -> Array:
        return scale(z, start, width)

    def _function(self, name: str, x: Array) -> Array:
        return libm(name)(x)


def _worth_a_twin(n: int, here: int, absent: int) -> bool:
    """Numba takes a second to import: wait for larger arrays if it is absent than if it is here."""
    return n >= (here if "numba" in sys.modules else absent)
