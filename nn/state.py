"""Loading a state_dict: all that does not fit is told at once, and nothing is changed then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tensorgrad import memory
from tensorgrad.backend import device_of, is_array, move
from tensorgrad.tensor import Tensor


class IncompatibleKeys(NamedTuple):
    """What load_state_dict found beyond what matched."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing={self.missing_keys}, unexpected={self.unexpected_keys})"


def load(
    name: str, own: Mapping[str, Tensor], given: Mapping[str, Any], strict: bool, assign: bool
) -> IncompatibleKeys:
    """Copy values into the tensors of the same names; `name` is the module's, for the error."""
    if not isinstance(given, Mapping):
        raise TypeError(f"Expected state_dict to be dict-like, got {type(given).__name__}.")
    missing = [key for key in own if key not in given]
    unexpected = [key for key in given if key not in own]
    arrays = {key: _as_array(given[key]) for key in own if key in given}
    problems = _unknown(missing, unexpected) if strict else []
    problems += [problem for key in arrays if (problem := _unfit(key, arrays[key], own[key]))]
    if problems:
        told = "\n\t".join(problems)
        raise RuntimeError(f"Error(s) in loading state_dict for {name}:\n\t{told}")
    for key, array in arrays.items():
        tensor = own[key]
        if assign:
            tensor.data = Tensor(array)
        else:
            tensor.array[...] = move(array, device_of(tensor.array))
            memory.stamp(tensor.array)
    return IncompatibleKeys(missing, unexpected)


def _as_array(value: Any) -> Any:
    """The array behind a Tensor or an array; of anything else what NumPy makes of it."""
    if isinstance(value, Tensor):
        return value.array
    return value if is_array(value) else np.asarray(value)


def _unfit(key: str, array: Any, own: Tensor) -> str:
    if array.dtype.kind in "OUSMm":
        return f"{key} is no tensor but {array.dtype} data."
    if array.shape == own.shape:
        return ""
    return (
        f"size mismatch for {key}: copying a param with shape {array.shape} from checkpoint, "
        f"the shape in current model is {own.shape}."
    )


def _unknown(missing: list[str], unexpected: list[str]) -> list[str]:
    """The lines about names; for the first few unexpected ones the nearest that is missing."""
    from difflib import get_close_matches

    lines = []
    for what, names in (("Missing", missing), ("Unexpected", unexpected)):
        if names:
            quoted = ", ".join(f'"{name}"' for name in names)
            lines.append(f"{what} key(s) in state_dict: {quoted}. ")
    for name in unexpected[:5]:
        lines += [
            f'"{name}" resembles the missing "{near}".'
            for near in get_close_matches(name, missing, 1)
        ]
    return lines
