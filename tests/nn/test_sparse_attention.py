"""Sparse attention beside PyTorch's dense attention under the mask that the pattern stands for."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad as tg
from tensorgrad.nn import Global, Local, Longformer, Strided, flash
from tensorgrad.nn.flash import flash_attention
from tests.nn.test_flash import answers, lower_right, qkv, reference, same
from tests.ops.compare import few


def far(T, S):
    """How far query i, the last of S tokens, stands behind key j: (T, S)."""
    return np.arange(S - T, S)[:, None] - np.arange(S)


def either(T, S, chosen):
    return np.isin(np.arange(S - T, S), chosen)[:, None] | np.isin(np.arange(S), chosen)


MASKS = {
    "local": (Local(3), lambda T, S: far(T, S) < 3),
    "local, itself": (Local(1), lambda T, S: far(T, S) == 0),
    "local, all": (Local(1000), lambda T, S: far(T, S) >= 0),
    "strided": (Strided(3), lambda T, S: far(T, S) % 3 == 0),
    "strided, all": (Strided(1), lambda T, S: far(T, S) >= 0),
    "global": (Global(2), lambda T, S: (far(T, S) == 0) | either(T, S, [0, 1])),
    "global, chosen": (Global([5, 2]), lambda T, S: (far(T, S) == 0) | either(T, S, [2, 5])),
    "longformer": (Longformer(3, [0, 7]), lambda T, S: (far(T, S) < 3) | either(T, S, [0, 7])),
    "longformer, none": (Longformer(2, 0), lambda T, S: far(T, S) < 2),
    "longformer, beyond": (Longformer(2, [500]), lambda T, S: far(T, S) < 2),
}
patterns = pytest.mark.parametrize("name", MASKS)


@patterns
@few
@given(st.integers(1, 23), st.integers(0, 13), st.integers(1, 7))
def test_values_and_gradients(name, T, past, block):
    """F3.5."""
    pattern, mask = MASKS[name]
    S = past + T
    arrays = qkv(T, S, H=2, h=1)
    seen = torch.tensor(mask(T, S) & lower_right(T, S))
    with pytest.MonkeyPatch.context() as patch:
        for module in (flash, tg.nn.sparse_attention):
            patch.setattr(module, "BLOCK", block)
        ours = answers(lambda *x: flash_attention(*x, pattern), arrays, tg)
    same(ours, answers(lambda *x: reference(*x, seen, enable_gqa=True), arrays, torch))


@patterns
def test_the_blocks_hold_each_query_once_and_all_that_it_sees(name):
    pattern, mask = MASKS[name]
    T, S = 300, 311
    found, met = np.zeros((T, S), bool), np.zeros(T, int)
    for rows, blocks in pattern.pieces(T, S):
        rows = flash.indices(rows)
        met[rows] += 1
        for cols, seen in blocks:
            cols = flash.indices(cols)
            assert not found[np.ix_(rows, cols)].any(), "no key is met twice"
            found[np.ix_(rows, cols)] |= True if seen is None else seen
    assert (met == 1).all()
    assert np.array_equal(found, mask(T, S) & lower_right(T, S))
    assert np.array_equal(pattern.mask(T, S), found)


@patterns
def test_higher_order(name):
    leaves = [tg.tensor(x, requires_grad=True) for x in qkv(5, 6, B=1, H=1, h=1, D=2, E=2)]
    f = lambda *x: flash_attention(*x, MASKS[name][0])  # noqa: E731
    assert tg.autograd.gradcheck(f, leaves, check_forward_ad=True)


@patterns
def test_padding_is_not_seen(name):
    pattern, mask = MASKS[name]
    real = np.ones((2, 11), bool)
    real[0, :4], real[1, 8:] = False, False
    arrays = qkv(11, 11)
    seen = mask(11, 11) & lower_right(11, 11) & real[:, None, None]
    ours = flash_attention(*map(tg.tensor, arrays), pattern, mask=tg.tensor(real)).array
    theirs = reference(*map(torch.tensor, arrays), torch.tensor(seen)).nan_to_num().numpy()
    same([ours], [theirs])


def cells(pattern, T):
    """Scores that are computed."""
    return sum(
        len(flash.indices(rows)) * len(flash.indices(cols))
        for rows, blocks in pattern.pieces(T, T)
        for cols, _ in blocks
    )


@pytest.mark.parametrize("pattern", [Local(256), Global(3), Longformer(256, 5)])
def test_work_is_linear_in_the_number_of_tokens(pattern):
    one, two, four = (cells(pattern, T) for T in (4096, 8192, 16384))
    assert four - two <= 2.001 * (two - one)
    assert two < 8192 * 1000


def test_work_of_strides_is_a_share_of_the_square():
    assert cells(Strided(64), 4096) == 4096 * 64  # 64 remainders of 64 tokens


def test_memory_is_linear_in_the_number_of_tokens():
    def peak(T):
        leaves = [
            tg.tensor(x, requires_grad=True) for x in qkv(T, T, 1, 1, 1, 8, 8, dtype=np.float32)
        ]
        tracemalloc.start()
        flash_attention(*leaves, Local(64)).sum().backward()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(8192)  # what is imported and compiled once
    two, four = peak(4096), peak(8192)
    assert four < 2.1 * two
    assert four < 8192 * 8192 / 16  # a matrix of float32 has 64 times as many bytes


@pytest.mark.parametrize(
    "make", [lambda: Local(0), lambda: Strided(-1), lambda: Longformer(0, 1), lambda: Global([-1])]
)
def test_sizes_that_cannot_be(make):
    with pytest.raises(ValueError, match=r"must be at least 1|positions from 0"):
        make()


def test_repr():
    assert repr(Local(5)) == "Local(window=5)"
    assert repr(Strided(7)) == "Strided(stride=7)"
