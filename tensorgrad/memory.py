"""One clock for nodes and writes: writes stamp memory, and backward refuses arrays changed since.

Stamps belong to root buffers, by byte range; backward looks only at nodes older than a write.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorgrad.backend import is_array
from tensorgrad.node import Node, tick

last_write = 0
"""The time of the latest write to memory that some node may keep."""

busy = False
"""Whether anything was ever stamped; until then nobody needs to look."""


def _itself(x: Any) -> Any:
    return x


renew: Callable[[Any], Any] = _itself  # views.py puts its own here
"""A tensor whose memory was rewritten with history after its node was born gets its new node."""

_END = 1 << 63  # behind the last byte of anything
notes: dict[int, Any] = {}
"""id of a root buffer -> what views.py notes of its history; usually empty."""

_writes: dict[int, tuple[Any, list[tuple[int, int, int]]]] = {}
"""id of a root buffer -> (weak reference to it, [(first byte, end byte, time)])."""


def root_of(array: Any) -> Any:
    """The array that owns the memory."""
    while isinstance(getattr(array, "base", None), type(array)):
        array = array.base
    return array


def span(array: Any) -> tuple[int, int]:
    """The addresses of the first byte and of the one behind the last."""
    if isinstance(array, np.ndarray):
        low, high = np.lib.array_utils.byte_bounds(array)
        return int(low), int(high)
    start = int(array.data.ptr)
    offsets = [(n - 1) * s for n, s in zip(array.shape, array.strides) if n]
    low = start + sum(o for o in offsets if o < 0)
    return low, start + sum(o for o in offsets if o > 0) + int(array.itemsize)


def stamp(array: Any) -> None:
    """Note that the memory of `array` changes now."""
    global last_write, busy
    busy = True
    root = root_of(array)
    last_write = time = tick()
    key = id(root)
    low, high = (0, _END) if root is array else span(array)
    entry = _writes.get(key)
    if entry is None or entry[0]() is not root:
        _writes[key] = (
            weakref.ref(root, lambda _: _writes.pop(key, None)),
            [(low, high, time)],
        )
        return
    log = entry[1]
    if root is array:  # all of it: what was written before no longer matters
        log[:] = ((low, high, time),)
        return
    log[:] = [w for w in log if not (low <= w[0] and w[1] <= high)]
    log.append((low, high, time))


def written_since(array: Any, born: int) -> bool:
    """Whether any byte of `array` was stamped after `born`."""
    entry = _writes.get(id(root_of(array)))
    if entry is None or not any(time > born for _, _, time in entry[1]):
        return False
    low, high = span(array)
    return any(time > born and start < high and low < end for start, end, time in entry[1])


def check(node: Node) -> None:
    """Raise if an array that `node` keeps was changed in place after the node was born."""
    born = node.born
    for asks, args in zip(node.op.asks, node.kept):
        for ask, value in zip(asks, args or ()):
            kind = type(value)
            if kind is int or kind is float or value is None:
                continue
            if kind is np.ndarray:  # most often, and most often its memory was never written to
                root = value
                while type(root.base) is np.ndarray:
                    root = root.base
                entry = _writes.get(id(root))
                if entry is None or entry[1][-1][2] <= born:
                    continue
            for array in value if isinstance(value, (tuple, list)) else (value,):
                if is_array(array) and written_since(array, born):
                    from tensorgrad.anomaly import describe

                    raise RuntimeError(
                        f"backward: {node.op.name} keeps '{ask}', shape {array.shape}, which was "
                        "changed in place after it was used; change a clone() instead, or change "
                        f"it before it is used; {describe(node)}"
                    )
