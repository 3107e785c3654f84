"""Checkpointing: forget the inside of a block after forward, and run the block again in backward.

Training deep nets with sublinear memory cost, Chen et al. 2016.  Memory for one more forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from tensorgrad import memory, mode, random
from tensorgrad.autograd.call import OutsideTheTable
from tensorgrad.backend import device_of
from tensorgrad.backward import run
from tensorgrad.node import Node, tick
from tensorgrad.op import PICK
from tensorgrad.tensor import Operable, Tensor
from tensorgrad.tree import leaves, map_tree, rebuild

Fn = Callable[..., Any]


def checkpoint(
    function: Fn, *args: Any, use_reentrant: bool | None = None, preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:  # fmt: skip
    """function(*args, **kwargs), keeping for backward only the tensors among its arguments.

    Gradients also reach what the function closes over, such as parameters.  It must do the same
    when it runs again; preserve_rng_state sees to random numbers.  Inside func transforms, and
    where nothing is recorded, it is simply called.  use_reentrant is there for PyTorch's sake: the
    one way here has the freedoms of use_reentrant=False.
    """
    if not mode.thread.grad:
        return function(*args, **kwargs)
    given = [x for x in leaves((args, kwargs)) if type(x) is Tensor]
    states = _rng_states(given) if preserve_rng_state else []
    start = tick()
    out = function(*args, **kwargs)
    outs = leaves(out)
    made = [x.node for x in outs if _inside(x, start)]
    if not made:
        return out
    block = Block(function, (args, kwargs), states, _boundary(made, start))
    shapes: Any = tuple(x.shape for x in outs)
    trunk = Node(block, block.boundary, ((tuple(x.array for x in given),),), shapes)
    return rebuild(
        out,
        [
            Tensor(x.array, Node(PICK, (trunk,), i, x.shape)) if _inside(x, start) else x
            for i, x in enumerate(outs)
        ],
    )


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
) -> Any:  # fmt: skip
    """functions applied one after the other, in `segments` checkpointed groups; the last is not.

    functions: an nn.Sequential or any sequence of callables.
    """
    chain = list(functions.children() if hasattr(functions, "children") else functions)
    if segments < 1:
        raise ValueError(f"checkpoint_sequential: at least one segment is needed, not {segments}")
    size = max(len(chain) // segments, 1)
    bounds = [min(i * size, len(chain)) for i in range(segments)] + [len(chain)]
    for i, (begin, end) in enumerate(pairwise(bounds)):
        part = _composed(chain[begin:end])
        if i == segments - 1:
            return part(input)
        input = checkpoint(
            part, input, use_reentrant=use_reentrant, preserve_rng_state=preserve_rng_state
        )


def _composed(chain: Sequence[Fn]) -> Fn:
    def call(x: Any) -> Any:
        for function in chain:
            x = function(x)
        return x

    return call


class Block(OutsideTheTable):
    """The op of a checkpointed block: its rule is to run the block again and differentiate that.

    The node keeps the argument arrays; `places` is the tree of arguments with holes for them.
    boundary: the nodes born before the block on which its outputs depend.
    """

    name, asks, keeps_arrays = "checkpoint", (("args",),), True

    def __init__(
        self, function: Fn, arguments: Any, states: States, boundary: tuple[Node, ...]
    ) -> None:
        self.function, self.states, self.boundary = function, states, boundary
        self.places = map_tree(lambda x: Operable() if type(x) is Tensor else x, arguments)
        self.nodes = [x.node for x in leaves(arguments) if type(x) is Tensor]
        self.finished = tick()

    def joint(self, gs: list[Any], arrays: tuple[Any, ...]) -> list[Any]:
        """The gradients of the boundary."""
        self._check_leaves()
        tensors = iter([Tensor(a, node) for a, node in zip(arrays, self.nodes, strict=True)])
        args, kwargs = map_tree(lambda x: next(tensors) if type(x) is Operable else x, self.places)
        start = tick()
        with mode.enable_grad(), _restored(self.states):
            outs = leaves(self.function(*args, **kwargs))
        roots = [(o.node, g) for o, g in zip(outs, gs, strict=False) if g is not None]
        if len(outs) != len(gs) or any(n is None or n.shape != g.shape for n, g in roots):
            raise RuntimeError(
                "checkpoint: run again, the function returned tensors of shapes "
                f"{[o.shape for o in outs]}, other than before; it must do the same each time"
            )
        if _boundary([o.node for o in outs if _inside(o, start)], start) != self.boundary:
            raise RuntimeError(
                "checkpoint: run again, the function uses other tensors than before; parameters "
                "must not be replaced between forward and backward"
            )
        sinks: dict[Node, Any] = dict.fromkeys(self.boundary)
        record = isinstance(roots[0][1], Operable)
        run(roots, sinks=sinks, retain_graph=record, record=record, stop=True)
        return [sinks[node] for node in self.boundary]

    def _check_leaves(self) -> None:
        for node in self.boundary:
            leaf = node.kept() if node.op is None and callable(node.kept) else None
            if leaf is not None and memory.written_since(leaf.array, self.finished):
                raise RuntimeError(
                    f"backward: a checkpoint uses a leaf of shape {leaf.shape} that was changed in "
                    "place since forward; call backward() before the optimiser's step"
                )


def _inside(x: Any, start: int) -> bool:
    """Whether x was made by a node of this block."""
    return type(x) is Tensor and x.node is not None and x.node.born > start


def _boundary(made: list[Any], start: int) -> tuple[Node, ...]:
    """The nodes that the block found ready: the first ones born before it, going back."""
    reached, stack, before = set(made), list(made), set()
    while stack:
        for parent in stack.pop().parents:
            if parent is None or parent in reached:
                continue
            reached.add(parent)
            if parent.born > start:
                stack.append(parent)
            else:
                before.add(parent)
    return tuple(sorted(before, key=lambda node: node.born))


# ---- random numbers

States = list[tuple[Any, Any]]
"""Generators and their states."""


def _rng_states(tensors: list[Tensor]) -> States:
    """The default generators of the CPU and of the tensors' devices."""
    kinds = {"cpu", *(device_of(x.array).type for x in tensors)}
    generators = [random.generator_for(kind) for kind in sorted(kinds)]
    return [(g, g.get_state()) for g in generators]


@contextmanager
def _restored(states: States) -> Iterator[None]:
    """The generators as they were then, and afterwards as they are now."""
    now = [(g, g.get_state()) for g, _ in states]
    for g, state in states:
        g.set_state(state)
    try:
        yield
    finally:
        for g, state in now:
            g.set_state(state)
