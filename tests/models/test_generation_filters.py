"""Each penalty, ban and filter beside transformers' logits processor; and what each one draws."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation import logits_process as theirs

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad.models.generation import GenerationConfig, draw, filters

R, V, T = 3, 29, 11


def case(seed):
    draws = np.random.default_rng(seed)
    return draws.normal(0, 2, (R, V)), draws.integers(0, 7, (R, T))


def same(ours, process, logits, ids=None):
    ids = np.zeros((R, 1), np.int64) if ids is None else ids
    expected = process(torch.from_numpy(ids), torch.from_numpy(logits))
    np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-12, strict=True)


seeds = st.integers(0, 10_000)
shares = st.floats(0.01, 0.99)


@given(seed=seeds, penalty=st.floats(0.3, 3))
def test_repetition_penalty(seed, penalty):
    """B0.10: by the tokens of each row, and a negative logit falls."""
    logits, ids = case(seed)
    ours = filters.repetition_penalty(tg.tensor(logits), tg.tensor(ids), penalty)
    same(ours, theirs.RepetitionPenaltyLogitsProcessor(penalty), logits, ids)
    if penalty > 1:
        assert (ours.array <= logits).all()


def test_repetition_penalty_knows_its_own_row_alone():
    """B0.10: row 0 has token 1, row 1 has token 2, and padding counts for nothing."""
    logits = tg.tensor([[2.0, 2.0, -2.0, 2.0], [2.0, -2.0, -2.0, 2.0]])
    ids, real = tg.tensor([[3, 1], [0, 2]]), tg.tensor([[True, True], [False, True]])
    out = filters.repetition_penalty(logits, ids, 2.0, real)
    assert out.tolist() == [[2.0, 1.0, -2.0, 1.0], [2.0, -2.0, -4.0, 2.0]]


def test_additive_penalties():
    """Presence once, frequency for each time; the sign is that which makes it rarer."""
    logits, ids = tg.zeros(2, 4), tg.tensor([[1, 1, 3], [0, 0, 0]])
    out = filters.additive_penalty(logits, ids, presence=0.5, frequency=0.25)
    assert out.tolist() == [[0.0, -1.0, 0.0, -0.75], [-1.25, 0.0, 0.0, 0.0]]


@given(seed=seeds, n=st.integers(1, T + 2))
def test_no_repeat_ngrams(seed, n):
    logits, ids = case(seed)
    ours = filters.no_repeat_ngrams(tg.tensor(logits), tg.tensor(ids), n)
    same(ours, theirs.NoRepeatNGramLogitsProcessor(n), logits, ids)


def test_ngrams_do_not_begin_in_the_padding():
    ids, real = tg.tensor([[5, 5, 5]]), tg.tensor([[False, True, True]])
    out = filters.no_repeat_ngrams(tg.zeros(1, 7), ids, 3, real)
    assert out.tolist() == [[0.0] * 7]
    out = filters.no_repeat_ngrams(tg.zeros(1, 7), ids, 3)
    assert np.flatnonzero(np.isinf(out.array[0])).tolist() == [5]


def test_banned():
    out = filters.banned(tg.zeros(2, 4), [0, 3])
    assert out.tolist() == [[-np.inf, 0.0, 0.0, -np.inf]] * 2


@given(seed=seeds, k=st.integers(1, V + 5))
def test_top_k(seed, k):
    """B0.14: beyond the vocabulary nothing is cut off."""
    logits, _ = case(seed)
    same(filters.top_k(tg.tensor(logits), k), theirs.TopKLogitsWarper(k), logits)


@given(seed=seeds, p=shares)
def test_top_p(seed, p):
    logits, _ = case(seed)
    ours = filters.top_p(tg.tensor(logits), p)
    same(ours, theirs.TopPLogitsWarper(p), logits)
    share = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    kept = np.isfinite(ours.array)
    assert (np.where(kept, share, 0).sum(-1) >= p - 1e-12).all()


def test_top_p_keeps_the_token_that_crosses_p():
    """B1.2: a first token of 0.9 stays at p = 0.5, where the seed's filter left nothing."""
    logits = tg.tensor([[0.9, 0.06, 0.04], [0.3, 0.3001, 0.3999]]).log()
    kept = [np.flatnonzero(np.isfinite(row)).tolist() for row in filters.top_p(logits, 0.5).array]
    assert kept == [[0], [1, 2]]
    tiny = filters.top_p(logits, 1e-9)
    assert np.isfinite(tiny.array).sum(-1).tolist() == [1, 1]


@given(seed=seeds, p=shares)
def test_min_p(seed, p):
    logits, _ = case(seed)
    same(filters.min_p(tg.tensor(logits), p), theirs.MinPLogitsWarper(p), logits)


@given(seed=seeds, p=shares)
def test_typical_p(seed, p):
    logits, _ = case(seed)
    same(filters.typical_p(tg.tensor(logits), p), theirs.TypicalLogitsWarper(p), logits)


@given(seed=seeds, temperature=st.floats(0.1, 5), k=st.integers(2, V), p=shares, share=shares)
def test_all_of_them_in_order(seed, temperature, k, p, share):
    """What was cut off by one filter has no part in the next."""
    logits, _ = case(seed)
    config = GenerationConfig(
        temperature=temperature, top_k=k, top_p=p, min_p=share / 10, typical_p=share
    )
    chain = theirs.LogitsProcessorList(
        [
            theirs.TemperatureLogitsWarper(temperature),
            theirs.TopKLogitsWarper(k),
            theirs.TopPLogitsWarper(p),
            theirs.MinPLogitsWarper(share / 10),
            theirs.TypicalLogitsWarper(share),
        ]
    )
    same(filters.filtered(tg.tensor(logits), config), chain, logits)


@pytest.mark.parametrize("p", [1, 1.0])
def test_the_whole_share_is_no_filter(p):
    logits = tg.tensor(case(1)[0])
    for keep in (filters.top_p, filters.typical_p):
        assert keep(logits, p) is logits


def test_ties_stay_together():
    """B1.11: with k = 2 of 5, 2, 2, 1 three stay; top-p keeps both twos or neither."""
    logits = tg.tensor([[2.0, 5.0, 2.0, 1.0]])
    assert np.isfinite(filters.top_k(logits, 2).array).tolist() == [[True, True, True, False]]
    for p, expected in ((0.85, [False, True, False, False]), (0.92, [True, True, True, False])):
        assert np.isfinite(filters.top_p(logits, p).array).tolist() == [expected]


FILTERS = {
    "temperature": {"temperature": 0.6},
    "top_k": {"top_k": 4},
    "top_p": {"top_p": 0.8},
    "min_p": {"min_p": 0.15},
    "typical_p": {"typical_p": 0.7},
    "together": {"temperature": 1.5, "top_k": 7, "top_p": 0.9},
}


@pytest.mark.parametrize("name", FILTERS)
def test_distribution_of_draws(name):
    """Chi-square of 20,000 draws in each of two rows against PyTorch's softmax of what stays."""
    n, logits = 20_000, np.random.default_rng(12).normal(0, 1.5, (2, 11))
    kept = filters.filtered(tg.tensor(logits), GenerationConfig(**FILTERS[name]))
    p = torch.from_numpy(np.array(kept)).softmax(-1).numpy()
    rows = kept.repeat_interleave(n, 0)
    generator = tg.Generator().manual_seed(99)
    drawn = tg.multinomial(F.softmax(rows, -1), 1, generator=generator).reshape(2, n)
    for i in range(2):
        counts = np.bincount(np.asarray(drawn[i]), minlength=11)
        assert (counts[p[i] == 0] == 0).all()
        there = p[i] > 0
        assert scipy.stats.chisquare(counts[there], p[i][there] * n).pvalue > 1e-3


def test_draws_come_from_their_own_row():
    """B1.3: each row draws from its own k likeliest, whatever those of others are."""
    logits = tg.tensor([[9.0, 8.0, 0.0, 0.0], [0.0, 0.0, 8.0, 9.0], [0.0, 9.0, 9.0, 0.0]])
    generator = tg.Generator().manual_seed(5)
    drawn = [draw(logits, top_k=2, generator=generator)[:, 0].tolist() for _ in range(100)]
    assert [set(row) for row in zip(*drawn, strict=True)] == [{0, 1}, {2, 3}, {1, 2}]
