"""Names of GPT-2's tensors in files, and the way of each into the model."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.dtypes import as_dtype
from tensorgrad.models.weights.tensors import Array, TensorFile
from tensorgrad.serialization import CheckpointError, brief

TURNED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
"""What Hugging Face's Conv1D stores as (in, out), the transpose of a Linear's (out, in)."""

MASK = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)$")  # old files carry the causal mask along
HEAD, TABLE = "lm_head.weight", "transformer.wte.weight"
LAYER = re.compile(r"transformer\.h\.(0|[1-9]\d{0,8})\.")
FLOATS = ("float16", "bfloat16", "float32", "float64")
SLACK = 1 << 20
"""Numbers by which a model may be too large for its files and still be made, to say what lacks."""


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

    where: the files, as an error calls them.  turned: whether matrices are Conv1D's, (in, out);
    None: the shape of c_attn tells.
    """
    arrays = {name: tensor.array for name, tensor in model.state_dict().items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if turned is None:
        turned = any(has_conv1d(file) for file in files)
    ways = routes(model, files, shapes, where, turned)
    check_types(ways, arrays)
    for file, name, act, target, turn in ways:
        if act == "load":
            file.read(name, arrays[target], turn)
            continue
        entry = file.entries[name]
        found = np.empty(math.prod(entry.shape), as_dtype(entry.dtype))
        file.read(name, found)
        if act == "zero" and found.any():
            raise CheckpointError(f"{where} has {name}, and the model is without biases")
        if act == "compare" and not np.array_equal(found, arrays[target].reshape(-1)):
            raise CheckpointError(
                f"{where} has an {HEAD} of its own, and the model ties it to {TABLE}; give "
                "tie_word_embeddings=False"
            )
    for file in files:
        file.check()


def check_room(config: Any, files: Sequence[TensorFile], where: str) -> None:
    """CheckpointError for a model far larger than its files: before memory is asked for.

    At least two square matrices and two of the MLP's (of each expert's) are in every block.
    """
    C, experts = config.n_embd, getattr(config, "moe_num_experts", None) or 1
    needed = config.n_layer * 2 * C * (C + (config.n_inner or C) * experts)
    rows = config.n_positions if getattr(config, "positions", "learned") == "learned" else 0
    needed += (config.vocab_size + rows) * C
    held = sum(math.prod(e.shape) for file in files for e in file.entries.values())
    layers = {m[1] for file in files for n in file.entries if (m := LAYER.match(canonical(n)))}
    if needed > held + SLACK or config.n_layer > 2 * len(layers) + 16:
        raise CheckpointError(
            f"{where} does not fit: a model of {config.n_layer:,} layers and at least {needed:,} "
            f"weights, and tensors of {len(layers):,} layers and {held:,} numbers"
        )


def check_types(ways: Sequence[Route], arrays: Mapping[str, Array]) -> None:
    """CheckpointError for weights of a type that weights do not have: their bytes were others."""
    halves: dict[str, Route] = {}
    for route in ways:
        if route.act == "skip":
            continue
        dtype = route.file.entries[route.name].dtype
        kept = arrays[route.target].dtype.name if route.target in arrays else "float32"
        if (dtype == "int8") != (kept == "int8") or dtype not in (*FLOATS, "int8"):
            raise CheckpointError(
                f"{route.file.path!r} has {route.name!r} in {dtype}, and the model has {kept}"
            )
        if dtype in FLOATS[:2]:
            halves[dtype] = route
    if len(halves) > 1:
        a, b = (halves[dtype] for dtype in FLOATS[:2])
        raise CheckpointError(
            f"{a.file.path!r} has {a.name!r} in float16, and {b.file.path!r} {b.name!r} in "
            "bfloat16; no model is written in both"
        )


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
        home = f" in {os.path.basename(file.path)}" if len(files) > 1 else ""
        for name in sorted(file.entries):
            target, shape, turn = canonical(name), file.entries[name].shape, False
            if MASK.search(target):
                act = "skip"
            elif target in shapes:
                turn = turned and target.endswith(TURNED)
                wanted_shape = shapes[target][::-1] if turn else shapes[target]
                if shape != wanted_shape:
                    problems.append(f"{name!r} is {shape}{home}, for a weight of {wanted_shape}")
                target = shared(target) if tied else target
                act = "compare" if target in came else "load"
                came.add(target)
            elif target.endswith(".bias") and f"{target[:-5]}.weight" in shapes:
                act = "zero"
            else:
                near = [f", near {match}" for match in difflib.get_close_matches(target, shapes, 1)]
                problems.append(f"{name!r} is unknown{home}{''.join(near)}")
                continue
            found.append(Route(file, name, act, target, turn))
    wanted = dict.fromkeys(shared(name) if tied else name for name in shapes)
    problems += [f"'{name}' is missing" for name in wanted if name not in came]
    if problems:
        more = f"; and {len(problems) - 6} more" if len(problems) > 6 else ""
        told = "; ".join(brief(problem, 300) for problem in problems[:6])
        raise CheckpointError(f"{where} does not fit the model: {told}{more}")
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
