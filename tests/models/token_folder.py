"""Folders of token shards for tests of training: the bytes of llm.c, a small vocabulary beside."""

from pathlib import Path
from zlib import crc32

import numpy as np

from tensorgrad.data import BPE
from tensorgrad.data.manifest import write_json


def vocabulary(size: int) -> BPE:
    """The bytes, then pairs of them, then the end of a text."""
    pairs = {bytes([33 + i // 90, 33 + i % 90]): 256 + i for i in range(size - 257)}
    return BPE({bytes([i]): i for i in range(256)} | pairs, f"made-{size}")


def write_bare_shard(path: Path, ids: np.ndarray) -> None:
    """As llm.c's data_common.py writes one."""
    header = np.zeros(256, np.int32)
    header[:3] = 20240520, 1, len(ids)
    path.write_bytes(header.tobytes() + ids.astype(np.uint16).tobytes())


def token_folder(folder: Path, train: np.ndarray, val: np.ndarray, size: int = 263) -> Path:
    """Shards of these ids with a manifest, which says that the vocabulary is of this size."""
    folder.mkdir(parents=True)
    parts = {"made_train_000001.bin": train, "made_val_000000.bin": val}
    for name, ids in parts.items():
        write_bare_shard(folder / name, ids)
    bpe = vocabulary(size)
    bpe.save(folder / "tokenizer.json")
    entries = [
        {"file": name, "tokens": len(ids), "crc32": f"{crc32(ids.astype('<u2').tobytes()):08x}"}
        for name, ids in parts.items()
    ]
    told = {"name": bpe.name, "n_vocab": bpe.n_vocab}
    manifest = {"tokenizer": told, "rank": 0, "world_size": 1, "shards": entries}
    write_json(folder / "manifest.json", manifest)
    return folder


def language(count: int, size: int = 263, seed: int = 0) -> np.ndarray:
    """Tokens of which four of five follow from the one before, and the others from nothing."""
    draws = np.random.default_rng(seed)
    row = [5]
    for noise, other in zip(draws.random(count), draws.integers(0, size - 1, count)):
        row.append((3 * row[-1] + 1) % 97 if noise < 0.8 else int(other))
    return np.array(row[:count])
