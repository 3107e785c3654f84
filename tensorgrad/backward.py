"""Reverse mode.  Nodes wait in a heap by birth; the youngest goes first: its gradient is complete.

No recursion, no sort: a node is younger than its parents; only what a gradient reaches is visited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np

from tensorgrad import memory, mode
from tensorgrad import node as nodes
from tensorgrad.backend import is_array, xp_of
from tensorgrad.fit import fit
from tensorgrad.node import Node
from tensorgrad.op import PICK, table
from tensorgrad.tensor import Tensor

FREED = ("freed",)
"""In the place of `kept` once a backward pass has used it."""


after: list[Callable[[], None]] = []
"""What is called, once, at the end of the pass that is running and fills `.grad`."""


def run(
    roots: Iterable[tuple[Node, Any]],
    *,
    sinks: dict[Node, Any] | None = None,
    retain_graph: bool = False,
    record: bool = False,
    stop: bool = False,
) -> None:
    """Push gradients from the roots back to the leaves.

    roots: (node, gradient) pairs.  sinks: None, and leaves receive `.grad`; or a dictionary whose
    keys are the nodes wanted, which is filled in, running only what lies between (with `stop`,
    nothing beyond a sink).  record: rules are called with Tensors and so record themselves
    (create_graph); otherwise with arrays, or with the lower values that a tracer keeps.
    """
    roots = list(roots)
    waiting: dict[Node, Any] = {}  # the gradients of the nodes in the queue
    ours: set[Node] = set()  # those whose gradient nobody else holds: safe to write into
    queue: list[tuple[float, Node]] = []
    between = None if sinks is None else _between([node for node, _ in roots], sinks, stop)
    watched = nodes.watched
    due = _due([node for node, _ in roots]) if nodes.awaited and sinks is None else None

    def wait(node: Node, part: Any) -> None:
        before = waiting.get(node)
        if before is None:
            waiting[node] = part
            heappush(queue, (-node.born if due is None else due.get(node, -node.born), node))
        elif node in ours:
            before += part
        else:
            waiting[node] = total = before + part
            if not record and is_array(total):
                ours.add(node)

    for node, g in roots:
        wait(node, g)
    while queue:
        node = heappop(queue)[1]
        g = waiting.pop(node)
        op = node.op
        mine = node in ours
        if mine:
            ours.remove(node)
        if stop and sinks is not None and node in sinks:
            sinks[node] = g
            continue
        if watched and node.peek() is not None:
            g, mine = _call_hooks(node, g, sinks, record), False
        if sinks is not None and node in sinks:
            sinks[node], mine = g, False
            if between is not None and not any(parent in between for parent in node.parents):
                continue
        if op is None:
            if sinks is None:
                _receive(node, g, False, record)
                if watched and node.peek("after"):
                    _call_after(node)
            continue
        if op is PICK:  # one output of several: its trunk waits for a list, None where none arrived
            trunk: Any = node.parents[0]
            i = node.kept
            if trunk not in waiting:
                waiting[trunk] = [None] * len(trunk.shape)
                heappush(queue, (-trunk.born, trunk))
            before = waiting[trunk][i]  # another pick of this output may have come first
            waiting[trunk][i] = g if before is None else before + g
            continue
        kept = node.kept
        if kept is FREED:
            raise RuntimeError(
                f"backward: the arrays kept by {op.name} were freed by an earlier backward "
                "through this graph; call the first one with retain_graph=True"
            )
        if node.born < memory.last_write:
            memory.check(node)
        freeing = op.keeps_arrays and not retain_graph
        if freeing:
            node.kept, kept = FREED, list(kept)
        parts = None
        if record:
            parts = (
                _replay(node, g, kept)
                if op.replays
                else _parts(op, g, _revive(node, kept), node.parents)
            )
        elif op.joint is not None:
            parts = op.joint(g, *kept[0])
        parents = node.parents
        for i in range(len(parents) - 1, -1, -1):  # weights go first, and free what they kept
            parent = parents[i]
            if parent is None or (between is not None and parent not in between):
                continue
            if parts is None:
                args = kept[i]
                part = (op.reuse if mine and op.reuse is not None else op.plain[i])(g, *args)
                if freeing:
                    kept[i] = None
            else:
                args = kept[0 if op.joint is not None else i]
                part = parts[i]
                if part is None:
                    continue
            if part.shape != parent.shape:
                part = fit(part, parent.shape)
            if parent.op is None and sinks is None and not (watched and parent.peek() is not None):
                fresh = not record and part is not g and op.pure and _is_fresh(part, args, parts, i)
                _receive(parent, part, fresh, record)
            else:
                if (
                    parent.op is not None
                    and parent.op.reuse is not None
                    and not record
                    and parent not in waiting
                ):
                    if part is g:
                        alone = mine and len(parents) == 1  # add hands the same g to two
                    else:
                        alone = op.pure and is_array(part) and _is_fresh(part, args, parts, i)
                    if alone:
                        ours.add(parent)
                wait(parent, part)
            if mode.careful and mode.thread.anomaly:
                _check_finite(node, i, part, g)
            args = None

    if after and sinks is None:
        calls, after[:] = after[:], []
        for call in calls:
            call()


def _parts(op: Any, g: Any, kept: Any, parents: Sequence[Node | None]) -> Sequence[Any]:
    """One part per parent; None where no gradient is needed."""
    if op.joint is not None:
        return op.joint(g, *kept[0])  # type: ignore[no-any-return]
    return [
        None if parent is None else rule(g, *args)
        for rule, args, parent in zip(op.rules, kept, parents)
    ]


def _is_fresh(part: Any, args: tuple[Any, ...], parts: Sequence[Any] | None, i: int) -> bool:
    """Whether nobody else holds this buffer: it may become `.grad` without a copy."""
    if getattr(part, "base", part) is not None or any(part is a for a in args):
        return False
    return parts is None or not any(part is other for j, other in enumerate(parts) if j != i)


def _receive(leaf: Node, part: Any, fresh: bool, record: bool) -> None:
    """A leaf's tensor takes its gradient: added in place if it has one, else the part or a copy."""
    tensor = leaf.kept()
    if tensor is None:
        return
    grad = tensor.grad
    if record:
        tensor.grad = part if grad is None else grad + part
    elif grad is not None:
        if grad.node is not None:
            tensor.grad = grad + Tensor(part)
        else:
            grad.array += part
            if memory.busy:
                memory.stamp(grad.array)
    else:
        dtype = tensor.array.dtype
        if not (fresh and part.dtype is dtype and part.flags.c_contiguous):
            part = xp_of(tensor.array).array(part, dtype=dtype, order="C")
        tensor.grad = Tensor(part)


# ---- create_graph


def _revive(node: Node, kept: Sequence[Any]) -> list[Any]:
    """The kept values with their history: inputs with the recorded parents, `out` with the node."""
    op = node.op
    return [
        None
        if args is None
        else tuple(_with_history(node, ask, value) for ask, value in zip(asks, args))
        for asks, args in zip(op.asks, kept)
    ]


def _with_history(node: Node, ask: str, value: Any) -> Any:
    op = node.op
    if ask in op.inputs:
        if op.variadic:
            return tuple(Tensor(v, p) if is_array(v) else v for v, p in zip(value, node.parents))
        return Tensor(value, node.parents[op.inputs.index(ask)]) if is_array(value) else value
    if ask in op.outputs[: op.visible]:
        i = op.outputs.index(ask)
        return Tensor(value, node if op.visible == 1 else Node(PICK, (node,), i, value.shape))
    return value


def _replay(node: Node, g: Any, kept: Sequence[Any]) -> Sequence[Any]:
    """A fused op's parts under create_graph: its formula, recorded anew, differentiated."""
    op, (values, params) = node.op, kept[-1]
    alias = table["alias"]
    inputs = [v if p is None else alias(Tensor(v, p)) for v, p in zip(values, node.parents)]
    sinks: dict[Node, Any] = {x.node: None for x, p in zip(inputs, node.parents) if p is not None}
    inputs = [Tensor(x) if is_array(x) else x for x in inputs]
    out = op.formula(*inputs, *params)
    outs, gs = (out, g) if isinstance(out, tuple) else ((out,), (g,))
    run(
        [(o.node, part) for o, part in zip(outs, gs) if part is not None and o.node is not None],
        sinks=sinks, retain_graph=True, record=True,
    )  # fmt: skip
    return [None if p is None else sinks[x.node] for x, p in zip(inputs, node.parents)]


# ---- partial graphs, hooks, anomaly mode


def _due(roots: list[Node]) -> dict[Node, float]:
    """Places in the queue for leaves that hooks await: right behind the oldest node that uses each.

    By its own birth a leaf would come last, when the whole pass is over."""
    reached, stack = set(roots), list(roots)
    oldest: dict[Node, int] = {}
    while stack:
        node = stack.pop()
        for parent in node.parents:
            if parent is None:
                continue
            if parent.op is None:
                if parent.peek("after"):
                    oldest[parent] = min(node.born, oldest.get(parent, node.born))
            elif parent not in reached:
                reached.add(parent)
                stack.append(parent)
    step = 1 / (len(oldest) + 1)  # no two at one place: nodes cannot be compared
    return {leaf: i * step - born for i, (leaf, born) in enumerate(oldest.items(), 1)}


def _between(roots: list[Node], sinks: dict[Node, Any], stop: bool) -> set[Node]:
    """The nodes from which a sink can be reached, among those that the roots reach."""
    reached, stack = set(roots), list(roots)
    oldest = min((sink.born for sink in sinks), default=0)
    while stack:
        node = stack.pop()
        if stop and node in sinks:
            continue
        for parent in node.parents:
            if parent is not None and parent.born >= oldest and parent not in reached:
                reached.add(parent)
                stack.append(parent)
    between = set(sinks)
    for node in sorted(reached, key=lambda n: n.born):
        if any(parent in between for parent in node.parents):
            between.add(node)
    return between


def _call_hooks(node: Node, g: Any, sinks: dict[Node, Any] | None, record: bool) -> Any:
    """Tensor hooks, in the order registered, then retain_grad."""
    if is_array(g) or isinstance(g, (np.generic, Tensor)):
        for hook in list(node.peek("hooks", {}).values()):
            given = g if isinstance(g, Tensor) else Tensor(xp_of(g).asarray(g))
            answer = hook(given)
            if answer is not None:
                if answer.shape != given.shape:
                    raise RuntimeError(
                        f"hook of {node.name()}: it returned shape {answer.shape} "
                        f"for a gradient of shape {given.shape}"
                    )
                g = answer if record else answer.array
    keeper = node.peek("retain")
    tensor = None if keeper is None or sinks is not None else keeper()
    if tensor is not None:
        part = g if record else Tensor(xp_of(g).array(g))
        tensor.grad = part if tensor.grad is None else tensor.grad + part
    return g


def _call_after(leaf: Node) -> None:
    """The hooks that see a leaf's tensor once its gradient is in `.grad`."""
    tensor = leaf.kept()
    if tensor is not None:
        for hook in list(leaf.peek("after", {}).values()):
            hook(tensor)


def _check_finite(node: Node, i: int, part: Any, g: Any) -> None:
    """Anomaly mode: raise if this part of a node's gradient holds a NaN or inf."""
    if _is_finite(part):
        return
    from tensorgrad.anomaly import describe

    parent = node.parents[i]
    whose = f"input {i} of shape {parent.shape}" if parent is not None else f"input {i}"
    cause = ""
    if not all(_is_finite(one) for one in (g if isinstance(g, list) else [g])):
        cause = "already the gradient that arrived there is not; "
    raise RuntimeError(
        f"anomaly: {node.name()} of shape {node.shape}: the gradient for {whose} is not finite; "
        f"{cause}{describe(node)}"
    )


def _is_finite(part: Any) -> bool:
    array = part.array if isinstance(part, Tensor) else part
    return not is_array(array) or bool(xp_of(array).isfinite(array).all())
