"""Models that only read: no dropout, and no graph for gradients that nobody will ask for."""

from __future__ import annotations

from types import TracebackType

from tensorgrad import nn
from tensorgrad.mode import enable_grad


class Frozen:
    """`with frozen:` evaluation mode, and parameters that ask for no gradients; undone afterwards.

    Under no_grad each op would ask whether it records, which takes longer than a small op itself;
    here nothing is there to be recorded, so that mode is left.  Can be entered again and again.
    """

    def __init__(self, *models: nn.Module) -> None:
        self.modules = [module for model in models for module in model.modules()]
        self.parameters = [p for model in models for p in model.parameters()]
        self.recording = enable_grad()

    def __enter__(self) -> None:
        # Only what changes is noted: of two threads that read one model, the first puts it back.
        self.training = [module for module in self.modules if module.training]
        self.nodes = [(p, p.node) for p in self.parameters if p.node is not None]
        self.recording.__enter__()
        for module in self.training:
            module.training = False
        for p, _ in self.nodes:
            p.node = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for module in self.training:
            module.training = True
        for p, node in self.nodes:
            p.node = node
        self.recording.__exit__(kind, error, trace)
