"""The user's side of reverse mode: x.backward() and autograd.grad(outputs, inputs)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorgrad import memory, mode
from tensorgrad.backend import is_array, xp_of
from tensorgrad.backward import after, run
from tensorgrad.node import Node
from tensorgrad.tensor import Operable, Tensor, method


def _seed(name: str, output: Any, gradient: Any, record: bool) -> tuple[Node, Any]:
    """The node of an output and the gradient that enters there: ones for a single element."""
    if mode.careful and type(output) is Tensor:
        memory.renew(output)  # a view of it may have been written to
    node = output.history() if type(output) is Tensor else getattr(output, "node", None)
    if node is None:
        if not isinstance(output, Operable):
            raise TypeError(f"{name}: expected a tensor, not {type(output).__name__}")
        raise RuntimeError(
            f"{name}: the tensor of shape {output.shape} does not require grad and has no history"
        )
    array = output.array
    if gradient is None:
        if array.size != 1:
            raise RuntimeError(
                f"{name}: a gradient can be created only for scalar outputs, "
                f"this one has shape {output.shape}; pass gradient=, or reduce it first"
            )
        gradient = xp_of(array).ones_like(array)
    elif isinstance(gradient, Tensor):
        gradient = gradient if record else gradient.array
    if gradient.shape != array.shape:
        raise RuntimeError(
            f"{name}: the gradient has shape {tuple(gradient.shape)}, "
            f"the tensor {tuple(array.shape)}"
        )
    if record and type(gradient) is not Tensor:
        gradient = Tensor(gradient)
    elif gradient.dtype != array.dtype:
        gradient = gradient.astype(array.dtype)
    return node, gradient


def _run(roots: list[tuple[Node, Any]], record: bool, **options: Any) -> None:
    if record and not mode.thread.grad:
        with mode.enable_grad():
            run(roots, record=True, **options)
    else:
        run(roots, record=record, **options)


def backward(
    tensor: Any,
    gradient: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """d tensor / d leaf, added to `.grad` of every leaf that requires grad (or of `inputs` only).

    gradient: what arrives here, of the tensor's shape; ones for a single element.
    retain_graph: keep the graph for another pass.
    create_graph: record the pass, for higher derivatives.
    """
    retain = create_graph if retain_graph is None else retain_graph
    root = _seed("backward", tensor, gradient, create_graph)
    if inputs is None:
        try:
            _run([root], create_graph, retain_graph=retain)
        except BaseException:
            after.clear()  # what waited for this pass shall not take the next one for it
            raise
        return
    tensors = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if not tensors:
        raise RuntimeError("backward: inputs= must not be empty")
    for x, part in zip(tensors, _collect("backward", [root], tensors, retain, create_graph)):
        if part is not None:
            x.grad = part if x.grad is None else x.grad + part


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """The gradients of the sum of outputs with respect to each input; nothing is added to `.grad`.

    allow_unused: None for inputs that the outputs do not depend on, instead of an error;
    materialize_grads: zeros.
    """
    outs = [outputs] if isinstance(outputs, Operable) else list(outputs)
    xs = [inputs] if isinstance(inputs, Operable) else list(inputs)
    seeds = [grad_outputs] * len(outs) if grad_outputs is None else grad_outputs
    seeds = [seeds] if isinstance(seeds, Operable) else list(seeds)
    if len(seeds) != len(outs):
        raise RuntimeError(f"grad: {len(seeds)} grad_outputs for {len(outs)} outputs")
    retain = create_graph if retain_graph is None else retain_graph
    roots = [_seed("grad", o, s, create_graph) for o, s in zip(outs, seeds)]
    parts = _collect("grad", roots, xs, retain, create_graph)
    for i, part in enumerate(parts):
        if part is None and materialize_grads:
            parts[i] = Tensor(xp_of(xs[i].array).zeros_like(xs[i].array))
        elif part is None and not allow_unused:
            raise RuntimeError(
                f"grad: the outputs do not depend on input {i} of shape {xs[i].shape}; "
                "allow_unused=True gives None for it"
            )
    return tuple(parts)


def _collect(
    name: str, roots: list[tuple[Node, Any]], inputs: Sequence[Any], retain: bool, record: bool
) -> list[Any]:
    """The gradients of the inputs, each in a buffer of its own."""
    for i, x in enumerate(inputs):
        if (x.history() if type(x) is Tensor else getattr(x, "node", None)) is None:
            raise RuntimeError(f"{name}: input {i} does not require grad")
    sinks: dict[Node, Any] = {x.node: None for x in inputs}
    _run(roots, record, sinks=sinks, retain_graph=retain)
    taken = {id(g) for _, g in roots}
    results: list[Any] = []
    for x in inputs:
        part = sinks[x.node]
        if part is not None and not record:
            dtype = x.array.dtype
            if (
                not is_array(part) or part.dtype != dtype or id(part) in taken
                or part.base is not None or not part.flags.c_contiguous
            ):  # fmt: skip
                part = xp_of(x.array).array(part, dtype=dtype, order="C")
            taken.add(id(part))
            part = Tensor(part)
        results.append(part)
    return results


method(backward)
