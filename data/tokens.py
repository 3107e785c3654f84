"""Byte-level BPE: GPT-2's vocabulary, or one trained on your own text; tiktoken does the work.

Radford et al. 2019, section 2.2; Sennrich et al. 2016.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from tensorgrad.data.manifest import read_json, write_json
from tensorgrad.data.shards import ShardError

if TYPE_CHECKING:
    import tiktoken

END_OF_TEXT = "<|endoftext|>"
# GPT-2's way of cutting text into pieces that merge within themselves, in tiktoken's faster words.
PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
)  # fmt: skip
BLANK = r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"  # the pattern's \s
LONG = 2**18  # blanks in a row; its look-ahead overflows the stack of tiktoken at some 800,000
KIND = "byte-level BPE"
URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
GPT2_FILES = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}


class BPE:
    """Text <-> ids: bytes joined pair by pair, the pair of lowest rank first.

    `ranks` maps the bytes of each token to its id, in the order of merging; the special token
    `<|endoftext|>` has the id after them, `eot`.  `encode` takes any text, and never gives `eot`:
    the characters "<|endoftext|>" in a text are characters.  Raises ValueError for ranks that lack
    one of the 256 bytes or are not 0 .. n - 1.
    """

    def __init__(self, ranks: Mapping[bytes, int], name: str, pattern: str = PATTERN) -> None:
        self.ranks, self.name, self.pattern = dict(ranks), name, pattern
        missing = [byte for byte in range(256) if bytes([byte]) not in self.ranks]
        if missing:
            raise ValueError(f"BPE: {name!r} lacks the byte {missing[0]}; all 256 must be tokens")
        if set(self.ranks.values()) != set(range(len(self.ranks))):
            raise ValueError(f"BPE: the ids of {name!r} are not 0 to {len(self.ranks) - 1}")
        self.eot = len(self.ranks)
        self.n_vocab = self.eot + 1

    @cached_property
    def encoding(self) -> tiktoken.Encoding:
        """The same vocabulary as tiktoken's object."""
        import tiktoken

        return tiktoken.Encoding(
            self.name,
            pat_str=self.pattern,
            mergeable_ranks=self.ranks,
            special_tokens={END_OF_TEXT: self.eot},
            explicit_n_vocab=self.n_vocab,
        )

    def encode(self, text: str) -> list[int]:
        """The ids of a text; lone surrogates become U+FFFD."""
        encode = self.encoding.encode_ordinary
        if len(text) <= LONG:
            return encode(text)
        # A run of blanks is one piece but for its last, so nothing changes by a cut before that.
        ends = [run.end() - 1 for run in re.finditer(BLANK + f"{{{LONG},}}(?!{BLANK})", text)]
        cuts = [0, *(end for end in ends if end < len(text) - 1), len(text)]
        return [i for start, end in pairwise(cuts) for i in encode(text[start:end])]

    def decode(self, ids: Sequence[int] | np.ndarray[Any, Any]) -> str:
        """The text of ids, U+FFFD where they break a character; IndexError for an unknown id."""
        ids = [int(i) for i in ids]
        outside = [i for i in ids if not 0 <= i < self.n_vocab]
        if outside:
            raise IndexError(
                f"decode: id {outside[0]} is outside the vocabulary {self.name!r} of {self.n_vocab}"
            )
        return self.encoding.decode(ids)

    def __len__(self) -> int:
        return self.n_vocab

    def __repr__(self) -> str:
        return f"BPE({self.name!r}, {self.n_vocab:,} ids)"

    @cached_property
    def crc32(self) -> str:
        """Eight letters that two equal vocabularies share."""
        return f"{crc32(repr((self.pattern, self._tokens)).encode()):08x}"

    @property
    def _tokens(self) -> list[str]:
        """The tokens' bytes in the order of their ids, as JSON can hold them."""
        by_id = {i: token for token, i in self.ranks.items()}
        return [base64.b64encode(by_id[i]).decode() for i in range(self.eot)]

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` takes: ready for JSON."""
        return {"kind": KIND, "name": self.name, "pattern": self.pattern, "tokens": self._tokens}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BPE:
        """The vocabulary that `to_dict` described; ValueError where the data is something else."""
        try:
            if data["kind"] != KIND:
                raise ValueError(f"its kind is {data['kind']!r}, not {KIND!r}")
            tokens = [base64.b64decode(token, validate=True) for token in data["tokens"]]
            return cls({token: i for i, token in enumerate(tokens)}, data["name"], data["pattern"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"BPE.from_dict: this is no vocabulary: {error}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON with a checksum, whole or not at all."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BPE:
        """What `save` wrote.  Raises ShardError for a damaged or foreign file, OSError."""
        data = read_json(path)
        try:
            return cls.from_dict(data)
        except ValueError as error:
            raise ShardError(f"{os.fspath(path)!r} holds no vocabulary: {error}") from None


def get_tokenizer(name: str | os.PathLike[str], download: bool = False) -> BPE:
    """`gpt2`, or the file that `BPE.save` wrote.  ValueError for another name."""
    if name == "gpt2":
        return gpt2(download)
    if not os.path.exists(name):
        raise ValueError(
            f"tokenizer: {os.fspath(name)!r} is neither 'gpt2' nor a file of a vocabulary; "
            "`tensorgrad prepare --tokenizer bpe` trains one on the text and writes tokenizer.json"
        )
    return BPE.load(name)


def gpt2(download: bool = False) -> BPE:
    """GPT-2's 50,257 tokens, out of tiktoken's cache; `download` allows to fetch them first.

    Raises FileNotFoundError, with what to do, where the cache lacks them: nothing is fetched that
    was not asked for.
    """
    missing = None if download else missing_from_cache()
    if missing:
        raise FileNotFoundError(missing)
    from tiktoken_ext.openai_public import gpt2 as parts

    try:
        found = parts()
    except Exception as error:  # requests' errors, and whatever a proxy answers
        raise OSError(f"gpt2's vocabulary could not be fetched from {URL}: {error}") from error
    return BPE(found["mergeable_ranks"], "gpt2", found["pat_str"])


def missing_from_cache() -> str | None:
    """Why tiktoken would go to the network for gpt2, as a sentence; None if it would not.

    It looks where tiktoken looks, and checks the sums itself: tiktoken deletes a file whose sum is
    wrong and fetches it again.
    """
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder is None:
        folder = os.path.join(tempfile.gettempdir(), "data-gym-cache")
    for name, sha256 in GPT2_FILES.items():
        path = Path(folder, hashlib.sha1((URL + name).encode()).hexdigest())
        if not folder or not path.is_file():
            problem = "is not on this machine"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            problem = f"is damaged ({str(path)!r} is not {name})"
        else:
            continue
        return (
            f"gpt2's vocabulary {problem}: fetch it with --download (once; tiktoken keeps it in "
            "$TIKTOKEN_CACHE_DIR), copy that folder from a machine that has it, or train a "
            "vocabulary on your own text with --tokenizer bpe"
        )
    return None


def train_bpe(texts: Iterable[str], vocab_size: int, name: str | None = None) -> BPE:
    """A byte-level BPE of `vocab_size` ids, `<|endoftext|>` included, trained on texts.

    Equal texts give equal vocabularies; fewer ids where the texts have no more pairs to join.
    Raises ValueError for fewer than 257 ids.  The library tokenizers trains (`.[data]` installs
    it).
    """
    if vocab_size < 257:
        raise ValueError(f"train_bpe: 256 bytes and one mark take 257 ids, not {vocab_size}")
    try:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    except ImportError as error:
        raise ImportError(
            "train_bpe needs the library tokenizers: pip install tokenizers"
        ) from error
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((well_formed(text) for text in texts), trainer)
    ids = tokenizer.get_vocab()
    byte_of = byte_letters()
    tokens = sorted(ids, key=ids.__getitem__)
    ranks = {bytes(byte_of[letter] for letter in token): i for i, token in enumerate(tokens)}
    bpe = BPE(ranks, name or "bpe")
    if name is None:
        bpe.name = f"bpe-{bpe.n_vocab}-{bpe.crc32}"
    return bpe


def well_formed(text: str) -> str:
    """The text with U+FFFD for lone surrogates, as tiktoken reads it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def byte_letters() -> dict[str, int]:
    """GPT-2's letter for each byte, back to the byte: printable ones stand for themselves."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + i): b for i, b in enumerate(others)}
