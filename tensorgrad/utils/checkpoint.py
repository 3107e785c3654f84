"""Checkpointing: forget the inside of a block after forward, and run the block again in backward.

Training deep nets with sublinear memory cost, Chen et al. 2016.  Memory for one more forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
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

    Gradients also reach what the function closes over, such as parameters.  It must do the same when
    it runs again; preserve_rng_state sees to random numbers.  Inside func transforms, and where
    nothing is recorded, it is simply called.  use_reentrant is taken for PyTorch's sake: there is
    one way here, which has the freedoms of use_reentrant=False.
    """
    if not mode.thread.grad:
        return function(*args, **kwargs)
    states = _rng_states((args, kwargs)) if preserve_rng_state else {}
    start = tick()
    out = function(*args, **kwargs)
    made = [x for x in leaves(out) if type(x) is Tensor and _inside(x.node, start)]
    if not made:
        return out
    block = Block(function, (args, kwargs), states, len(leaves(out)))
    tensors = [x for x in leaves((args, kwargs)) if type(x) is Tensor]
    kept = (tuple(x.array for x in tensors),)
    shapes: Any = tuple(x.shape for x in leaves(out))
    trunk = Node(block, _boundary([x.node for x in made], start), (kept,), shapes)
    return _ends(out, trunk, start)


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
    for i, (begin, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
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
    """

    name, asks, keeps_arrays = "checkpoint", (("args",),), True

    def __init__(self, function: Fn, arguments: Any, states: dict[str, Any], n_out: int) -> None:
        self.function, self.states, self.n_out = function, states, n_out
        self.places = map_tree(lambda x: Operable() if type(x) is Tensor else x, arguments)
        self.nodes = [x.node for x in leaves(arguments) if type(x) is Tensor]
        self.parents: tuple[Node, ...] = ()

    def joint(self, gs: list[Any], arrays: tuple[Any, ...]) -> list[Any]:
        """The gradients of the boundary nodes."""
        given = [g for g in gs if g is not None]
        record = isinstance(given[0], Operable)
        tensors = [Tensor(a, node) for a, node in zip(arrays, self.nodes, strict=True)]
        args, kwargs = rebuild(self.places, tensors)
        with mode.enable_grad(), _rng_restored(self.states):
            outs = leaves(self.function(*args, **kwargs))
        if len(outs) != self.n_out or any(
            g is not None and g.shape != o.shape for g, o in zip(gs, outs, strict=True)
        ):
            raise RuntimeError(
                f"checkpoint: run again, the function returned tensors of shapes "
                f"{[o.shape for o in outs]}; it must do the same each time"
            )
        sinks: dict[Node, Any] = dict.fromkeys(self.parents)
        roots = [(o.node, g) for o, g in zip(outs, gs, strict=True) if g is not None]
        run(roots, sinks=sinks, retain_graph=record, record=record, stop=True)
        return [sinks[parent] for parent in self.parents]
