"""Random numbers on arrays: `MersenneGenerator` gives PyTorch's CPU numbers, `PhiloxGenerator` the same bits on every
device.  `Generator(device)` chooses one of them.
"""

from tensorgrad.rng.generator import Generator
from tensorgrad.rng.mersenne import MersenneGenerator

__all__ = ["Generator", "MersenneGenerator"]
