"""The lessons are all there; that their programs print what they promise, test_readme.py sees."""

import re

import pytest

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.models.budget import budget
from tensorgrad.models.gpt2 import GPT2Config
from tensorgrad.models.mini_gpt import Block, GPTConfig, PostNormBlock
from tests.tree import ROOT

PAGE = (ROOT / "docs" / "lessons.md").read_text(encoding="utf-8")
LESSONS = dict(re.findall(r"^## \d\. (.*)\n([\s\S]*?)(?=^## |\Z)", PAGE, re.M))


@pytest.mark.parametrize("id_, words", [
    ("F1.7", ("columns `0..i`", "pre-LN", "post-LN", "Greedy", "Top-k", "Top-p", "Temperature")),
    ("G2.c5", ("batch size", "Width", "`reshape` copies nothing")),
    ("G2.d8", ("*saturated*", "*dead*", "Xavier", "He et al.", "LeakyReLU", "ELU", "coupled")),
    ("G2.e4", ("a view with another shape",)),
])  # fmt: skip
def test_what_was_asked_is_explained(id_, words):
    """F1.7, G2.c5, G2.d8, G2.e4: each is explained, and each lesson has a program."""
    page = " ".join(PAGE.split()).lower()
    assert [word for word in words if word.lower() not in page] == [], id_
    assert len(LESSONS) == 7
    assert [title for title, text in LESSONS.items() if "```python" not in text] == []


def test_both_blocks_are_in_mini_gpt():
    """F1.7: pre-LN leaves the sum alone, post-LN normalises it."""
    tg.manual_seed(0)
    config = GPTConfig(n_embd=24, n_head=2, n_layer=1, dropout=0.0)
    x = 100 * tg.randn(2, 5, 24)
    pre, post = Block(config)(x), PostNormBlock(config)(x)
    assert (pre - x).abs().max() < 10 and post.abs().max() < 10


def test_a_dead_relu_gets_no_gradient():
    """G2.d8: below zero for every example, it never moves again; a leaky one does."""
    for act, moves in ((nn.ReLU(), False), (nn.LeakyReLU(), True)):
        unit = nn.Linear(3, 1)
        nn.init.constant_(unit.bias, -100.0)
        act(unit(tg.randn(7, 3))).sum().backward()
        assert bool((unit.weight.grad != 0).any()) is moves


def test_the_design_of_gpt2_is_explained():
    """F3.7, B3.8: why learned positions, tying and the place of norms; no more is claimed."""
    page = (ROOT / "docs" / "gpt2.md").read_text(encoding="utf-8")
    for words in ("Positions are learned", "The head is the embedding", "Norms stand before"):
        assert f"**{words}" in page
    assert "was never shown" in page
    tied, untied = (GPT2Config(tie_word_embeddings=t) for t in (True, False))
    counts = [budget(config).parameters for config in (tied, untied)]
    assert f"{counts[1] - counts[0]:,} of {counts[1]:,} numbers" in page
