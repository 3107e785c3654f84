"""Evaluation mode for the length of a with-block."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tensorgrad import nn

_lock = threading.Lock()
_inside: dict[int, tuple[int, list[tuple[nn.Module, bool]]]] = {}
"""By the model's id: how many blocks it is in, and how the first one found its modules."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout inside; afterwards every module is in the mode it was found in.

    Of several blocks at a time, in threads that share a model, the last to end sees to that.
    """
    with _lock:
        blocks, modes = _inside.get(id(model), (0, []))
        modes = modes if blocks else [(module, module.training) for module in model.modules()]
        _inside[id(model)] = blocks + 1, modes
        model.eval()
    try:
        yield
    finally:
        with _lock:
            blocks, modes = _inside.pop(id(model))
            if blocks > 1:
                _inside[id(model)] = blocks - 1, modes
            else:
                for module, training in modes:
                    module.training = training
