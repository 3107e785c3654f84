"""Evaluation mode for the length of a with-block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tensorgrad import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout inside; afterwards every module is in the mode it was found in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
