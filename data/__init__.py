"""From text to integers to batches, imported as tensorgrad.data."""

if __name__ != "tensorgrad.data":
    raise ImportError(
        "the folder data/ is a part of tensorgrad: write `from tensorgrad.data import ...`, "
        "not `import data`"
    )

from tensorgrad.data.bigram import bigram_loss
from tensorgrad.data.chars import CharVocab
from tensorgrad.data.text import Text, default_text, names_text, read_text
from tensorgrad.data.windows import all_windows, random_windows, split

__all__ = [
    "CharVocab",
    "Text",
    "all_windows",
    "bigram_loss",
    "default_text",
    "names_text",
    "random_windows",
    "read_text",
    "split",
]
