"""Random numbers on arrays: PyTorch's own (`MersenneGenerator`), or the same on every device.

`Generator(device)` makes the one that belongs to a device: MT19937 on "cpu", Philox on "cuda".
"""

from tensorgrad.rng.generator import DEFAULT_SEED, Generator
from tensorgrad.rng.mersenne import MersenneGenerator
from tensorgrad.rng.philox import PhiloxGenerator

__all__ = ["DEFAULT_SEED", "Generator", "MersenneGenerator", "PhiloxGenerator"]
