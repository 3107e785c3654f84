"""An average of the weights over the steps, often a better model than the last step's weights.

Polyak and Juditsky 1992; with exponential forgetting as in torch.optim.swa_utils."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tensorgrad import memory, nn
from tensorgrad.backend import device_of, move


class EMA:
    """e <- decay e + (1 - decay) p after each step; the first step's weights are where e begins."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.average: dict[str, Any] = {}

    def update(self) -> None:
        """Take in the weights as they are now."""
        for name, p in self.parameters.items():
            if name not in self.average:
                self.average[name] = p.array.copy()
            else:
                e = self.average[name]
                e += (1 - self.decay) * (p.array - e)

    def put(self) -> None:
        """The average in the place of the weights, for good."""
        self._put(self.average)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model's weights are the average; afterwards they are its own again."""
        if not self.average:
            yield
            return
        own = {name: p.array.copy() for name, p in self.parameters.items()}
        self._put(self.average)
        try:
            yield
        finally:
            self._put(own)

    def _put(self, arrays: Mapping[str, Any]) -> None:
        for name, p in self.parameters.items():
            p.array[...] = arrays[name]
            memory.stamp(p.array)

    def state(self) -> dict[str, Any]:
        """NumPy arrays by the parameters' names; empty before the first step."""
        return {name: move(e, "cpu") for name, e in self.average.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.average = {
            name: move(e, device_of(self.parameters[name].array)).copy()
            for name, e in state.items()
        }
