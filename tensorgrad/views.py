"""In-place changes that other tensors see: a write to shared memory is noted beside the memory.

A tensor on it with an older history takes the write over when it is next used (`renew`): elements
written have the write's history, others keep theirs.  While notes live, all ops are careful.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

from tensorgrad import memory, mode
from tensorgrad.backend import is_array, xp_of
from tensorgrad.fit import broadcast
from tensorgrad.kinds import linear
from tensorgrad.node import Node, tick
from tensorgrad.tensor import Tensor


class Region(NamedTuple):
    """The elements an array covers, counted from the first of the memory that it lies in."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    def of(self, flat: Any) -> Any:
        """The view of `flat`, memory laid out as a vector, that lies here."""
        strides = tuple(s * flat.itemsize for s in self.strides)
        return xp_of(flat).lib.stride_tricks.as_strided(flat[self.offset :], self.shape, strides)

    def covers(self, other: Region) -> bool:
        """Whether every element of `other` is surely one of these: equal, or in a block."""
        if self == other:
            return True
        first, last = self.ends()
        low, high = other.ends()
        count = 1
        for n in self.shape:
            count *= n
        return count == last - first + 1 and first <= low and high <= last

    def meets(self, other: Region) -> bool:
        """Whether an element may be in both."""
        (first, last), (low, high) = self.ends(), other.ends()
        return first <= high and low <= last

    def ends(self) -> tuple[int, int]:
        """The first and the last element in memory."""
        steps = [(n - 1) * s for n, s in zip(self.shape, self.strides)]
        return self.offset + sum(s for s in steps if s < 0), self.offset + sum(
            s for s in steps if s > 0
        )


# ---- three linear ops between regions of one memory of `size` elements


def _patch(xp: Any, x: Any, value: Any, /, at: Region, over: Region, size: int) -> Any:
    flat = xp.zeros(size, x.dtype)
    at.of(flat)[...] = x
    over.of(flat)[...] = value
    return at.of(flat).copy()


patch = linear(
    "patch", _patch,
    dx=lambda g, at, over, size: erase(g, at, over, size),
    dvalue=lambda g, at, over, size: carry(g, at, over, size),
)  # fmt: skip
"""x, which lies `at`, with the elements that lie `over` as well taken from the value there."""
erase = linear(
    "erase", lambda xp, x, /, at, over, size: _patch(xp, x, 0, at, over, size),
    dx=lambda g, at, over, size: erase(g, at, over, size),
)  # fmt: skip
carry = linear(
    "carry",
    lambda xp, x, /, at, to, size: _patch(xp, xp.zeros(to.shape, x.dtype), x, to, at, size),
    dx=lambda g, at, to, size: carry(g, to, at, size),
)  # fmt: skip
"""What lies at `to` when x is put at `at` into zeros."""


overwrite = linear("overwrite", lambda xp, x, /: xp.zeros_like(x), dx=lambda g: overwrite(g))
"""What becomes of x when constants take its place: a history through which no gradient flows."""


# ---- notes


class Write(NamedTuple):
    """Elements written at a time, and the node of their values."""

    region: Region
    node: Node
    time: int


class Notes:
    """The writes to one memory that tensors on it may not have heard of, oldest first."""

    def __init__(self, root: Any, key: int) -> None:
        low, high = memory.span(root)
        self.low, self.size, self.dtype = low, (high - low) // root.itemsize, root.dtype
        self.root = weakref.ref(root, lambda _: _forget(key))
        self.writes: list[Write] = []

    def region(self, array: Any) -> Region:
        step = array.itemsize
        return Region(
            tuple(array.shape),
            tuple(s // step for s in array.strides),
            (_address(array) - self.low) // step,
        )


_patience = 64  # uses of noted memory until the next look for notes that nobody can read
_uses = 0
_crowd = 8  # notes at which the next write looks first


def _forget(key: int, pop: Any = memory.notes.pop, ending: Any = sys.is_finalizing) -> None:
    """Defaults, because at the interpreter's end globals are gone before the last arrays."""
    if pop(key, None) is not None and not ending():
        mode.be_careful(-1)


def _address(array: Any) -> int:
    return (
        int(array.data.ptr)
        if hasattr(array.data, "ptr")
        else int(array.__array_interface__["data"][0])
    )


def rewritten(x: Tensor, node: Node | None) -> None:
    """Note that x's memory now holds what `node` made: x takes it now, others when next used."""
    if node is None:
        if x.node is None:
            return
        node = _made(overwrite, (x.node,), (), x.shape)  # as in PyTorch, it still requires grad
    follow(x, node)
    x.__dict__.pop("detached", None)
    if _is_alone(x):
        _forget(id(memory.root_of(x.array)))
        return
    if len(memory.notes) >= _crowd:
        sweep()
    root = memory.root_of(x.array)
    key = id(root)
    if root.dtype != x.array.dtype:
        raise RuntimeError(
            "in-place: memory seen under two dtypes has no history; change a clone() instead"
        )
    notes = memory.notes.get(key)
    if notes is None:
        notes = memory.notes[key] = Notes(root, key)
        mode.be_careful(1)
    region = notes.region(x.array)
    time = x.__dict__["as_of"] = tick()
    notes.writes = [w for w in notes.writes if not region.covers(w.region)] + [
        Write(region, node, time)
    ]


def follow(x: Tensor, node: Node | None) -> None:
    """`node` is how x came to be; retain_grad goes with the tensor."""
    keeper = None if x.node is None else x.node.peek("retain")
    if keeper is not None and node is not None and keeper() is x:
        del x.node.extra["retain"]
        node.extras()["retain"] = keeper
    x.node = node


def _is_alone(x: Tensor) -> bool:
    """Whether only x refers to its memory, by its array or by a buffer that the array views."""
    if sys.getrefcount(x.array) != 2:  # the attribute and the call
        return False
    if not isinstance(x.array.base, type(x.array)):
        return True
    return x.array.base.base is None and sys.getrefcount(x.array.base) == 2


def renew(x: Tensor) -> Tensor:
    """x itself, after its node has taken over what was written to its memory since."""
    notes = memory.notes.get(id(memory.root_of(x.array))) if memory.notes else None
    if notes is None or notes.root() is None or "detached" in x.__dict__:
        return x
    node, array = x.node, x.array
    if node is not None and node.op is None:
        return x
    age = max(x.__dict__.get("as_of", 0), 0 if node is None else node.born)
    if notes.writes[-1].time <= age:
        _look_around()
        return x
    if 0 in array.strides and array.size:  # expanded: the elements behind it, and expanded again
        array = array[tuple(slice(0, 1) if s == 0 else slice(None) for s in array.strides)]
        node = _unexpanded(node, array.shape)
    at = notes.region(array)
    for region, written, time in notes.writes:
        if time > age and region.meets(at):
            if node is written and region == at:
                continue
            if region.covers(at):
                node = _made(carry, (written,), (region, at, notes.size), at.shape)
            else:
                node = _made(patch, (node, written), (at, region, notes.size), at.shape)
    if array is not x.array and node is not None:
        node = _made(broadcast, (node,), (array.shape,), x.shape)
    x.node = node
    x.__dict__["as_of"] = notes.writes[-1].time
    _look_around()
    return x


def _made(
    op: Any, parents: tuple[Node | None, ...], asked: tuple[Any, ...], shape: tuple[int, ...]
) -> Node:
    """A node whose value is in memory already."""
    return Node(op.op, parents, tuple(None if p is None else asked for p in parents), shape)


def _unexpanded(node: Node | None, shape: tuple[int, ...]) -> Node | None:
    """The history of x[0:1, ...] given that of x."""
    from tensorgrad.ops.indexing import _slice

    if node is None or node.shape == shape:
        return node
    index = tuple(slice(0, m) for m in shape)
    return _made(_slice, (node,), (node.shape, index), shape)


def shares_a_leaf(x: Tensor) -> bool:
    """Whether x is a view of a leaf that requires grad."""
    node = x.node
    while node is not None and node.op is not None and node.op.view:
        node = node.parents[0]
    if node is None or node.op is not None or not callable(node.kept):
        return False
    leaf = node.kept()
    return leaf is not None and memory.root_of(leaf.array) is memory.root_of(x.array)


# ---- notes whose memory is held only by the graphs of the notes themselves


def _look_around() -> None:
    """Sweep now and then: the more rarely, the less it finds."""
    global _uses, _patience
    _uses += 1
    if _uses >= _patience:
        _uses = 0
        _patience = 64 if sweep() else min(2 * _patience, 1 << 16)


def sweep() -> int:
    """Forget notes that no tensor can read any more; how many.

    A note holds a node, whose graph may keep the noted memory: such a circle is freed only here.
    """
    global _crowd
    lonely = dict(memory.notes)
    while lonely:
        kept = _kept(list(lonely.values()))
        read = [key for key, notes in lonely.items() if _is_read(notes.root(), kept.get(key, {}))]
        del kept
        if not read:
            break
        for key in read:
            del lonely[key]
    for key in lonely:
        _forget(key)
    _crowd = max(8, 2 * len(memory.notes))
    return len(lonely)


Slots = dict[int, list[Any]]
"""By the id of an array: [the array, in how many places nodes keep it]."""


def _kept(several: list[Notes]) -> dict[int, Slots]:
    """What the graphs behind these notes keep, by the id of the memory."""
    found: dict[int, Slots] = {}
    reached = {write.node for notes in several for write in notes.writes}
    stack = list(reached)
    while stack:
        node = stack.pop()
        for array in _arrays(node.kept):
            slots = found.setdefault(id(memory.root_of(array)), {})
            slots.setdefault(id(array), [array, 0])[1] += 1
        for parent in node.parents:
            if parent is not None and parent not in reached:
                reached.add(parent)
                stack.append(parent)
    return found


def _arrays(kept: Any) -> Iterator[Any]:
    if isinstance(kept, (tuple, list)):
        for value in kept:
            yield from _arrays(value)
    elif is_array(kept):
        yield kept


def _counted_by_call() -> int:
    something: list[Any] = []
    return sys.getrefcount(something) - 1


_BY_CALL = _counted_by_call()
"""What getrefcount of a local variable counts besides the variable; newer Pythons count nothing."""


def _is_read(root: Any, slots: Slots) -> bool:
    """Whether anything but what these slots hold refers to the memory."""
    others = 1 + _BY_CALL + (id(root) in slots)  # the variable, the call, the list in slots
    for array_id, entry in slots.items():
        if array_id == id(root):
            others += entry[1]
        elif sys.getrefcount(entry[0]) != entry[1] + 2:
            return True
        else:
            others += 1  # a view, which nobody else holds
    return sys.getrefcount(root) != others


memory.renew = renew
