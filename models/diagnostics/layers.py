"""One forward and backward pass, seen layer by layer: what comes out of each, what comes back.

Modules are watched by hooks; functions between them, such as a relu, by the engine, op by op.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensorgrad import Tensor, mode, nn
from tensorgrad.models.diagnostics.preserved import preserved

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]
Histogram = tuple[list[float], list[float]]
"""edges (n + 1) and density (n)"""

FLAT: dict[str, Callable[[Array, Array], Array]] = {
    "tanh": lambda x, out: np.abs(out) > 0.97,
    "sigmoid": lambda x, out: np.abs(out - 0.5) > 0.985 - 0.5,  # tanh(x / 2) beyond 0.97
    "relu": lambda x, out: out <= 0,
    "relu6": lambda x, out: (x <= 0) | (x >= 6),
    "gelu": lambda x, out: x < -3,
    "silu": lambda x, out: x < -6,
    "softsign": lambda x, out: np.abs(out) > 0.97,
    "hardtanh": lambda x, out: np.abs(out) >= 1,
    "elu": lambda x, out: x < -3.5,
    "selu": lambda x, out: x < -3.5,
    "leaky_relu": lambda x, out: np.zeros(x.shape, bool),
    "softplus": lambda x, out: x < -3.5,
    "mish": lambda x, out: x < -6,
}
"""flat(x, out): where a nonlinearity's slope is next to nothing, so that no gradient passes."""

SATURATES = ("tanh", "sigmoid", "softsign", "hardtanh")
"""Those that are flat on both sides; a relu is flat on one by design."""


@dataclass
class Layer:
    """What a module or a nonlinear function gave in one pass, and the gradient of that.

    flat: the share of values where the nonlinearity is level (for tanh: |out| > 0.97), None for
    what is linear.  dead: units that are level for all examples, of `units`.  A unit is an entry of
    the last dim, of images (B, C, H, W) a channel.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    mean: float
    std: float
    histogram: Histogram
    flat: float | None = None
    dead: int | None = None
    units: int | None = None
    grad_mean: float | None = None
    grad_std: float | None = None
    grad_histogram: Histogram | None = None
    frozen: Array | None = field(default=None, repr=False)
    """which units are dead"""

    @property
    def title(self) -> str:
        """The name, with the kind where the name does not say it."""
        return self.name if self.name.endswith(self.kind) else f"{self.name} ({self.kind})"

    @property
    def nonlinear(self) -> bool:
        return self.flat is not None

    def figures(self) -> dict[str, Any]:
        """What a JSON file keeps."""
        names = ("name", "kind", "mean", "std", "flat", "dead", "units", "grad_mean", "grad_std")
        kept = {name: getattr(self, name) for name in names}
        histograms = {"histogram": self.histogram, "grad_histogram": self.grad_histogram}
        return {**kept, "shape": list(self.shape), **histograms}


def watch_layers(model: nn.Module, loss: Callable[[], Tensor], bins: int = 60) -> list[Layer]:
    """Every layer of one pass, in the order of the forward: leaf modules, nonlinear functions.

    loss() runs the model on a batch and gives what to differentiate; the mode is the one that the
    model is in.  Nothing of the model is changed.
    """
    found: list[Layer] = []
    with preserved(model), watching(model, found, bins):
        loss().backward()
    return found


@contextmanager
def watching(model: nn.Module, found: list[Layer], bins: int) -> Iterator[None]:
    """Fill `found` with the layers that run inside the block, in this thread."""
    running: list[tuple[str, nn.Module]] = []
    calls: dict[str, int] = {}

    def add(name: str, kind: str, out: Tensor, x: Array | None) -> None:
        calls[name] = calls.get(name, 0) + 1
        again = f" ({calls[name]})" if calls[name] > 1 else ""
        layer = described(name + again, kind, out, x, bins)
        found.append(layer)
        if out.requires_grad:
            out.register_hook(lambda g: note_gradient(layer, g, bins))

    def enter(module: nn.Module, args: Any, path: str) -> None:
        running.append((path, module))

    def leave(module: nn.Module, args: Any, out: Any, path: str) -> None:
        running.pop()
        # A module that is a nonlinearity has been seen as a function.
        name = path or type(module).__name__
        seen = found and found[-1].nonlinear and found[-1].name.partition(" (")[0] == name
        leaf = next(module.children(), None) is None
        if leaf and not seen and isinstance(out, Tensor) and out.array.dtype.kind == "f":
            add(name, type(module).__name__, out, None)

    def watch(op: Any, values: Any, params: Any, outs: Any, results: Any) -> None:
        kind = op.name.rstrip("_")
        if kind not in FLAT or not running:
            return
        path, module = running[-1]
        title = type(module).__name__
        own = title.lower() == kind.replace("_", "")  # nn.LeakyReLU is leaky_relu and no more
        name = path or title if own else f"{path}.{kind}".lstrip(".")
        add(name, kind, results[0], as_numpy(values[0]))

    handles = []
    for path, module in model.named_modules():
        before = lambda module, args, path=path: enter(module, args, path)  # noqa: E731
        after = lambda module, args, out, path=path: leave(module, args, out, path)  # noqa: E731
        handles.append(module.register_forward_pre_hook(before))
        handles.append(module.register_forward_hook(after, always_call=True))
    mode.thread.watchers = (*mode.thread.watchers, watch)
    mode.be_careful(+1)
    try:
        yield
    finally:
        mode.thread.watchers = tuple(w for w in mode.thread.watchers if w is not watch)
        mode.be_careful(-1)
        for handle in handles:
            handle.remove()


def described(name: str, kind: str, out: Tensor, x: Array | None, bins: int) -> Layer:
    """The layer as its output shows it; x is the input of a nonlinearity."""
    y = as_numpy(out.array)
    layer = Layer(name, kind, y.shape, float(y.mean()), float(y.std()), histogram(y, bins))
    if x is not None:
        level = FLAT[kind](x, y)
        units = level.ndim - 3 if level.ndim == 4 else level.ndim - 1  # images: (B, C, H, W)
        others = tuple(i for i in range(level.ndim) if i != units)
        frozen = np.asarray(level.all(axis=others))
        layer.flat, layer.dead = float(level.mean()), int(frozen.sum())
        layer.frozen, layer.units = frozen, frozen.size
    return layer


def note_gradient(layer: Layer, g: Tensor, bins: int) -> None:
    y = as_numpy(g.array)
    layer.grad_mean, layer.grad_std = float(y.mean()), float(y.std())
    layer.grad_histogram = histogram(y, bins)


def histogram(y: Array, bins: int) -> Histogram:
    """Density over the range that holds all but a thousandth of the values on either side.

    Few values get fewer bins: n^0.4, but at least 10.
    """
    bins = min(bins, max(10, int(y.size**0.4)))
    low, high = np.quantile(y, [0.001, 0.999])
    if not low < high:
        low, high = low - 0.5, high + 0.5
    density, edges = np.histogram(y, bins, (low, high), density=True)
    return edges.tolist(), density.tolist()


def as_numpy(array: Any) -> Array:
    """float64 on the CPU: sums of half types overflow."""
    return np.asarray(Tensor(array).cpu().array, np.float64)
