"""Folders as Hugging Face's transformers has them: config.json and model.safetensors.

Matrices are stored as its Conv1D has them, (in, out), and turned on the way in and out."""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import fields
from typing import Any
from zlib import crc32

import numpy as np

from tensorgrad.atomic import replacing
from tensorgrad.data.manifest import checksum
from tensorgrad.dtypes import as_dtype
from tensorgrad.models.aliases import canonical
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel
from tensorgrad.models.layers import undrawn
from tensorgrad.models.variants import VariantConfig, gpt2_config
from tensorgrad.models.weights.adapted import adapt, described, is_adapted
from tensorgrad.models.weights.names import TURNED, check_room, load_into, shared
from tensorgrad.models.weights.tensors import Array, TensorFile
from tensorgrad.serialization import (
    MARK,
    CheckpointError,
    as_bytes,
    brief,
    portable,
    save_arrays,
    unreadable,
)

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
CONFIG_CRC, MODEL_CRC = "crc32.config", "crc32.model"
"""What our weights' metadata say of config.json, and of the weights in all files of a model.

What transformers has read from there it does not save again; it would from config.json.
"""


def load(
    path: str | os.PathLike[str], kind: type[Any] = GPT2LMHeadModel, *, dtype: Any = None,
    device: Any = None, revision: str | None = None, **settings: Any,
) -> Any:  # fmt: skip
    """The model of a folder, or of a name on Hugging Face's hub, in evaluation mode.

    dtype: float32 by default, whatever the file has.  settings take the place of config.json's.
    FileNotFoundError where there is no such folder, CheckpointError (a ValueError) for files that
    are damaged or of another model, or a config.json changed since `save` wrote it; OSError where
    the hub cannot be reached.
    """
    folder = found(os.fspath(path), revision)
    file = os.path.join(folder, CONFIG)
    told = read_json(file)
    weights, files = weight_files(folder)
    check_origin(file, told, files)
    config = read_config(file, told, settings)
    where = f"{weights!r}, with {CONFIG},"
    check_room(config, files, where)
    try:
        with undrawn():
            model = kind(config)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{file!r}: {error}") from error
    adapters = told.get(ADAPTERS, {}) if told.get("model_type") == OURS else {}
    try:
        adapt(model, adapters, [name for file in files for name in file.entries])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{file!r}: {ADAPTERS}: {error}") from error
    load_into(model, files, where, None if is_gpt2(model) else False)
    if dtype is not None or device is not None:
        model.to(dtype=dtype, device=device)
    return model.eval()


def save(
    path: str | os.PathLike[str], model: Any, *, dtype: Any = None,
    max_shard_size: int | None = None,
) -> None:  # fmt: skip
    """Write config.json and model.safetensors (tied weights once) into a folder, made if needed.

    dtype: the weights' own by default.  max_shard_size: bytes in a file; more make several files
    and an index.  A plain GPT-2 opens in transformers; where it has no biases they are zeros there.
    int8 weights and LoRA adapters are written as they are, and come back.
    """
    folder = os.fspath(path)
    os.makedirs(folder, exist_ok=True)
    arrays = outward(model, as_dtype(dtype) if dtype is not None else None)
    told = written_config(model) | {
        "dtype": next(a for a in arrays.values() if a.dtype != np.int8).dtype.name
    }
    total = sum(array.nbytes for array in arrays.values())
    shards = divided(arrays, max_shard_size or total)
    about = {"format": "pt", CONFIG_CRC: f"{MARK} {checksum(told)}"}
    if len(shards) > 1:
        about[MODEL_CRC] = values_sum(arrays)
    places: dict[str, str] = {}
    for i, names in enumerate(shards, 1):
        name = WEIGHTS if len(shards) == 1 else f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        save_arrays(os.path.join(folder, name), {n: arrays[n] for n in names}, about)
        places |= dict.fromkeys(names, name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": places}
        write_json(os.path.join(folder, INDEX), index)
        remove(os.path.join(folder, WEIGHTS))
    else:
        remove(os.path.join(folder, INDEX))
    write_json(os.path.join(folder, CONFIG), told)


def values_sum(arrays: Mapping[str, Array]) -> str:
    """One CRC-32 of all weights, which tells the files of one model from another's."""
    found = 0
    for name in sorted(arrays):
        found = crc32(as_bytes(portable(name, arrays[name])).data, found)
    return f"{MARK} {found:08x}"


LAYER = re.compile(r"(\.h\..*|ln_f)\.weight$")  # what has a bias in Hugging Face's files


def outward(model: Any, dtype: Any) -> dict[str, Array]:
    """The weights by Hugging Face's names, matrices as views turned to (in, out)."""
    config, plain, arrays = model.config, is_gpt2(model), {}
    for name, tensor in model.state_dict().items():
        if config.tie_word_embeddings and shared(name) != name:
            continue
        array = tensor.cpu().array
        array = array if dtype is None or array.dtype == np.int8 else array.astype(dtype)
        arrays[name] = array.T if plain and name.endswith(TURNED) else array
        if plain and not config.bias and LAYER.search(name):
            arrays[f"{name[:-6]}bias"] = np.zeros(arrays[name].shape[-1], array.dtype)
    return arrays


def divided(arrays: Mapping[str, Array], most: int) -> list[list[str]]:
    """Names in groups that take at most so many bytes, one name at least in each."""
    groups: list[list[str]] = [[]]
    room = most
    for name, array in arrays.items():
        if array.nbytes > room and groups[-1]:
            groups.append([])
            room = most
        groups[-1].append(name)
        room -= array.nbytes
    return groups


# ---- configurations

OURS, ADAPTERS = "tensorgrad-gpt2", "lora"
"""model_type of what transformers has no class for, and the key of its LoRA adapters."""


def is_gpt2(model: Any) -> bool:
    """Whether transformers' GPT-2 computes the same."""
    plain = type(model.config) is GPT2Config and model.config.norm_position == "pre"
    return plain and not is_adapted(model)


def written_config(model: Any) -> dict[str, Any]:
    """What config.json says."""
    told: dict[str, Any] = model.config.to_dict()
    if is_gpt2(model):
        names = ("bias", "norm_position", "vocab_multiple")  # ours: said where they differ
        told = {
            name: value
            for name, value in told.items()
            if name not in names or value != getattr(GPT2Config, name)
        }
        return {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"} | told
    adapters = described(model)
    told |= {ADAPTERS: adapters} if adapters else {}
    return {"architectures": ["tensorgrad.models.variants"], "model_type": OURS} | told


def read_config(path: str, told: Mapping[str, Any], settings: Mapping[str, Any]) -> GPT2Config:
    """The settings in a config.json; what does not concern the forward pass is left aside."""
    kind = told.get("model_type", "gpt2")
    if kind not in ("gpt2", OURS):
        raise CheckpointError(f"{path!r} is of a model of type {brief(repr(kind))}, not of a GPT-2")
    if told.get("add_cross_attention"):
        raise CheckpointError(f"{path!r} asks for cross-attention, which this GPT-2 does not have")
    known = {f.name for f in fields(VariantConfig if kind == OURS else GPT2Config)}
    about = {"architectures", "model_type", "dtype", ADAPTERS}
    wanted = set(told) - about if kind == OURS else known
    for name in set(told) - known:
        near = next((k for k in known - set(told) if one_letter_apart(k, name)), None)
        if near is not None:
            raise CheckpointError(f"{path!r} is damaged: it says {name!r}, and not {near!r}")
    values = {name: value for name, value in told.items() if name in wanted}
    vocab = values.get("vocab_size", GPT2Config.vocab_size)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        token = values.get(name)
        if isinstance(token, int) and isinstance(vocab, int) and not 0 <= token < vocab:
            warnings.warn(
                f"{path!r}: {name} {token} is not among the {vocab} tokens of the vocabulary, and "
                "is taken as None",
                stacklevel=4,
            )
            values[name] = None
    try:
        values |= canonical(dict(settings), known)
        if "n_head" not in values:
            raise ValueError("it does not tell n_head, which no weight tells; give n_head=")
        return gpt2_config(**values)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path!r}: {brief(str(error), 600)}") from error


def one_letter_apart(a: str, b: str) -> bool:
    return len(a) == len(b) and sum(x != y for x, y in zip(a, b)) == 1


def check_origin(path: str, told: Mapping[str, Any], files: list[TensorFile]) -> None:
    """CheckpointError where config.json, or one of several files, is not of the same saving."""
    for file in files:
        said = file.metadata.get(CONFIG_CRC)
        if said is not None and said != f"{MARK} {checksum(dict(told))}":
            raise CheckpointError(
                f"{path!r} is damaged, or was changed since {file.path!r} was written: its "
                "checksum is another; give other settings to from_pretrained, or save the model "
                "with them"
            )
        if any(file.metadata.get(k) != files[0].metadata.get(k) for k in (CONFIG_CRC, MODEL_CRC)):
            raise CheckpointError(
                f"{files[0].path!r} and {file.path!r} are of two models; save the model anew"
            )


# ---- files


def found(path: str, revision: str | None) -> str:
    """The folder itself, or the one into which the hub's files of this name were fetched."""
    if os.path.isdir(path):
        return path
    if os.path.exists(path) or not re.fullmatch(r"[\w][\w.-]*(/[\w][\w.-]*)?", path):
        raise FileNotFoundError(
            f"cannot read {path!r}: there is no such folder; from_pretrained takes a folder with "
            f"{CONFIG} and {WEIGHTS}, or a name on Hugging Face's hub such as 'gpt2'"
        )
    return fetched(path, revision)


def fetched(name: str, revision: str | None) -> str:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError as error:
        raise ImportError(
            f"there is no folder {name!r}, and to fetch a model of this name from Hugging Face's "
            "hub the package huggingface_hub is needed: pip install huggingface_hub"
        ) from error

    def fetch(file: str) -> str:
        return str(hf_hub_download(name, file, revision=revision))

    try:
        config = fetch(CONFIG)
        try:
            fetch(WEIGHTS)
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            for file in sorted(set(read_json(fetch(INDEX))["weight_map"].values())):
                fetch(file)
    except (OSError, ValueError) as error:
        raise OSError(
            f"there is no folder {name!r}, and the model {name!r} could not be fetched from "
            f"Hugging Face's hub: {str(error).splitlines()[0]}"
        ) from error
    return os.path.dirname(config)


def weight_files(folder: str) -> tuple[str, list[TensorFile]]:
    """The one file, or those that the index names; and before them, the file or the index."""
    whole, index = os.path.join(folder, WEIGHTS), os.path.join(folder, INDEX)
    if os.path.exists(whole):
        return whole, [TensorFile(whole)]
    if not os.path.exists(index):
        old = os.path.exists(os.path.join(folder, "pytorch_model.bin"))
        raise FileNotFoundError(
            f"{folder!r} has no {WEIGHTS}"
            + ("; pytorch_model.bin is pickled, which runs code: save it as safetensors" * old)
        )
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(n, str) for n in places.values()):
        raise CheckpointError(f"{index!r} has no sound weight_map")
    files = []
    for name in sorted(set(places.values())):
        file = os.path.join(folder, name)
        if os.path.basename(name) != name or not name.isprintable():
            raise CheckpointError(f"{index!r} names {brief(name)!r}, a file outside of its folder")
        if not os.path.isfile(file):
            raise CheckpointError(
                f"{index!r} names {brief(name)!r}, and there is no such file beside it"
            )
        files.append(TensorFile(file))
        listed = {tensor for tensor, place in places.items() if place == name}
        differing = sorted(listed ^ files[-1].entries.keys())
        if differing:
            raise CheckpointError(
                f"{index!r} and {file!r} do not agree: only one of them has {brief(differing[0])!r}"
            )
    return index, files


def read_json(path: str) -> dict[str, Any]:
    """The table in a file; CheckpointError where it is none, or says a thing twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            raise ValueError("it says something twice")
        return table

    def finite(word: str) -> float:
        if not math.isfinite(number := float(word)):
            raise ValueError(f"{word[:20]} is no finite number")
        return number

    def whole(word: str) -> int:
        if len(word) > 20:
            raise ValueError(f"a number of {len(word):,} digits")
        return int(word)

    try:
        with open(path, encoding="utf-8") as file:
            told = json.load(
                file, object_pairs_hook=once, parse_float=finite, parse_constant=finite,
                parse_int=whole,
            )  # fmt: skip
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path!r} is no sound JSON: {error}") from error
    if not isinstance(told, dict):
        raise CheckpointError(f"{path!r} is no table of names and values")
    return told


def write_json(path: str, told: Mapping[str, Any]) -> None:
    with replacing(path) as file:
        file.write((json.dumps(told, indent=2) + "\n").encode())


def remove(path: str) -> None:
    """What an earlier save left must not be read in the place of this one."""
    if os.path.exists(path):
        os.remove(path)
