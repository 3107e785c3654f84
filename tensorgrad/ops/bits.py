"""Shifts of integers: x << y and x >> y."""

from __future__ import annotations

from tensorgrad.kinds import discrete
from tensorgrad.publish import publish
from tensorgrad.tensor import Operable

bitwise_left_shift = discrete("bitwise_left_shift", "left_shift")
bitwise_right_shift = discrete("bitwise_right_shift", "right_shift")

for _sign, _f in (("l", bitwise_left_shift), ("r", bitwise_right_shift)):
    setattr(Operable, f"__{_sign}shift__", _f)
    setattr(Operable, f"__r{_sign}shift__", lambda x, y, f=_f: f(y, x))

__all__ = publish(globals())
