"""Running statistics measured over a whole data set, in place of an average of noisy batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tensorgrad.mode import no_grad
from tensorgrad.nn.module import Module
from tensorgrad.nn.norms import BatchNorm1d, BatchNorm2d


@no_grad()
def calibrate(model: Module, batches: Sequence[Any]) -> None:
    """running_mean and running_var of every BatchNorm: those of its input over all the batches.

    batches: what the model is called with, a tuple of arguments or one.  However they are cut, the
    result is the same: each layer sees what the layers before it, by then calibrated, make of the
    data in evaluation mode, so the data passes once for each BatchNorm, in the order in which they
    run.  The variance is the unbiased one, as in training; modes come back.  ValueError for no
    batches, or for a single value per channel.
    """
    if not len(batches):
        raise ValueError("calibrate: there are no batches to measure the statistics of")
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        for layer in in_order(model, batches[0]):
            measure(model, layer, batches)
    finally:
        for module, training in modes:
            module.training = training


def in_order(model: Module, batch: Any) -> list[Any]:
    """The BatchNorms that track statistics, as they run."""
    order: list[Any] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, _: order.append(module))
        for module in model.modules()
        if isinstance(module, BatchNorm1d | BatchNorm2d) and module.running_mean is not None
    ]
    try:
        call(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(order))


def measure(model: Module, layer: Any, batches: Iterable[Any]) -> None:
    """Count, mean and sum of squared deviations of the layer's input, batch joined to batch.

    Chan, Golub and LeVeque 1979: no large sums are subtracted from each other.
    """
    count, mean, squares = 0, 0.0, 0.0

    def see(module: Any, args: tuple[Any, ...]) -> None:
        nonlocal count, mean, squares
        x = args[0].detach().double()
        if not (module.channels_last or x.ndim == 2):
            x = x.transpose(1, -1)  # (N, C, ...) -> (N, ..., C)
        x = x.reshape(-1, x.shape[-1])
        n, m = x.shape[0], x.mean(0)
        apart = m - mean
        squares = squares + ((x - m) ** 2).sum(0) + apart**2 * (count * n / (count + n))
        mean = mean + apart * (n / (count + n))
        count += n

    hook = layer.register_forward_pre_hook(see)
    try:
        for batch in batches:
            call(model, batch)
    finally:
        hook.remove()
    if count < 2:
        raise ValueError("calibrate: a single value per channel has no variance; give it more data")
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(squares / (count - 1))


def call(model: Module, batch: Any) -> None:
    """One forward pass."""
    if isinstance(batch, tuple | list):
        model(*batch)
    else:
        model(batch)
