"""Elementwise ops on NumPy arrays: which have kernels of kernels/cpu/maps.py, from what size on.

A kernel pays where NumPy would take several passes, scalar code, or more than its own exp."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.ops import activations, choices, elementwise
from tensorgrad.twins import quicken

SMALL = 512
"""Elements from which a kernel's call costs less than what NumPy does instead."""

for _op, _name, *_slopes in (
    (elementwise.exp, "map_exp", None),
    (elementwise.log, "map_log", None),
    (elementwise.tanh, "map_tanh", "map_tanh_slope"),
    (elementwise.sigmoid, "map_sigmoid", "map_sigmoid_slope"),
    (activations._silu, "map_silu", "map_silu_slope"),
    (activations._hardtanh, "map_clamp", None),
    (choices._clip, "map_clamp", "map_clamp_slope"),
    (choices._where, "map_where", None, "map_where_slope", "map_where_not_slope"),
    (choices.maximum, None, "map_maximum_slope", "map_minimum_slope"),
    (choices.minimum, None, "map_minimum_slope", "map_maximum_slope"),
):
    quicken(_op, _name, *_slopes, least=SMALL)
for _op, _name, *_slopes in (
    (elementwise.relu, "map_relu", "map_relu_slope"),
    (elementwise.abs, None, "map_abs_slope"),
):
    quicken(_op, _name, *_slopes)


def _power(x: Any, y: Any) -> Any:
    """x ** y; squares, cubes and roots are not left to NumPy's general power, which is slow."""
    if (type(y) is int or type(y) is float) and x.dtype.kind == "f":
        if y == 2:
            return np.square(x)
        if y == 3:
            return x * x * x
        if y == 0.5:
            return np.sqrt(x)
        if y == -1:
            return np.reciprocal(x)
    return np.power(x, y)


elementwise.pow.op.register(np.ndarray, _power)
