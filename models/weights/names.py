"""Names of GPT-2's tensors in files, and the way of each into the model."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.models.weights.tensors import TensorFile
from tensorgrad.serialization import CheckpointError

TURNED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
"""What Hugging Face's Conv1D stores as (in, out), the transpose of a Linear's (out, in)."""

MASK = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)$")  # old files carry the causal mask along
HEAD, TABLE = "lm_head.weight", "transformer.wte.weight"


class Route(NamedTuple):
    """A tensor of a file, what to do with it, and the model's weight that it is about."""

    file: TensorFile
    name: str
    act: str  # "load", "compare" with what a tied weight already has, want "zero", or "skip"
    target: str
    turned: bool


def load_into(
    model: Any, files: Sequence[TensorFile], where: str, turned: bool | None = None
) -> None:
    """Every weight of the model from the files; CheckpointError tells all that does not fit.

    turned: whether matrices are Conv1D's, (in, out); None: the shape of c_attn tells.
    """
    arrays = {name: tensor.array for name, tensor in model.state_dict().items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if turned is None:
        turned = any(has_conv1d(file) for file in files)
    for file, name, act, target, turn in routes(model, files, shapes, where, turned):
        if act == "load":
            file.read(name, arrays[target], turn)
            continue
        entry = file.entries[name]
        found = np.empty(entry.shape, entry.dtype)
        file.read(name, found)
        if act == "zero" and found.any():
            raise CheckpointError(f"{where!r} has {name}, and the model is without biases")
        if act == "compare" and not np.array_equal(found, arrays[target]):
            raise CheckpointError(
                f"{where!r} has an {HEAD} of its own, and the model ties it to {TABLE}; give "
                "tie_word_embeddings=False"
            )
    for file in files:
        file.check()


def routes(
    model: Any, files: Sequence[TensorFile], shapes: dict[str, tuple[int, ...]], where: str,
    turned: bool,
) -> list[Route]:  # fmt: skip
    """What becomes of each tensor, in the order of their names in each file."""
    found: list[Route] = []
    problems: list[str] = []
    came: set[str] = set()
    tied = model.config.tie_word_embeddings
    for file in files:
        for name in sorted(file.entries):
            target, shape, turn = canonical(name), file.entries[name].shape, False
            if MASK.search(target):
                act = "skip"
            elif target in shapes:
                turn = turned and target.endswith(TURNED)
                if (shape[::-1] if turn else shape) != shapes[target]:
                    problems.append(f"'{name}' is {shape}, for a weight of {shapes[target]}")
                target = shared(target) if tied else target
                act = "compare" if target in came else "load"
                came.add(target)
            elif target.endswith(".bias") and f"{target[:-5]}.weight" in shapes:
                act = "zero"
            else:
                near = difflib.get_close_matches(target, shapes, 1)
                problems.append(f"'{name}' is unknown" + (f", near {near[0]}" if near else ""))
                continue
            found.append(Route(file, name, act, target, turn))
    wanted = dict.fromkeys(shared(name) if tied else name for name in shapes)
    problems += [f"'{name}' is missing" for name in wanted if name not in came]
    if problems:
        more = f"; and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise CheckpointError(f"{where!r} does not fit the model: {'; '.join(problems[:6])}{more}")
    return found


def canonical(name: str) -> str:
    """The model's name for a file's: `_orig_mod.` stripped, `transformer.` added."""
    name = name.removeprefix("_orig_mod.")
    return name if name.startswith(("lm_head.", "transformer.")) else f"transformer.{name}"


def shared(name: str) -> str:
    """The name under which a tied head's weight (and scale, if it is int8) is kept."""
    kept, head = TABLE.rpartition(".")[0], HEAD.rpartition(".")[0]
    return f"{kept}{name.removeprefix(head)}" if name.startswith(f"{head}.") else name


def has_conv1d(file: TensorFile) -> bool:
    """Whether the file's matrices are (in, out): c_attn is (C, 3 C) and not (3 C, C)."""
    shapes = (e.shape for name, e in file.entries.items() if name.endswith("attn.c_attn.weight"))
    return any(len(shape) == 2 and shape[1] > shape[0] for shape in shapes)
