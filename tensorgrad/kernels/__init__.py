"""Hand-written twins of the fused ops, each held to the readable formula by a test: `cpu` (Numba), `cuda` (CUDA C).

A twin answers None where it declines (a dtype or a shape that it does not know): the formula runs."""

import warnings
from functools import cache
from importlib.util import find_spec


@cache
def available() -> bool:
    """Whether the CPU twins can run here, which is whether Numba can be loaded: the first call loads it."""
    if find_spec("numba") is None:
        return False
    try:
        import numba  # noqa: F401
    except Exception as error:  # a NumPy too new for it, a library that does not fit the system
        warnings.warn(
            f"Numba is installed but cannot be loaded ({error}); the slower NumPy formulas run instead",
            stacklevel=2,
        )
        return False
    return True
