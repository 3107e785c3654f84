"""`ctx`: what a Function's forward leaves for its backward."""

from __future__ import annotations

from typing import Any

from tensorgrad.tensor import Operable, Tensor


class FunctionCtx:
    """Any attribute may be set and is found again in backward; tensors go to save_for_backward."""

    __slots__ = (
        "__dict__", "_dirty", "_fixed", "_materialize", "_saved", "_saved_forward",
        "needs_input_grad",
    )  # fmt: skip

    needs_input_grad: tuple[bool, ...]
    """One entry per argument of apply: whether its gradient is wanted."""

    def __init__(self, needs: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs
        self._saved: tuple[Any, ...] = ()
        self._saved_forward: tuple[Any, ...] | None = None
        self._fixed: tuple[Any, ...] = ()
        self._dirty: tuple[Any, ...] = ()
        self._materialize = True

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep these for backward: there inputs and outputs have their history, others none."""
        self._saved = _tensors("save_for_backward", tensors)

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Keep these for jvp, which otherwise finds what save_for_backward kept."""
        self._saved_forward = _tensors("save_for_forward", tensors)

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What was saved, in order."""
        return self._saved

    def mark_non_differentiable(self, *outputs: Tensor) -> None:
        """These outputs have no gradient; backward receives zeros for them."""
        self._fixed = _tensors("mark_non_differentiable", outputs)

    def mark_dirty(self, *inputs: Tensor) -> None:
        """These inputs were changed in place by forward, which must return them, too."""
        self._dirty = _tensors("mark_dirty", inputs)

    def set_materialize_grads(self, value: bool) -> None:
        """False: backward receives None, not zeros, for outputs that no gradient reaches."""
        self._materialize = bool(value)

    def taken(self) -> Any:
        """(saved, saved for jvp, non-differentiable, dirty); ctx holds them no longer."""
        marks = self._saved, self._saved_forward, self._fixed, self._dirty
        self._saved, self._saved_forward, self._fixed, self._dirty = (), None, (), ()
        return marks

    def seen_from(self, needs: tuple[bool, ...], saved: tuple[Any, ...]) -> FunctionCtx:
        """The same user attributes with the saved tensors of one level, history and all."""
        twin = FunctionCtx(needs)
        twin.__dict__ = self.__dict__
        twin._saved, twin._materialize = saved, self._materialize
        return twin


def _tensors(name: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    for i, value in enumerate(values):
        if value is not None and not isinstance(value, Operable):
            raise TypeError(f"{name}: argument {i} is of type {type(value).__name__}, not a tensor")
    return values
