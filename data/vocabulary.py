"""Which tokenizer a preparation uses, and the texts that a new one is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from tensorgrad.data.shards import LARGEST_ID
from tensorgrad.data.sources import Source, Task, pieces, texts_of
from tensorgrad.data.streams import batches
from tensorgrad.data.tokens import BPE, get_tokenizer, train_bpe

SAMPLE = 2**26  # bytes of text


def vocabulary(
    tokenizer: str | BPE, sources: list[Source], text_key: str, vocab_size: int, download: bool
) -> BPE:
    """A BPE as it is, one that is named, or for "bpe" a new one; ValueError beyond 16 bits."""
    if isinstance(tokenizer, BPE):
        bpe = tokenizer
    elif tokenizer == "bpe":
        bpe = train_bpe(sample(sources, text_key), vocab_size)
    else:
        bpe = get_tokenizer(tokenizer, download)
    if bpe.n_vocab > LARGEST_ID + 1:
        raise ValueError(
            f"prepare: the vocabulary {bpe.name!r} has {bpe.n_vocab:,} ids, and a shard's 16 bits "
            f"hold {LARGEST_ID + 1:,}"
        )
    return bpe


def sample(sources: list[Source], text_key: str) -> Iterator[str]:
    """The texts of evenly spread tasks, about 64 MiB in all; of what is streamed, the first."""
    stride = 1 + sum(source.size for source in sources if source.local) // SAMPLE
    for source in sources:
        chosen: Iterator[Task]
        if source.local:
            chosen = islice(pieces(source, 0, source.size), 0, None, stride)
        else:
            chosen = first_bytes(task for task, _ in batches(source, text_key, 0, 1, None))
        for task in chosen:
            for _, text in texts_of(task, text_key):
                yield text


def first_bytes(tasks: Iterator[Task]) -> Iterator[Task]:
    left = SAMPLE
    for task in tasks:
        yield task
        left -= sum(map(len, task.texts))
        if left <= 0:
            return
