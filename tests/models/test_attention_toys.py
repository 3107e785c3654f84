"""The attention lesson: its versions are equal, the head is PyTorch's, and what it claims is so."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad as tg
from tensorgrad.models.attention_toys import (
    Head,
    by_loops,
    by_product,
    by_softmax,
    lesson,
    softmax_of_past,
)
from tests.tree import ROOT

sizes = st.integers(1, 7)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def twin(head, x, scaled=True):
    """The head once more, in PyTorch, from the same weights."""
    q, k, v = (
        torch.from_numpy(x) @ torch.from_numpy(linear.weight.detach().numpy()).T
        for linear in (head.query, head.key, head.value)
    )
    scores = q @ k.transpose(-2, -1) / (math.sqrt(k.shape[-1]) if scaled else 1)
    T = x.shape[1]
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    return torch.softmax(scores.masked_fill(future, -torch.inf), -1) @ v


@given(sizes, sizes, sizes)
def test_three_versions_of_an_average(B, T, C):
    """G2.f1, G2.f2: each position's mean of itself and the past, by NumPy's cumulative sums."""
    x = numbers(B, T, C)
    expected = x.cumsum(1) / np.arange(1, T + 1)[:, None]
    for version in (by_loops, by_product, by_softmax):
        np.testing.assert_allclose(version(tg.tensor(x)), expected, rtol=1e-12, atol=1e-14)


@given(sizes, sizes)
def test_weights_of_the_past_are_pytorchs(B, T):
    scores = numbers(B, T, T)
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    expected = torch.softmax(torch.from_numpy(scores).masked_fill(future, -torch.inf), -1)
    np.testing.assert_allclose(softmax_of_past(tg.tensor(scores)), expected, rtol=1e-12)


def test_the_head_is_scaled_attention():
    """G2.f3, B2.30: scores are divided by the root of the head's size; else the answer differs."""
    head, x = Head(11, 5).double(), numbers(3, 7, 11)
    with tg.no_grad():
        out = head(tg.tensor(x)).numpy()
    np.testing.assert_allclose(out, twin(head, x), rtol=1e-10)
    assert np.abs(out - twin(head, x, scaled=False).numpy()).max() > 1e-3


def test_the_scale_keeps_the_variance_of_scores():
    """q and k of variance 1 give scores of variance D, and of variance 1 divided by its root."""
    D = 64
    q, k = numbers(2000, D, seed=1), numbers(2000, D, seed=2)
    scores = (q * k).sum(1)
    assert scores.var() == pytest.approx(D, rel=0.1)
    assert (scores / math.sqrt(D)).var() == pytest.approx(1, rel=0.1)


def test_positions_have_no_place_of_their_own():
    """G2.f4: the last position hears a set: its answer is the same in whatever order they stand."""
    head, x = Head(11, 5).double(), numbers(2, 7, 11)
    shuffled = x[:, [3, 0, 5, 1, 4, 2, 6]]
    with tg.no_grad():
        a, b = (head(tg.tensor(v))[:, -1].numpy() for v in (x, shuffled))
    np.testing.assert_allclose(a, b, rtol=1e-12)


def test_the_future_and_other_texts_are_not_heard():
    head, x = Head(11, 5).double(), numbers(2, 7, 11)
    other = x.copy()
    other[0, 4:] += 1
    with tg.no_grad():
        a, b = (head(tg.tensor(v)).numpy() for v in (x, other))
    np.testing.assert_array_equal(a[0, :4], b[0, :4])
    np.testing.assert_array_equal(a[1], b[1])
    assert (a[0, 4:] != b[0, 4:]).any(-1).all()


def test_the_lesson_tells_how_far_apart_the_versions_are(capsys):
    lesson()
    told = capsys.readouterr().out
    apart = [float(line.rpartition(": ")[2]) for line in told.splitlines() if "apart from" in line]
    assert len(apart) == 5 and max(apart) < 1e-6
    for version in ("1. ", "2. ", "3. ", "4. "):
        assert f"\n{version}" in told


def test_the_lesson_runs_as_it_stands():
    """B2.31: a module that is a program, whose output is no part of it."""
    run = subprocess.run(
        [sys.executable, "-m", "tensorgrad.models.attention_toys"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0 and run.stderr == ""
    # the x of the lecture: torch.manual_seed(1337); torch.randn(4, 8, 2)
    torch.manual_seed(1337)
    first = torch.randn(4, 8, 2)[0, 0].tolist()
    assert " ".join(f"{a:7.4f}" for a in first) in run.stdout
