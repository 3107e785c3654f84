"""From text to integers to batches, imported as tensorgrad.data."""

if __name__ != "tensorgrad.data":
    raise ImportError(
        "the folder data/ is a part of tensorgrad: write `from tensorgrad.data import ...`, "
        "not `import data`"
    )

from tensorgrad.data.bigram import bigram_loss
from tensorgrad.data.char_dataset import CharDataset
from tensorgrad.data.chars import CharVocab
from tensorgrad.data.collate import PadCollate, default_collate
from tensorgrad.data.dataloader import DataLoader
from tensorgrad.data.datasets import (
    ConcatDataset,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    TextDataset,
    random_split,
)
from tensorgrad.data.loader import TokenLoader
from tensorgrad.data.names import WordVocab, contexts, names, split_words, words_of
from tensorgrad.data.packing import (
    PackedDataset,
    block_diagonal_mask,
    document_ids,
    position_ids,
)
from tensorgrad.data.samplers import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
)
from tensorgrad.data.shakespeare import shakespeare
from tensorgrad.data.shards import Shard, ShardError, write_shard
from tensorgrad.data.text import Text, default_text, names_text, read_text
from tensorgrad.data.tokens import BPE, get_tokenizer, train_bpe
from tensorgrad.data.windows import all_windows, random_windows, split

__all__ = [
    "BPE",
    "BatchSampler",
    "CharDataset",
    "CharVocab",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "IterableDataset",
    "PackedDataset",
    "PadCollate",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Shard",
    "ShardError",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "Text",
    "TextDataset",
    "TokenLoader",
    "WordVocab",
    "all_windows",
    "bigram_loss",
    "block_diagonal_mask",
    "contexts",
    "default_collate",
    "default_text",
    "document_ids",
    "get_tokenizer",
    "names",
    "names_text",
    "position_ids",
    "random_split",
    "random_windows",
    "read_text",
    "shakespeare",
    "split",
    "split_words",
    "train_bpe",
    "words_of",
    "write_shard",
]
