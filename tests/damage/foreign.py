"""The files of others that tensorgrad reads: transformers', llm.c's, nanoGPT's.

Without checksums only their structure can be held against itself: `alike` tells, by another reader
than ours, that a damaged file still has the structure of a sound one, and only values differ.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from tests.damage.ours import (
    CONFIG,
    IDS,
    INDEX,
    SECOND,
    SHARD_ERRORS,
    SHARDS,
    SIZES,
    WEIGHTS,
    Format,
    read_folder,
    read_model,
    read_settings,
    read_shards,
    read_tokenizer,
    still_settings,
    write_settings,
)

# ---- foreign: transformers


def theirs() -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(5)
    config = GPT2Config(**SIZES, n_inner=6, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)
    return model


def write_theirs(folder: Path) -> None:
    theirs().save_pretrained(folder)


def write_their_parts(folder: Path) -> None:
    theirs().save_pretrained(folder, max_shard_size=1000)


def write_their_halves(folder: Path) -> None:
    theirs().half().save_pretrained(folder)


def same_tensors(before: bytes, after: bytes, path: Path) -> bool:
    """The library reads the damaged file, and finds tensors of these names, types and shapes."""
    from safetensors import safe_open

    header = json.loads(before[8 : 8 + int.from_bytes(before[:8], "little")])
    header.pop("__metadata__", None)
    with safe_open(path, framework="np") as file:
        found = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        return {k: (v.get_dtype(), v.get_shape()) for k, v in found.items()} == {
            k: (v["dtype"], v["shape"]) for k, v in header.items()
        }


TOLD = {*SIZES, "model_type"}


def still_config(before: bytes, after: bytes, path: Path) -> bool:
    """JSON without a name given twice, with all sizes, and every value of a type as before."""
    twice = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice.extend(pairs[len(dict(pairs)) :])
        return dict(pairs)

    a, b = json.loads(before), json.loads(after.decode(), object_pairs_hook=once)
    numbers = {int, float}

    def fits(key: str) -> bool:
        x, y = a[key], b[key]
        optional = key.endswith("_token_id") or key == "n_inner"
        if optional and (y is None or type(y) is int or isinstance(y, list)):
            return True
        return type(x) is type(y) or (type(x) is float and {type(x), type(y)} <= numbers)

    ours = {*SIZES, "n_inner", "activation_function", "layer_norm_epsilon", "resid_pdrop",
            "embd_pdrop", "attn_pdrop", "initializer_range", "scale_attn_weights", "model_type",
            "scale_attn_by_inverse_layer_idx", "tie_word_embeddings", "bos_token_id",
            "eos_token_id", "pad_token_id"}  # fmt: skip
    told = ours & a.keys() & b.keys()
    sizes = SIZES.keys() - {"n_head"}  # the weights tell these too: another value must be found
    return (
        not twice and b.keys() >= SIZES.keys() and all(map(fits, told))
        and all(a[k] == b[k] for k in sizes)
    )  # fmt: skip


def write_letters(folder: Path) -> None:
    """GPT-2's vocab.json, of another 259 tokens."""
    from tensorgrad.data.tokens import byte_letters

    letters = [*byte_letters(), "th", "the", "\u0120a", "<|endoftext|>"]
    text = json.dumps({token: i for i, token in enumerate(letters)})
    (folder / "vocab.json").write_text(text)


def still_letters(before: bytes, after: bytes, path: Path) -> bool:
    """JSON without a name given twice, in which every number up to the last is a token's."""
    pairs: list[tuple[str, Any]] = json.loads(after.decode(), object_pairs_hook=list)
    ids = [i for token, i in pairs if token != "<|endoftext|>"]
    return len(dict(pairs)) == len(pairs) and sorted(ids) == list(range(len(ids)))


# ---- foreign: llm.c and nanoGPT


def llmc_bytes(version: int = 3) -> bytes:
    """A model file as llm.c's script lays it out."""
    import ml_dtypes

    V, T, L, H, C = 11, 5, 2, 2, 4
    header = np.zeros(256, "<i4")
    header[:8] = 20240326, version, T, V, L, H, C, 128
    rng = np.random.default_rng(1)
    table = np.zeros((128, C), np.float32)
    table[:V] = rng.normal(size=(V, C))
    rest = rng.normal(size=T * C + L * (12 * C * C + 13 * C) + 2 * C)
    body = np.concatenate([table.reshape(-1), rest])
    dtype = np.dtype("<f4") if version == 3 else np.dtype(ml_dtypes.bfloat16)
    return header.tobytes() + body.astype(dtype).tobytes()


def write_llmc(folder: Path) -> None:
    (folder / "model.bin").write_bytes(llmc_bytes())
    (folder / "model_bf16.bin").write_bytes(llmc_bytes(5))


def read_llmc(folder: Path) -> Any:
    from tensorgrad.models.weights import load_llmc

    names = ("model.bin", "model_bf16.bin")
    return [read_model(load_llmc(folder / name)) for name in names]


def same_model_header(before: bytes, after: bytes, path: Path) -> bool:
    """The same numbers, but for n_head, which nothing else tells; the length; zeros as padding."""
    a, b = (list(struct.unpack_from("<256i", raw)) for raw in (before, after))
    width = 4 if a[1] == 3 else 2
    start, end = 1024 + 11 * 4 * width, 1024 + 128 * 4 * width
    same = a[:5] + a[6:] == b[:5] + b[6:] and b[5] > 0 and b[6] % b[5] == 0
    return same and len(before) == len(after) and not any(after[start:end])


def write_llmc_shards(folder: Path) -> None:
    for i, ids in enumerate(IDS, 1):
        header = np.zeros(256, "<i4")
        header[:3] = 20240520, 1, len(ids)
        raw = header.tobytes() + ids.astype("<u2").tobytes()
        (folder / f"x_train_{i:06d}.bin").write_bytes(raw)


def same_shard_header(before: bytes, after: bytes, path: Path) -> bool:
    return before[:1024] == after[:1024] and len(before) == len(after)


def write_nanogpt(folder: Path) -> None:
    from safetensors.numpy import save_file

    rng = np.random.default_rng(2)
    V, T, C = 11, 5, 4
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (V, C), "wpe.weight": (T, C)}
    for i in range(2):
        shapes |= {
            f"h.{i}.ln_1.weight": (C,), f"h.{i}.attn.c_attn.weight": (3 * C, C),
            f"h.{i}.attn.c_proj.weight": (C, C), f"h.{i}.ln_2.weight": (C,),
            f"h.{i}.mlp.c_fc.weight": (4 * C, C), f"h.{i}.mlp.c_proj.weight": (C, 4 * C),
        }  # fmt: skip
    shapes["ln_f.weight"] = (C,)
    state = {f"transformer.{k}": rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    args = {
        "n_layer": 2, "n_head": 2, "n_embd": C, "block_size": T, "bias": False, "vocab_size": V,
        "dropout": 0.0,
    }  # fmt: skip
    save_file(state, folder / "nano.safetensors", {"model_args": json.dumps(args)})


def read_nanogpt(folder: Path) -> Any:
    from tensorgrad.models.weights import load_nanogpt

    return read_model(load_nanogpt(folder / "nano.safetensors"))


FOREIGN = {
    "settings": Format(
        write_settings, ("settings.json",), read_settings, alike=still_settings,
    ),
    "transformers' weights": Format(
        write_theirs, (WEIGHTS,), read_folder, alike=same_tensors
    ),
    "transformers' weights in float16": Format(
        write_their_halves, (WEIGHTS,), read_folder, alike=same_tensors
    ),
    "transformers' parts": Format(
        write_their_parts, (SECOND,), read_folder, alike=same_tensors
    ),
    "transformers' indices": Format(write_their_parts, (INDEX,), read_folder),
    "transformers' configs": Format(write_theirs, (CONFIG,), read_folder, alike=still_config),
    "transformers' vocabularies": Format(
        write_letters, ("vocab.json",), read_tokenizer, alike=still_letters, errors=SHARD_ERRORS
    ),
    "llm.c's models": Format(
        write_llmc, ("model.bin", "model_bf16.bin"), read_llmc, alike=same_model_header
    ),
    "llm.c's shards": Format(
        write_llmc_shards, SHARDS, read_shards, alike=same_shard_header, errors=SHARD_ERRORS
    ),
    "nanoGPT's weights": Format(
        write_nanogpt, ("nano.safetensors",), read_nanogpt, alike=same_tensors
    ),
}  # fmt: skip
