"""The model to look into, and its vocabulary: a run's folder, or a GPT-2 in Hugging Face's form."""

from __future__ import annotations

import os
from operator import index
from typing import Any

from tensorgrad.data.shards import ShardError
from tensorgrad.data.tokens import BPE, END_OF_TEXT, byte_letters, get_tokenizer
from tensorgrad.models.weights.hugging_face import read_json

VOCAB, TOKENIZER = "vocab.json", "tokenizer.json"


def opened(
    model: str | None = None, out_dir: str = "out", tokenizer: str | None = None,
    device: str = "cpu", download: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """(model in evaluation mode, vocabulary) of a folder of GPT-2 or, without one, of a run.

    model: a folder with config.json and model.safetensors, or a name on Hugging Face's hub.  Its
    vocabulary is `tokenizer` (gpt2, or a file), or the folder's own, or GPT-2's; download allows to
    fetch that.  OSError or ValueError, with a sentence, where something is missing.
    """
    if model is None:
        from tensorgrad.models.training.ladder import revived

        _, found, vocab = revived(out_dir, device)
        return found, vocab if tokenizer is None else get_tokenizer(tokenizer, download)
    return weights(model, device), vocabulary(model, tokenizer, download)


def weights(path: str, device: str = "cpu") -> Any:
    """The GPT-2 of a folder or of the hub."""
    from tensorgrad.models.gpt2 import GPT2LMHeadModel

    if not os.path.isdir(path) and (os.path.isabs(path) or path.startswith(".")):
        raise FileNotFoundError(f"there is no folder {path!r} with a model")
    return GPT2LMHeadModel.from_pretrained(path, device=device)


def vocabulary(folder: str, tokenizer: str | None, download: bool = False) -> BPE:
    """The vocabulary of a folder: one that is named, its own, or GPT-2's."""
    if tokenizer is not None:
        return get_tokenizer(tokenizer, download)
    own = os.path.join(folder, TOKENIZER)
    if os.path.exists(own) and "model" not in read_json(own):  # which Hugging Face's has
        return BPE.load(own)
    theirs = os.path.join(folder, VOCAB)
    return from_letters(theirs) if os.path.exists(theirs) else get_tokenizer("gpt2", download)


def from_letters(path: str) -> BPE:
    """GPT-2's vocab.json: each token in letters that stand for bytes, its id the order of merging.

    ShardError (a ValueError) for a file that is something else.
    """
    byte_of = byte_letters()
    try:
        ranks = {
            bytes(byte_of[letter] for letter in token): index(i)
            for token, i in read_json(path).items()
            if token != END_OF_TEXT
        }
        return BPE(ranks, path)
    except (KeyError, TypeError, ValueError) as error:
        raise ShardError(f"{path!r} is no vocabulary of GPT-2's kind: {error}") from None
