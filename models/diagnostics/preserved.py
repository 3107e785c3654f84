"""A model that is tried out and put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.random import generator_for


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Whatever happens inside, the model is as it was afterwards, to the last bit.

    Weights, buffers, gradients, the mode of each module, and the default generators of the CPU and
    of the model's devices.  Inside, the model starts without gradients.
    """
    tensors = [*model.parameters(), *model.buffers()]
    values = [t.detach().clone() for t in tensors]
    grads = [t.grad for t in tensors]
    modes = [(module, module.training) for module in model.modules()]
    generators = [
        generator_for(kind) for kind in sorted({"cpu", *(t.device.type for t in tensors)})
    ]
    states = [generator.get_state() for generator in generators]
    for t in tensors:
        t.grad = None
    try:
        yield
    finally:
        with tg.no_grad():
            for t, value, grad in zip(tensors, values, grads, strict=True):
                t.copy_(value)
                t.grad = grad
        for module, training in modes:
            module.training = training
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
