"""In-place changes that reach other tensors: writing to a view rewrites the history of all that share its memory.

A root buffer written with history gets a `Version`: a node that stands for the whole buffer. Tensors on that memory
whose node is older are renewed from it when they are next used; while a Version lives, ops take the careful caller.
"""

from __future__ import annotations

import sys
import weakref
from typing import Any, NamedTuple

import numpy as np

from tensorgrad import memory, mode
from tensorgrad.kinds import linear
from tensorgrad.node import Node
from tensorgrad.op import Op
from tensorgrad.tensor import Tensor


class Region(NamedTuple):
    """The elements a view covers, counted in elements of its contiguous root."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    def of(self, flat: Any) -> Any:
        step = flat.itemsize
        return np.lib.stride_tricks.as_strided(
            flat[self.offset :], self.shape, tuple(s * step for s in self.strides)
        )


def _write(xp: Any, x: Any, value: Any, /, region: Region) -> Any:
    out = x.copy()
    region.of(out.reshape(-1))[...] = value
    return out


def _place(xp: Any, value: Any, /, region: Region, shape: tuple[int, ...]) -> Any:
    return _write(xp, xp.zeros(shape, value.dtype), value, region)


read_region = linear(
    "read_region", lambda xp, x, /, region: region.of(xp.ascontiguousarray(x).reshape(-1)).copy(),
    dx=lambda g, x_shape, region: place_region(g, region, x_shape),
)  # fmt: skip
place_region = linear("place_region", _place, dvalue=lambda g, region: read_region(g, region))
write_region = linear(
    "write_region", _write,
    dx=lambda g, region: g - place_region(read_region(g, region), region, g.shape),
    dvalue=lambda g, region: read_region(g, region),
)  # fmt: skip


class Version(NamedTuple):
    """What a root buffer has become: a node of the root's shape, and whether it had one before."""

    root: Any
    node: Node
    known: bool


_versions: dict[int, Version] = {}


def _forget(key: int) -> None:
    if _versions.pop(key, None) is not None:
        mode.be_careful(-1)


def region_of(array: Any, root: Any) -> Region:
    step = root.itemsize
    offset = (array.__array_interface__["data"][0] - root.__array_interface__["data"][0]) // step
    return Region(array.shape, tuple(s // step for s in array.strides), offset)


def rewritten(x: Tensor, node: Node | None) -> None:
    """Note that the memory of x now holds what `node` made; x takes the node, others are renewed when used."""
    before, array = x.node, x.array
    x.node = node
    if before is None and node is None:
        return
    root = memory.root_of(array)
    shared = array is not root or sys.getrefcount(root) > 4
    if not shared:
        return
    if not isinstance(root, np.ndarray) or not root.flags.c_contiguous or root.dtype != array.dtype:
        raise RuntimeError(
            "in-place: this tensor is a view of memory whose layout cannot be tracked; "
            "use the out-of-place operation and assign its result"
        )
    key = id(root)
    old = _versions.get(key)
    base = old.node if old is not None else _base(before, root)
    region = region_of(array, root)
    if region.shape == root.shape and array.flags.c_contiguous:
        version = node
    else:
        op: Op = write_region.op
        version = Node(op, (base, node), ((region,) if base is not None else None, (region,)), root.shape)
    if version is None:  # constants over the whole buffer: no history left, but others must learn it
        version = Node(None, (), lambda: None, root.shape)
    if old is None:
        mode.be_careful(1)
    _versions[key] = Version(weakref.ref(root, lambda _: _forget(key)), version, base is not None or before is None)
    if node is not None and node.born < version.born:
        x.__dict__["as_of"] = version.born


def _base(node: Node | None, root: Any) -> Node | None:
    """The node of the whole buffer that a view was taken from: up through the ops that make views."""
    while node is not None and node.op is not None and node.op.view and node.shape != root.shape:
        node = node.parents[0]
    if node is None:
        return None
    if node.op is None:
        raise RuntimeError(
            "in-place: this tensor is a view of a leaf that requires grad; use torch-like no_grad(), or clone() first"
        )
    if node.shape != root.shape:
        raise RuntimeError(
            f"in-place: a view of shape {node.shape} of a buffer of shape {root.shape} cannot be tracked; clone() it first"
        )
    return node


def renew(x: Tensor) -> Tensor:
    """x itself, or with a new node where its memory was rewritten after its own was born."""
    version = _versions.get(id(memory.root_of(x.array)))
    if version is None or version.root() is None:
        return x
    node = x.node
    age = x.__dict__.get("as_of", 0) if node is None else max(node.born, x.__dict__.get("as_of", 0))
    if age >= version.node.born or (node is not None and node.op is None):
        return x
    if "detached" in x.__dict__ or not memory.written_since(x.array, age):
        return x
    root = version.root()
    region = region_of(x.array, root)
    x.node = Node(read_region.op, (version.node,), ((root.shape, region),), x.shape)
    return x


memory.renew = renew
