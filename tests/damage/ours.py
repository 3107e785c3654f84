"""The files that tensorgrad writes: how each is made and read.

They carry checksums, so every damage is found or changes nothing.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.damage.damages import INTS, JSONS, TENSORS, Maker

Alike = Callable[[bytes, bytes, Path], bool]

SHARDS = ("x_train_000001.bin", "x_train_000002.bin")
SHARD_ERRORS = ("ShardError",)
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
SECOND = "model-00002-of-00002.safetensors"


def never(before: bytes, after: bytes, path: Path) -> bool:
    return False


@dataclass(frozen=True)
class Format:
    """write fills a folder; one of `files` is damaged; read gives what a user would have of it."""

    write: Callable[[Path], None]
    files: tuple[str, ...]
    read: Callable[[Path], Any]
    makers: dict[str, tuple[Maker, ...]] = field(default_factory=dict)  # by the name's ending
    alike: Alike = never
    errors: tuple[str, ...] = ("CheckpointError",)  # besides OSError and its kin

    def makers_of(self, name: str) -> tuple[Maker, ...]:
        kinds = {".json": JSONS, ".safetensors": TENSORS, ".bin": INTS} | self.makers
        return next(makers for end, makers in kinds.items() if name.endswith(end))


def plain(node: Any) -> Any:
    """A tree as tuples that are equal only where types, shapes and all bits are."""
    if isinstance(node, np.ndarray | np.generic):
        array = np.asarray(node)
        return type(node).__name__, array.dtype.name, array.shape, array.tobytes()
    if isinstance(node, dict):
        return "dict", tuple(sorted(((repr(k), plain(v)) for k, v in node.items())))
    if isinstance(node, list | tuple):
        return type(node).__name__, tuple(map(plain, node))
    return type(node).__name__, repr(node)


# ---- ours: shards, their manifest, a vocabulary

IDS = (np.arange(1, 800, 13), np.arange(50_000, 50_031))


def write_shards(folder: Path) -> None:
    from tensorgrad.data import write_shard
    from tensorgrad.data.manifest import write_json

    shards = []
    for i, ids in enumerate(IDS, 1):
        name = f"x_train_{i:06d}.bin"
        info = write_shard(folder / name, ids)
        shards.append({"split": "train", "file": name, **info._asdict()})
    write_json(folder / "manifest.json", {"rank": 0, "world_size": 1, "shards": shards})


def read_shards(folder: Path) -> Any:
    from tensorgrad.data import TokenLoader
    from tensorgrad.data.manifest import read_manifests

    with TokenLoader(folder, 1, sum(map(len, IDS)) - 1, prefetch=False) as loader:
        return plain([loader.next_batch(), read_manifests(folder)])


def write_tokenizer(folder: Path) -> None:
    from tensorgrad.data.tokens import BPE

    tokens = [bytes([i]) for i in range(256)] + [b"th", b"the", b"\xc3\xa9"]
    BPE({token: i for i, token in enumerate(tokens)}, "tiny").save(folder / "tokenizer.json")


def read_tokenizer(folder: Path) -> Any:
    from tensorgrad.models.inspection.opening import vocabulary

    bpe = vocabulary(str(folder), None)  # which must not take a damaged file for a foreign one
    return bpe.name, bpe.pattern, tuple(bpe.ranks.items())


# ---- ours: checkpoints


def tree() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    w = rng.normal(size=(5, 3)).astype(np.float32)
    return {
        "model": {"h.0.w": w, "h.1.w": w[::-1].copy(), "b": rng.integers(0, 9, 3), "tied": w},
        "step": 17, "lr": 3e-4, "best": float("inf"), "name": 'ab\n"é', "none": None, "on": True,
        "betas": (0.9, 0.99), "moments": {0: {"m": w * 2}, 1: {"m": w * 3}}, "count": np.int64(7),
        "order": [3, 1, 2], "rng": np.arange(7, dtype=np.uint32),
    }  # fmt: skip


def write_tree(folder: Path) -> None:
    from tensorgrad.serialization import save_tree

    save_tree(folder / "state.safetensors", tree())


def read_tree(folder: Path) -> Any:
    from tensorgrad.serialization import load_tree

    return plain(load_tree(folder / "state.safetensors"))


def write_arrays(folder: Path) -> None:
    from tensorgrad.serialization import save_arrays

    save_arrays(folder / "a.safetensors", tree()["model"], {"step": "17", "note": 'a \n"word" é'})


def read_arrays(folder: Path) -> Any:
    from tensorgrad.serialization import load_arrays

    return plain(load_arrays(folder / "a.safetensors"))


def without_metadata(before: bytes, after: bytes, path: Path) -> bool:
    """Our file with all metadata cut out is a sound file of the library's: its arrays are right."""
    from safetensors import safe_open
    from safetensors.numpy import load

    with safe_open(path, framework="np") as file:
        return not file.metadata() and plain(load(after)) == plain(load(before))


def write_run(folder: Path) -> None:
    from tensorgrad.data import CharVocab
    from tensorgrad.models.training.char_lm import CHAR_GPT
    from tensorgrad.models.training.folder import RunFolder

    vocab = CharVocab.from_text("hello world")
    config = CHAR_GPT.config(vocab_size=len(vocab), block_size=5, n_layer=1, n_head=2, n_embd=4)
    model = {k: v.cpu().array for k, v in CHAR_GPT.model(config).state_dict().items()}
    recipe = CHAR_GPT.recipe(max_iters=3)
    RunFolder(folder).save(
        {
            "kind": CHAR_GPT.kind, "config": config.to_dict(), "recipe": recipe.to_dict(),
            "vocab": vocab.to_dict(), "text": {"path": None, "name": "hello", "sha256": "0"},
            "trainer": {"step": 3, "model": model},
        }
    )  # fmt: skip


def read_run(folder: Path) -> Any:
    from tensorgrad.models.training.char_lm import restored
    from tensorgrad.models.training.folder import RunFolder

    model, vocab = restored(folder)
    state = {k: v.array for k, v in model.state_dict().items()}
    return plain([RunFolder(folder).load(), state, vocab.symbols, model.config.to_dict()])


# ---- ours: GPT-2 in Hugging Face's form

SIZES = {"vocab_size": 11, "n_positions": 5, "n_embd": 4, "n_layer": 2, "n_head": 2}


def model_of(**settings: Any) -> Any:
    import tensorgrad as tg
    from tensorgrad.models.variants import create_gpt2_model

    tg.manual_seed(3)
    model = create_gpt2_model(**SIZES | {"n_inner": 6} | settings).eval()
    for p in model.parameters():
        p.data += tg.randn(*p.shape) * 0.1  # biases and norms away from their first values
    return model


def write_folder(folder: Path) -> None:
    model_of(eos_token_id=3).save_pretrained(folder)


def write_parts(folder: Path) -> None:
    model_of().save_pretrained(folder, max_shard_size=1000)


def write_variant(folder: Path) -> None:
    from tensorgrad.nn import lora

    model = model_of(positions="rope", n_kv_head=1, mlp="swiglu", norm="rmsnorm", n_inner=None)
    lora.inject(model, ["c_attn"], rank=2, alpha=4)
    model.save_pretrained(folder)


def read_folder(folder: Path) -> Any:
    from tensorgrad.models.gpt2 import GPT2LMHeadModel

    return read_model(GPT2LMHeadModel.from_pretrained(folder))


def read_model(model: Any) -> Any:
    adapters = [(m.rank, m.scaling) for m in model.modules() if hasattr(m, "lora_A")]
    state = {k: v.array for k, v in model.state_dict().items()}
    return plain([type(model.config).__name__, model.config.to_dict(), adapters, state])


# ---- settings, which are part of a checkpoint and have no file


def write_settings(folder: Path) -> None:
    (folder / "settings.json").write_text(json.dumps(model_of().config.to_dict()))


def read_settings(folder: Path) -> Any:
    """What JSON lets through, with the file's name on what is not JSON."""
    from tensorgrad.models.gpt2 import GPT2Config
    from tensorgrad.models.weights.hugging_face import read_json

    path = folder / "settings.json"
    told = read_json(str(path))
    try:
        return plain(GPT2Config.from_dict(told).to_dict())
    except (TypeError, ValueError) as error:  # the two that are documented
        if "\n" in str(error) or not str(error):
            raise
        raise OSError(f"{str(path)!r}: {error}") from error


def still_settings(before: bytes, after: bytes, path: Path) -> bool:
    """Without a checkpoint's checksum settings are what they say; a missing one, its default."""
    told = json.loads(after)
    return bool(told.keys() <= json.loads(before).keys())


OURS = {
    "shards": Format(write_shards, SHARDS, read_shards, errors=SHARD_ERRORS),
    "manifests": Format(write_shards, ("manifest.json",), read_shards, errors=SHARD_ERRORS),
    "tokenizers": Format(
        write_tokenizer, ("tokenizer.json",), read_tokenizer,
        errors=("ShardError", "CheckpointError"),
    ),
    "checkpoints": Format(write_tree, ("state.safetensors",), read_tree),
    "checkpoints of arrays": Format(
        write_arrays, ("a.safetensors",), read_arrays, alike=without_metadata
    ),
    "checkpoints of runs": Format(write_run, ("ckpt.safetensors",), read_run),
    "configs": Format(write_folder, (CONFIG,), read_folder),
    "configs of variants": Format(write_variant, (CONFIG,), read_folder),
    "weights": Format(write_folder, (WEIGHTS,), read_folder),
    "weights in parts": Format(write_parts, (INDEX, SECOND, CONFIG), read_folder),
}  # fmt: skip
