"""What a model is made of: a line per module with its output's shape and its parameters."""

from __future__ import annotations

from typing import Any

from tensorgrad.mode import no_grad
from tensorgrad.nn.module import Module
from tensorgrad.tensor import Operable
from tensorgrad.tree import map_tree


def summary(module: Module, *example: Any, **kwargs: Any) -> str:
    """A table as text: every module, the shape of its output, the number of parameters in it.

    For the shapes the model runs once on the example, in evaluation mode and without grad.  A
    parameter used in several places (tied) counts once in each line.
    """
    named = list(module.named_modules())
    shapes = _shapes(module, example, kwargs) if example or kwargs else {}
    rows = [
        (
            "  " * (path.count(".") + bool(path)) + _title(path, part),
            shapes.get(part, ""),
            f"{sum(p.numel() for p in part.parameters()):,}",
        )
        for path, part in named
    ]
    rows.insert(0, ("module", "output" if shapes else "", "parameters"))
    wide = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c:>{wide[2]}}".rstrip() for a, b, c in rows]
    return "\n".join([*lines, _total(module)])


def _title(path: str, module: Module) -> str:
    kind = type(module).__name__
    return f"{path.rpartition('.')[2]}: {kind}" if path else kind


def _shapes(module: Module, example: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[Module, str]:
    """The shape of each module's (first) output when the model runs on the example."""
    shapes: dict[Module, str] = {}

    def note(part: Module, args: Any, out: Any) -> None:
        shapes.setdefault(part, _shape(out))

    modes = {part: part.training for part in module.modules()}
    handles = [part.register_forward_hook(note) for part in modes]
    try:
        module.eval()
        with no_grad():
            module(*example, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
        for part, training in modes.items():
            part.training = training
    return shapes


def _shape(out: Any) -> str:
    if isinstance(out, Operable):
        return str(tuple(out.shape))
    shapes = map_tree(lambda x: tuple(x.shape), out)
    return str(shapes) if isinstance(out, (tuple, list, dict)) else type(out).__name__


def _total(module: Module) -> str:
    parameters = list(module.parameters())
    count = sum(p.numel() for p in parameters)
    frozen = sum(p.numel() for p in parameters if not p.requires_grad)
    size = sum(p.array.nbytes for p in parameters)
    note = f", {frozen:,} of them frozen" if frozen else ""
    memory = f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size:,} bytes"
    return f"total: {count:,} parameters{note}, {memory}"
