"""A folder of token shards as a trainer sees it: what it is, its vocabulary, and text <-> ids."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from tensorgrad.data.loader import find_shards
from tensorgrad.data.manifest import read_json
from tensorgrad.data.shards import Shard, ShardError
from tensorgrad.data.tokens import BPE, END_OF_TEXT, get_tokenizer

GPT2, GPT2_SIZE = "gpt2", 50257


class TokenVocab:
    """The vocabulary of shards: a name, a size, and the BPE itself, of GPT-2 only when asked.

    Training needs the size alone, so it works where GPT-2's vocabulary is not; encode and decode
    then raise FileNotFoundError with what to do.
    """

    opening = END_OF_TEXT
    """What a new text follows."""

    has_lines = True
    """Whether the end of a line is among the tokens."""

    def __init__(self, name: str, size: int, bpe: BPE | None = None) -> None:
        self.name, self.size = name, size
        if bpe is not None:
            self.bpe = bpe

    @cached_property
    def bpe(self) -> BPE:
        return get_tokenizer(GPT2)

    def encode(self, text: str) -> list[int]:
        """The ids of a text; `<|endoftext|>` at its start is the token, elsewhere it is letters."""
        begun = text.startswith(END_OF_TEXT)
        ids = self.bpe.encode(text.removeprefix(END_OF_TEXT) if begun else text)
        return [self.bpe.eot, *ids] if begun else ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        return self.bpe.decode(ids)

    @property
    def eot(self) -> int:
        """The id of `<|endoftext|>`, the last."""
        return self.size - 1

    def __len__(self) -> int:
        return self.size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenVocab) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.name, self.size))

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` takes: of GPT-2's vocabulary the name, of another all tokens."""
        own = None if self.name == GPT2 else self.bpe.to_dict()
        return {"name": self.name, "size": self.size, "bpe": own}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TokenVocab:
        bpe = None if data["bpe"] is None else BPE.from_dict(data["bpe"])
        return cls(data["name"], data["size"], bpe)


class About(NamedTuple):
    """What a checkpoint notes of its data."""

    name: str
    sha256: str


class TokenCorpus:
    """The shards of a folder.  OSError or ValueError, with a sentence, where there are none.

    Shards without a manifest, such as llm.c's, are taken to be of GPT-2's vocabulary.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder)
        self.shards = {split: find_shards(folder, split) for split in ("train", "val")}
        self.tokens = {
            split: sum(info.tokens if info else len(Shard(path)) for path, info in shards)
            for split, shards in self.shards.items()
        }
        entries = [
            (path.name, info.crc32 if info else path.stat().st_size)
            for shards in self.shards.values()
            for path, info in shards
        ]
        digest = hashlib.sha256(json.dumps(entries).encode()).hexdigest()
        self.text = About(self.path.name, digest)

    @cached_property
    def vocab(self) -> TokenVocab:
        """That of the manifest, whose tokens stand in tokenizer.json unless they are GPT-2's."""
        manifests = sorted(self.path.glob("manifest*.json"))
        if not manifests:
            return TokenVocab(GPT2, GPT2_SIZE)
        told = read_json(manifests[0])["tokenizer"]
        if told["name"] == GPT2:
            return TokenVocab(GPT2, told["n_vocab"])
        file = self.path / "tokenizer.json"
        bpe = BPE.load(file)
        if bpe.n_vocab != told["n_vocab"]:
            raise ShardError(
                f"{str(file)!r} has {bpe.n_vocab:,} ids, and the shards are of {told['name']} "
                f"with {told['n_vocab']:,}; prepare the folder again"
            )
        return TokenVocab(told["name"], bpe.n_vocab, bpe)
