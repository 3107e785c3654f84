"""Hand-written twins of the fused ops, each held to the readable formula by a test: cpu and cuda.

A twin answers None where it declines, for a dtype or a shape it does not know: the formula runs."""

import warnings
from functools import cache
from importlib.util import find_spec


@cache
def available() -> bool:
    """Whether the CPU twins can run here: whether Numba loads, which the first call sees to."""
    if find_spec("numba") is None:
        return False
    try:
        import numba  # noqa: F401
    except Exception as error:  # a NumPy too new for it, a library that does not fit the system
        warnings.warn(
            f"Numba is installed but cannot be loaded ({error}): slower NumPy formulas run instead",
            stacklevel=2,
        )
        return False
    return True
