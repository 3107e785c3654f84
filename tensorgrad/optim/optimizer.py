"""Optimizer: groups of parameters with options, a state per parameter, steps in place."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, ClassVar

import numpy as np

from tensorgrad import memory
from tensorgrad.backend import device_of, is_array, move, xp_of
from tensorgrad.mode import enable_grad
from tensorgrad.tensor import Tensor

Group = dict[str, Any]
Array = Any

_AT_LEAST_ZERO = (
    "lr", "eps", "weight_decay", "momentum", "alpha", "lr_decay", "initial_accumulator_value",
)  # fmt: skip


class Optimizer:
    """The base of optimisers.  A subclass writes `update`, its formula for one parameter.

    params: Tensors, (name, Tensor) pairs, or dicts {"params": ..., options unlike the defaults}.
    param_groups: those dicts, made complete.  state: what is remembered of each parameter.
    """

    moments: ClassVar[tuple[str, ...]] = ()
    """Names in the state that hold one number per element of the parameter."""

    elementwise: ClassVar[bool] = True
    """Whether `update` treats each number by itself, so that a tensor may be cut in parts"""

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError(
                f"{self._name}: params should be an iterable of Tensors or dicts, not a Tensor; "
                "write [tensor]"
            )
        self.defaults = defaults
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[Group] = []
        given = _ordered(self._name, params)
        if not given:
            raise ValueError(f"{self._name} got an empty parameter list")
        for group in given if isinstance(given[0], dict) else [{"params": given}]:
            self.add_param_group(group)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def add_param_group(self, param_group: Group) -> None:
        """Optimise more parameters from now on: {"params": ..., options}.

        TypeError for what is no Tensor, ValueError for parameters or options that cannot be.
        """
        if not isinstance(param_group, dict):
            raise TypeError(
                f"{self._name}: param_group must be a dict, not {type(param_group).__name__}"
            )
        group = dict(param_group)
        given = group["params"]
        given = [given] if isinstance(given, Tensor) else _ordered(self._name, given)
        names = [entry[0] for entry in given if isinstance(entry, tuple)]
        group["params"] = [entry[1] if isinstance(entry, tuple) else entry for entry in given]
        named = [bool(names), *("param_names" in other for other in self.param_groups)]
        if len(names) not in (0, len(given)) or len(set(named)) > 1:
            raise ValueError(
                f"{self._name}: all parameters must be given with names, or all without"
            )
        if names:
            group["param_names"] = names
        for option, value in self.defaults.items():
            group.setdefault(option, value)
        self._check_parameters(group["params"])
        self.check(group)
        self.param_groups.append(group)

    def _check_parameters(self, params: list[Any]) -> None:
        for i, p in enumerate(params):
            if not isinstance(p, Tensor):
                raise TypeError(
                    f"{self._name} can only optimize Tensors, parameter {i} is {type(p).__name__}"
                )
            if not (p.is_leaf or p.retains_grad):
                raise ValueError(f"{self._name}: can't optimize a non-leaf Tensor (parameter {i})")
        if len(set(params)) != len(params):
            raise ValueError(
                f"{self._name}: some parameters appear more than once in a parameter group"
            )
        if not self._all().isdisjoint(params):
            raise ValueError(
                f"{self._name}: some parameters appear in more than one parameter group"
            )

    def _all(self) -> set[Tensor]:
        return {p for group in self.param_groups for p in group["params"]}

    def check(self, group: Group) -> None:
        """Raise ValueError for options out of range."""
        for option in _AT_LEAST_ZERO:
            if option in group and not group[option] >= 0:
                raise ValueError(
                    f"{self._name}: {option} must be at least 0, it is {group[option]}"
                )
        for i, beta in enumerate(group.get("betas", ())):
            if not 0 <= beta < 1:
                raise ValueError(f"{self._name}: betas[{i}] must be in [0, 1), it is {beta}")

    # ---- stepping

    def update(self, param: Tensor, g: Array, group: Group) -> None:
        """Change param.array in place; g is its gradient, negated already to maximize."""
        raise TypeError(f"{self._name} has no update(param, g, group) and no step of its own")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns closure(), which is called first."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for group in self.param_groups:
            maximize = group.get("maximize")
            for p in group["params"]:
                grad = p.grad
                if grad is None:
                    continue
                g, array = grad.array, p.array
                if g.shape != array.shape:
                    raise RuntimeError(
                        f"{self._name}: a gradient of shape {g.shape} for a parameter of "
                        f"shape {p.shape}"
                    )
                self.update(p, -g if maximize else g, group)
                memory.stamp(array)
        return loss

    def remembered(self, param: Tensor, *names: str) -> list[Array]:
        """The arrays of these names in the parameter's state, zeros at first."""
        state = self.state[param]
        for name in names:
            if name not in state:
                state[name] = Tensor(xp_of(param.array).zeros_like(param.array))
        return [state[name].array for name in names]

    def counted(self, param: Tensor) -> int:
        """The number of this step for the parameter, 1 at first; kept as PyTorch keeps it."""
        state = self.state[param]
        count = state.get("step")
        if count is None:
            count = state["step"] = Tensor(np.zeros((), np.float32))
        count.array += 1
        return int(count.array)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or fill them with zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None if set_to_none or p.grad is None else p.grad.detach().zero_()

    # ---- states

    def state_dict(self) -> dict[str, Any]:
        """{"state": {i: {name: Tensor}}, "param_groups": [{options, "params": [i, ...]}]}.

        Parameters are numbered in the order of the groups; the Tensors share memory with this.
        """
        number = {
            p: i for i, p in enumerate(chain(*(group["params"] for group in self.param_groups)))
        }
        groups = [
            {**group, "params": [number[p] for p in group["params"]]} for group in self.param_groups
        ]
        state = {number[p]: dict(entries) for p, entries in self.state.items() if entries}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a copy of what `state_dict` returned, in each parameter's dtype and place.

        Tensors or arrays.  ValueError where groups or shapes do not fit, and nothing is changed.
        """
        given = state_dict["param_groups"]
        sizes, own = ([len(g["params"]) for g in groups] for groups in (given, self.param_groups))
        if len(sizes) != len(own):
            raise ValueError(
                f"{self._name}: loaded state dict has a different number of parameter groups: "
                f"{len(sizes)}, this optimizer {len(own)}"
            )
        if sizes != own:
            raise ValueError(
                f"{self._name}: loaded state dict contains a parameter group that doesn't match "
                f"the size of optimizer's group: {sizes} parameters, this optimizer {own}"
            )
        numbers = chain(*(group["params"] for group in given))
        params = chain(*(group["params"] for group in self.param_groups))
        at = dict(zip(numbers, params, strict=True))
        state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        for number, entries in state_dict["state"].items():
            if number not in at:
                raise ValueError(
                    f"{self._name}: the loaded state has a parameter {number!r}, its groups do not"
                )
            p = at[number]
            state[p] = {key: self._taken(number, p, key, value) for key, value in entries.items()}
        for group, new in zip(self.param_groups, given, strict=True):
            group.update(
                {key: copy.deepcopy(value) for key, value in new.items() if key != "params"}
            )
        self.state = state

    def _taken(self, number: int, p: Tensor, key: str, value: Any) -> Any:
        """A copy of one entry of the state, as this optimiser keeps it."""
        if key == "step":
            return Tensor(np.array(float(value), np.float32))
        if not isinstance(value, Tensor) and not is_array(value):
            return copy.deepcopy(value)
        array = value.array if isinstance(value, Tensor) else value
        if key in self.moments and array.shape != p.shape:
            raise ValueError(
                f"{self._name}: {key} of parameter {number} has shape {array.shape} in the loaded "
                f"state dict, the parameter {p.shape}; are the parameters in the same order?"
            )
        return Tensor(move(array, device_of(p.array)).astype(p.dtype))

    def __repr__(self) -> str:
        lines = [f"{self._name} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])


def _ordered(name: str, params: Iterable[Any]) -> list[Any]:
    if isinstance(params, set | frozenset):
        raise TypeError(
            f"{name}: parameters in a set come in another order in every run; use a list instead"
        )
    return list(params)
