"""Hand-written twins of the fused ops: `cpu` (Numba), each held to the readable formula by a test.

A twin answers None where it declines (no Numba, a dtype it does not know): the formula runs."""

from importlib.util import find_spec


def available() -> bool:
    """Whether the CPU twins can run here: Numba is installed and has not failed to load."""
    return _numba


_numba = find_spec("numba") is not None
