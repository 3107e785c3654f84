"""GELU, x Phi(x), exact and in the tanh form of GPT-2.  Hendrycks and Gimpel 2016."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.backend import is_array
from tensorgrad.kinds import fused
from tensorgrad.ops.elementwise import erf, exp, tanh
from tensorgrad.twins import ask

_ROOT_2_PI, _CUBIC = 0.7978845608028654, 0.044715  # sqrt(2 / pi)
_ROOT_HALF, _BELL = 0.7071067811865476, 0.3989422804014327  # 1 / sqrt(2), 1 / sqrt(2 pi)


def _formula(x: Any, approximate: str) -> Any:
    """0.5 x (1 + erf(x / sqrt(2))), or 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
    if approximate == "tanh":
        return 0.5 * x * (1 + tanh(_ROOT_2_PI * (x + _CUBIC * (x * x * x))))
    return 0.5 * x * (1 + erf(x * _ROOT_HALF))


def _slope_formula(x: Any, approximate: str) -> Any:
    """d gelu / dx: Phi(x) + x phi(x), and the tanh form's own derivative."""
    if approximate == "tanh":
        t = tanh(_ROOT_2_PI * (x + _CUBIC * (x * x * x)))
        return 0.5 * (1 + t) + (0.5 * _ROOT_2_PI) * x * (1 - t * t) * (1 + (3 * _CUBIC) * (x * x))
    return 0.5 * (1 + erf(x * _ROOT_HALF)) + x * (_BELL * exp(-0.5 * (x * x)))


def _source(xp: Any, x: Any, /, approximate: str) -> Any:
    answer = ask("gelu_forward", x, x, approximate)
    return _formula(x, approximate).astype(x.dtype, copy=False) if answer is None else answer


def _rule(g: Any, x: Any, approximate: str) -> Any:
    answer = ask("gelu_backward", x, g, x, approximate) if is_array(x) and is_array(g) else None
    return g * _slope_formula(x, approximate) if answer is None else answer


def _over(g: Any, x: Any, approximate: str) -> Any:
    """The rule once more, its part written over g: memory peaks here, at GPT-2's widest tensor."""
    answer = ask("gelu_backward", x, g, x, approximate, g) if type(g) is np.ndarray else None
    return _rule(g, x, approximate) if answer is None else answer


_gelu = fused(
    "gelu", _source, _formula, dx=lambda g, x, approximate: _rule(g, x, approximate), reuse=_over
)


def gelu(input: Any, approximate: str = "none") -> Any:
    """y = x Phi(x); "tanh" is GPT-2's 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
    if approximate not in ("none", "tanh"):
        raise RuntimeError(f"gelu: approximate must be 'none' or 'tanh', not {approximate!r}")
    return _gelu(input, approximate)
