"""nanoGPT's state as safetensors: its names, a Linear's orientation, biases only where it has some.

What is no tensor in its checkpoint (model_args) stands in the file's metadata."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

from tensorgrad.dtypes import as_dtype
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel
from tensorgrad.models.layers import undrawn
from tensorgrad.models.weights.names import HEAD, LAYER, TABLE, canonical, check_room, load_into
from tensorgrad.models.weights.tensors import TensorFile
from tensorgrad.serialization import CheckpointError, brief, save_arrays

ARGS, ACTIVATION = "model_args", "activation_function"
FIXED = {
    "norm_position": "pre", "tie_word_embeddings": True, "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
}  # fmt: skip
PADDED, TOKENS = 50304, 50257
"""nanoGPT pads GPT-2's vocabulary to a multiple of 64; the rows behind have no token."""


def load(path: str | os.PathLike[str], **settings: Any) -> GPT2LMHeadModel:
    """The model of a file, in float32 and evaluation mode.

    The sizes are read off the tensors, n_head from the metadata, or give it.  nanoGPT's GELU is the
    exact one; activation_function="gelu_new" for weights that came from OpenAI.  Of 50,304 rows of
    the vocabulary 50,257 are kept, unless vocab_size=50304 is given.  CheckpointError for a file
    that is damaged or of another model.
    """
    name = os.fspath(path)
    file = TensorFile(name)
    shapes = {canonical(key): entry.shape for key, entry in file.entries.items()}
    try:
        args = json.loads(file.metadata.get(ARGS, "{}"))
        if not isinstance(args, dict):
            raise ValueError(f"its {ARGS} are no table")
        rows, C = shapes["transformer.wte.weight"]
        sizes = {
            "n_positions": shapes["transformer.wpe.weight"][0],
            "n_embd": C,
            "n_layer": 1 + max(int(m[1]) for key in shapes if (m := LAYER.match(key))),
            "bias": "transformer.ln_f.bias" in shapes,
        }
        given = {"n_head": args["n_head"]} if "n_head" in args else {}
        given |= {"dropout": args["dropout"]} if "dropout" in args else {}
        own = {"vocab_size": rows, "block_size": sizes["n_positions"]} | sizes
        for key in own.keys() & args.keys():
            if args[key] != own[key]:
                raise ValueError(f"{ARGS} say {key} {args[key]!r}, and its tensors {own[key]!r}")
    except (KeyError, ValueError, TypeError, IndexError, RecursionError) as error:
        raise CheckpointError(f"{name!r} is no model of nanoGPT: {brief(repr(error))}") from error
    vocab = settings.pop("vocab_size", TOKENS if rows == PADDED else rows)
    if "n_head" not in given | settings:
        raise CheckpointError(f"{name!r} does not tell the number of heads; give n_head=")
    given |= {"activation_function": file.metadata.get(ACTIVATION, "gelu")}
    try:
        config = GPT2Config(vocab_size=rows, **sizes, **(given | settings))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{name!r}: {brief(str(error), 600)}") from error
    check_room(config, [file], repr(name))
    with undrawn():
        model = GPT2LMHeadModel(config)
    load_into(model, [file], repr(name))
    return model.eval() if vocab == rows else cut(model, vocab).eval()


def save(path: str | os.PathLike[str], model: GPT2LMHeadModel, dtype: Any = None) -> None:
    """Write the model's state by nanoGPT's names; tied weights once, under the embedding's.

    `safetensors.torch.load_model` puts such a file into nanoGPT's GPT.  ValueError for what that
    does not have; the activation stands in the metadata, where nanoGPT does not look.
    """
    config = model.config
    odd = [name for name, value in FIXED.items() if getattr(config, name) != value]
    if type(config) is not GPT2Config or config.n_inner not in (None, 4 * config.n_embd) or odd:
        raise ValueError(
            "nanoGPT knows the plain GPT-2 only; this one differs in "
            f"{', '.join(odd) or 'its kind or n_inner'}"
        )
    args = {
        "n_layer": config.n_layer, "n_head": config.n_head, "n_embd": config.n_embd,
        "block_size": config.n_positions, "bias": config.bias, "vocab_size": config.vocab_size,
        "dropout": config.resid_pdrop,
    }  # fmt: skip
    arrays = {
        name: tensor.cpu().array if dtype is None else tensor.cpu().array.astype(as_dtype(dtype))
        for name, tensor in model.state_dict().items()
        if name != HEAD
    }
    save_arrays(path, arrays, {ARGS: json.dumps(args), ACTIVATION: config.activation_function})


def cut(model: GPT2LMHeadModel, vocab: int) -> GPT2LMHeadModel:
    """The model with the first so many tokens of its vocabulary."""
    with undrawn():
        smaller = GPT2LMHeadModel(replace(model.config, vocab_size=vocab))
    state = model.state_dict()
    rows = {name: state[name][:vocab] for name in (TABLE, HEAD)}
    smaller.load_state_dict(state | rows)
    return smaller
