"""llm.c's model files: 256 int32, then every tensor in one type, the vocabulary padded.

Version 3 holds float32, version 5 bfloat16; matrices are a Linear's, (out, in)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from tensorgrad.atomic import replacing
from tensorgrad.dtypes import as_dtype
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel
from tensorgrad.models.layers import undrawn
from tensorgrad.serialization import CheckpointError, unreadable

MAGIC, HEADER = 20240326, 1024
VERSIONS = {3: "float32", 5: "bfloat16"}
MULTIPLE = 128  # of rows in the padded vocabulary: 50,257 become 50,304
FIXED = (
    "n_inner", "activation_function", "bias", "norm_position", "tie_word_embeddings",
    "layer_norm_epsilon", "scale_attn_weights", "scale_attn_by_inverse_layer_idx",
)  # fmt: skip
LAYERED = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")


def tensor_names(n_layer: int) -> Iterator[str]:
    """The order of the file: each kind of tensor over all layers, then the next kind."""
    yield from ("transformer.wte.weight", "transformer.wpe.weight")
    for part in LAYERED:
        for kind in ("weight", "bias"):
            yield from (f"transformer.h.{i}.{part}.{kind}" for i in range(n_layer))
    yield from ("transformer.ln_f.weight", "transformer.ln_f.bias")


def load(path: str | os.PathLike[str], **settings: Any) -> GPT2LMHeadModel:
    """The model of a file, in float32 and evaluation mode; settings such as dropout are added.

    CheckpointError for a file that is damaged or no model of llm.c's GPT-2.
    """
    name = os.fspath(path)
    try:
        opened = open(name, "rb")  # noqa: SIM115
    except OSError as error:
        raise unreadable(name, error) from error
    with opened as file:
        head = file.read(HEADER)
        if len(head) < HEADER or int.from_bytes(head[:4], "little") != MAGIC:
            raise CheckpointError(f"{name!r} is no model of llm.c: it does not begin with {MAGIC}")
        version, T, V, n_layer, n_head, C, padded, *more = np.frombuffer(head, "<i4")[1:].tolist()
        if version not in VERSIONS:
            raise CheckpointError(
                f"{name!r} is of version {version}; tensorgrad reads 3 (float32) and 5 (bfloat16)"
            )
        dtype = as_dtype(VERSIONS[version])
        if min(T, V, n_layer, n_head, C) < 1 or padded != V + -V % MULTIPLE or any(more):
            raise CheckpointError(f"{name!r} is damaged: its sizes cannot be {head[8:36].hex(' ')}")
        rest = T * C + n_layer * (12 * C * C + 13 * C) + 2 * C
        wanted, size = HEADER + dtype.itemsize * (padded * C + rest), os.path.getsize(name)
        if size != wanted:
            raise CheckpointError(
                f"{name!r} is cut off or damaged: {size:,} bytes, and its header tells {wanted:,}"
            )
        sizes = {"vocab_size": V, "n_positions": T, "n_embd": C}
        try:
            config = GPT2Config(n_layer=n_layer, n_head=n_head, **sizes, **settings)
        except ValueError as error:
            raise CheckpointError(f"{name!r}: {error}") from error
        with undrawn():
            model = GPT2LMHeadModel(config)
        state = model.state_dict()
        for tensor in tensor_names(n_layer):
            array = state[tensor].array
            values = np.fromfile(
                file, dtype.newbyteorder("<") if version == 3 else "<u2", array.size
            )
            array.reshape(-1)[:] = values if version == 3 else values.view(dtype)
            if tensor == "transformer.wte.weight":
                beyond = file.read((padded - V) * C * dtype.itemsize)
                if any(beyond) or (beyond and not array[-1].any() and array.any()):
                    raise CheckpointError(
                        f"{name!r} is damaged: its header says {V:,} tokens, and the rows of zeros "
                        "begin elsewhere"
                    )
    return model.eval()


def save(path: str | os.PathLike[str], model: GPT2LMHeadModel, dtype: Any = "float32") -> None:
    """Write the model for llm.c, in float32 (version 3) or bfloat16 (version 5).

    ValueError for what its GPT-2 does not have.  The file is replaced whole.
    """
    config, dtype = model.config, as_dtype(dtype)
    version = {name: number for number, name in VERSIONS.items()}.get(dtype.name)
    if version is None:
        raise ValueError(f"llm.c's models are float32 or bfloat16, not {dtype}")
    plain = GPT2Config(
        **{
            name: getattr(config, name)
            for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
        }
    )
    odd = [name for name in FIXED if getattr(config, name) != getattr(plain, name)]
    if odd or type(config) is not GPT2Config:
        raise ValueError(
            f"llm.c knows the plain GPT-2 only; this one differs in {', '.join(odd) or 'its kind'}"
        )
    V = config.vocab_size
    beyond = -V % MULTIPLE
    header = np.zeros(256, "<i4")
    sizes = (config.n_positions, V, config.n_layer, config.n_head, config.n_embd, V + beyond)
    header[:8] = (MAGIC, version, *sizes)
    state = model.state_dict()
    with replacing(path) as file:
        file.write(header.tobytes())
        for tensor in tensor_names(config.n_layer):
            file.write(state[tensor].cpu().array.astype(dtype, order="C").tobytes())
            if tensor == "transformer.wte.weight":
                file.write(bytes(beyond * config.n_embd * dtype.itemsize))
