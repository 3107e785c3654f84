"""What an evaluation reads: a text or a folder of token shards as ids, and their size in bytes."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tensorgrad.data import BPE, CharVocab, WordVocab, read_text
from tensorgrad.data.loader import TokenRow, find_shards
from tensorgrad.data.manifest import read_json
from tensorgrad.models.evaluation import Ids, Perplexity
from tensorgrad.models.inspection.opening import TOKENIZER, VOCAB, opened, vocabulary, weights
from tensorgrad.models.training.token_corpus import GPT2, TokenVocab


class Reading(NamedTuple):
    """ids (T,), and how many bytes of text those after the first stand for; None if unknown."""

    ids: Ids
    bytes: int | None


class Reader:
    """A model in evaluation mode, and its vocabulary, which is opened when first asked for.

    The arguments are those of `inspection.opening.opened`.  ValueError for a model of words.
    """

    def __init__(
        self, model: str | None = None, out_dir: str = "out", tokenizer: str | None = None,
        device: str = "cpu", download: bool = False,
    ) -> None:  # fmt: skip
        self.path, self.tokenizer, self.download = model, tokenizer, download
        self._vocab: Any = None
        if model is not None:
            self.model: Any = weights(model, device)
            return
        self.model, self._vocab = opened(None, out_dir, tokenizer, device, download)
        if isinstance(self._vocab, WordVocab):
            raise ValueError(
                f"the model of {out_dir!r} reads words, each by itself, and evaluate is for models "
                "of text; its losses on training, validation and test words end `tensorgrad train`"
            )

    @property
    def vocab(self) -> Any:
        """Its own, or the one that was named; OSError or ValueError where there is none."""
        if self._vocab is None:
            self._vocab = vocabulary(self.path or "", self.tokenizer, self.download)
        return self._vocab

    @property
    def own(self) -> Any:
        """The vocabulary where it is certain, as it lies beside the model or was named; or None."""
        beside = [os.path.join(self.path or "", name) for name in (TOKENIZER, VOCAB)]
        known = self._vocab is not None or self.tokenizer or any(map(os.path.exists, beside))
        return self.vocab if known else None

    def read(
        self, source: str, split: str = "val", limit: int | None = None, name: str | None = None
    ) -> Reading:
        """The first `limit` tokens of a text file, or of a split of a folder of shards."""
        if limit is not None and limit < 2:
            raise ValueError(f"limit must be at least 2 tokens, the first is given; it is {limit}")
        if not os.path.isdir(source):
            ids = np.asarray(self.vocab.encode(read_text(source).text))[:limit]
            return Reading(ids, stands_for(ids[1:], self.vocab))
        row = TokenRow(find_shards(source, split, name))
        vocab = self.of_shards(source)
        ids = row.read(0, min(len(row), limit or len(row)))
        return Reading(ids, stands_for(ids[1:], vocab))

    def of_shards(self, folder: str) -> Any:
        """The vocabulary of the shards, as far as it is known; ValueError where it is not ours."""
        theirs, ours = told_of(folder), self.own
        a, b = tokens_of(theirs), tokens_of(ours)
        if theirs is None or ours is None:
            same = not isinstance(ours, CharVocab)  # shards hold tokens
        else:
            same = len(theirs) == len(ours) and (a is None or b is None or a.ranks == b.ranks)
        if not same:
            raise ValueError(
                f"the shards in {folder!r} were made with "
                f"{'another vocabulary' if theirs is None else theirs.name}, and the model reads "
                f"{getattr(ours, 'name', 'characters')}; prepare them with the model's"
            )
        return a or b


def told_of(folder: str) -> TokenVocab | None:
    """What `tensorgrad prepare` left with the shards: a vocabulary, or GPT-2's name."""
    file = os.path.join(folder, TOKENIZER)
    if os.path.exists(file):
        bpe = BPE.load(file)
        return TokenVocab(bpe.name, bpe.n_vocab, bpe)
    for manifest in sorted(Path(folder).glob("manifest*.json")):
        told = read_json(manifest).get("tokenizer", {})
        if told.get("name") == GPT2:
            return TokenVocab(GPT2, told["n_vocab"])
    return None


def tokens_of(vocab: Any) -> BPE | None:
    """The BPE of a vocabulary, if it has one and it is on this machine."""
    try:
        found = vocab.bpe if isinstance(vocab, TokenVocab) else vocab
    except FileNotFoundError:
        return None
    return found if isinstance(found, BPE) else None


def stands_for(ids: Ids, vocab: Any) -> int | None:
    """How many bytes of UTF-8 the ids are; <|endoftext|> is none.  None without a vocabulary."""
    bpe = tokens_of(vocab)
    if isinstance(vocab, CharVocab):
        lengths = [len(symbol.encode("utf-8", "surrogatepass")) for symbol in vocab.symbols]
    elif bpe is not None:
        lengths = [0] * bpe.n_vocab
        for token, i in bpe.ranks.items():
            lengths[i] = len(token)
    else:
        return None
    if ids.size and ids.max() >= len(lengths):
        raise ValueError(f"id {ids.max()} is none of the {len(lengths):,} of {vocab!r}")
    counts = np.bincount(ids.astype(np.int64), minlength=len(lengths))
    return int(counts @ np.array(lengths))


def bits_per_byte(found: Perplexity, bytes: int | None) -> float | None:
    """The loss of all tokens in bits, shared out over the bytes of their text."""
    return found.loss * found.tokens / math.log(2) / bytes if bytes else None
