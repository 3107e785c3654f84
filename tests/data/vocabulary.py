"""Vocabularies for the tests of data: GPT-2's where this machine has it, and a small one."""

import os
import random
from functools import cache
from pathlib import Path

import pytest

from tensorgrad.data import BPE, names_text, train_bpe
from tests.tree import ROOT

CACHE = ROOT.parent / "shared" / "data" / "tiktoken"


@cache
def small() -> BPE:
    return train_bpe([names_text().text[:40_000]], 499)


@cache
def of_blanks() -> BPE:
    """One with tokens of many blanks, in which a cut between two blanks shows."""
    draw = random.Random(0)
    letters = "ab1's. \n\t\r\u00a0\u3000\x1c"
    return train_bpe(["".join(draw.choices(letters, k=20_000))], 999)


def gpt2_cache() -> Path:
    """The folder of GPT-2's vocabulary; skips the test where there is none."""
    folder = Path(os.environ.get("TIKTOKEN_CACHE_DIR") or CACHE)
    if not (folder / "6d1cbeee0f20b3d9449abfede4726ed8212e3aee").is_file():
        pytest.skip(f"needs GPT-2's vocabulary in {folder}")
    return folder
