"""Special functions: value and derivative of each in a line; the values are SciPy's and CuPy's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensorgrad.kinds import elementwise
from tensorgrad.ops.choices import _alike, where
from tensorgrad.ops.compare import zeros_like
from tensorgrad.ops.elementwise import _special, exp, log
from tensorgrad.publish import public, publish
from tensorgrad.tensor import Operable

erfc = elementwise(
    "erfc", lambda xp, x, /: _special(xp, "erfc", x), dx=lambda g, x: g * (-_2_PI * exp(-x * x))
)
erfinv = elementwise(
    "erfinv", lambda xp, x, /: _special(xp, "erfinv", x),
    dx=lambda g, out: g * (exp(out * out) / _2_PI),
)  # fmt: skip
lgamma = elementwise(
    "lgamma", lambda xp, x, /: xp.where(xp.isinf(x), xp.absolute(x), _special(xp, "gammaln", x)),
    dx=lambda g, x: g * digamma(x),
)  # fmt: skip
digamma = elementwise(
    "digamma", lambda xp, x, /: _special(xp, "digamma", x), dx=lambda g, x: g * _polygamma(x, 1)
)
_polygamma = elementwise(
    "polygamma", lambda xp, x, /, n: _digamma_slope(xp, x, n),
    dx=lambda g, x, n: g * _polygamma(x, n + 1),
)  # fmt: skip
_logit = elementwise(
    "logit", lambda xp, x, /, eps: _log_odds(xp, x, eps),
    dx=lambda g, x, eps: where(_within(x, eps), g / (x * (1 - x)), math.nan if eps is None else 0),
)  # fmt: skip
xlogy = elementwise(
    "xlogy", lambda xp, x, y, /: _times_log(xp, *_alike(xp, x, y)),
    dx=lambda g, x, y: g * _times_log_slope(x, y), dy=lambda g, x, y: g * (x / y),
)  # fmt: skip
sinc = elementwise(
    "sinc", lambda xp, x, /: _sinc_of(xp, np.pi * _wide(x)).astype(x.dtype, copy=False),
    dx=lambda g, x: g * _sinc_slope(x),
)  # fmt: skip
_sinc_slope = elementwise(
    "sinc_slope", lambda xp, x, /: _sinc_slope_of(xp, x),
    dx=lambda g, x, out: g * where(x == 0, -math.pi**2 / 3, _sinc_curve(x, out)),
)  # fmt: skip
_2_PI = 2 / math.sqrt(math.pi)


def _wide(x: Any) -> Any:
    """Half types as float32."""
    return x if x.dtype.itemsize > 2 else x.astype(np.float32)


def _digamma_slope(xp: Any, x: Any, n: int) -> Any:
    """The n-th derivative of digamma: (-1)^(n+1) n! zeta(n + 1, x)."""
    if xp is np:
        from scipy.special import zeta
    else:
        from cupyx.scipy.special import zeta
    wide = _wide(x)
    out = zeta(xp.asarray(n + 1, wide.dtype), wide) * wide.dtype.type(
        (-1) ** (n + 1) * math.factorial(n)
    )
    return out.astype(x.dtype, copy=False)


def _log_odds(xp: Any, x: Any, eps: float | None) -> Any:
    p = x
    if eps is not None:
        low, high = x.dtype.type(eps), x.dtype.type(1 - eps)
        p = xp.where(x < low, low, xp.where(x > high, high, x))
    return xp.log(p / (1 - p))


def _within(x: Any, eps: float | None) -> Any:
    low = 0 if eps is None else eps
    return ((x >= low) & (x <= 1 - low)) | (x != x)


def _times_log(xp: Any, x: Any, y: Any) -> Any:
    return xp.where((x == 0) & (y == y), x.dtype.type(0), x * xp.log(y))


def _times_log_slope(x: Any, y: Any) -> Any:
    """log(y), and 0 where x is 0 and log(y) infinite or undefined: there the function is flat."""
    if not hasattr(y, "dtype"):
        y = zeros_like(x) + y
    return where((x == 0) & (y <= 0), 0, log(y))


def _sinc_of(xp: Any, u: Any) -> Any:
    """sin(u) / u, and 1 at zero."""
    safe = xp.where(u == 0, u.dtype.type(1), u)
    return xp.where(u == 0, u.dtype.type(1), xp.sin(safe) / safe)


def _sinc_slope_of(xp: Any, x: Any) -> Any:
    """pi (cos u - sin(u) / u) / u for u = pi x; its series where that would cancel."""
    u = np.pi * _wide(x)
    small = xp.abs(u) < 0.3
    safe = xp.where(small, u.dtype.type(1), u)
    far = (xp.cos(safe) - xp.sin(safe) / safe) / safe
    z = u * u
    near = -u / 3 * (1 - z / 10 * (1 - z / 28 * (1 - z / 54 * (1 - z / 88))))
    return (np.pi * xp.where(small, near, far)).astype(x.dtype, copy=False)


def _sinc_curve(x: Any, slope: Any) -> Any:
    """The second derivative, -pi^2 sinc - 2 sinc' / x."""
    return -(math.pi**2) * sinc(x) - 2 * slope / where(x == 0, 1, x)


@public(method=False)
def polygamma(n: int, x: Any) -> Any:
    """The n-th derivative of digamma."""
    if n < 0:
        raise RuntimeError(f"polygamma: n must not be negative, it is {n}")
    return digamma(x) if n == 0 else _polygamma(x, n)


Operable.polygamma = lambda x, n: polygamma(n, x)  # type: ignore[attr-defined]


@public()
def logit(x: Any, eps: float | None = None) -> Any:
    """out = log(x / (1 - x)); with eps, x is first clamped to [eps, 1 - eps]."""
    return _logit(x, eps)


__all__ = publish(globals())
