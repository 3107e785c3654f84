"""Attention by blocks beside PyTorch's: values, gradients, padding, and no T x T matrix."""

import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.nn import flash
from tensorgrad.nn.flash import Pattern, flash_attention
from tests.ops.compare import few

reference = torch.nn.functional.scaled_dot_product_attention


def numbers(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def qkv(T, S, B=2, H=3, h=3, D=5, E=7, seed=0, dtype=np.float64):
    q, k, v = (
        numbers(seed, B, H, T, D),
        numbers(seed + 1, B, h, S, D),
        numbers(seed + 2, B, h, S, E),
    )
    return [x.astype(dtype) for x in (q, k, v)]


def lower_right(T, S):
    return np.arange(S) <= np.arange(S - T, S)[:, None]


def answers(f, arrays, library):
    """The output and the three gradients, as arrays."""
    leaves = [library.tensor(x, requires_grad=True) for x in arrays]
    out = f(*leaves)
    g = library.tensor(numbers(9, *out.shape).astype(arrays[0].dtype))
    return [np.asarray(x.detach()) for x in (out, *library.autograd.grad(out, leaves, g))]


def same(ours, theirs, rtol=1e-9):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert np.allclose(a, b, rtol=rtol, atol=rtol * max(1, np.abs(b).max(initial=0)))


@few
@given(st.integers(1, 13), st.integers(0, 11), st.integers(1, 7), st.sampled_from([1, 3]))
def test_values_and_gradients(T, past, block, h):
    """The queries are the last T of past + T tokens; h keys serve three query heads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flash, "BLOCK", block)
        arrays = qkv(T, past + T, h=h)
        mask = torch.tensor(lower_right(T, past + T))
        same(
            answers(flash_attention, arrays, tg),
            answers(lambda *x: reference(*x, mask, enable_gqa=True), arrays, torch),
        )


def test_values_and_gradients_in_float32():
    arrays = qkv(257, 257, dtype=np.float32)
    ours = answers(flash_attention, arrays, tg)
    assert all(x.dtype == np.float32 for x in ours)
    same(ours, answers(lambda *x: reference(*x, is_causal=True), arrays, torch), 2e-5)


def test_half_precision_sums_in_float32():
    arrays = qkv(151, 151)
    halves = [tg.tensor(x, dtype=tg.float16, requires_grad=True) for x in arrays]
    exact = flash_attention(*(x.to(tg.float64) for x in halves))
    out = flash_attention(*halves)
    assert out.dtype == tg.float16
    assert np.allclose(out.detach().array, exact.detach().array, rtol=2e-3, atol=2e-3)
    parts = tg.autograd.grad(out.sum(), halves)
    assert all(x.dtype == tg.float16 for x in parts)
    for a, b in zip(parts, tg.autograd.grad(exact.sum(), halves), strict=True):
        assert np.allclose(a.array, b.array, rtol=1e-2, atol=1e-2)


@few
@given(st.integers(1, 9), st.integers(0, 9), st.data())
def test_padding_is_not_seen(T, past, data):
    S = past + T
    real = np.array(
        data.draw(st.lists(st.lists(st.booleans(), min_size=S, max_size=S), min_size=2, max_size=2))
    )
    arrays = qkv(T, S)
    mask = lower_right(T, S) & real[:, None, None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flash, "BLOCK", 3)
        ours = answers(lambda *x: flash_attention(*x, mask=tg.tensor(real)), arrays, tg)
    q, k, v = (torch.tensor(x, requires_grad=True) for x in arrays)
    scores = (q @ k.mT / math.sqrt(5)).masked_fill(~torch.tensor(mask), -torch.inf)
    p = torch.nan_to_num(scores.softmax(-1))  # a row that sees nothing gets zeros
    out = p @ v
    g = torch.tensor(numbers(9, *out.shape))
    theirs = [out, *torch.autograd.grad(out, (q, k, v), g)]
    same(ours, [np.nan_to_num(x.detach().numpy()) for x in theirs])


def test_scores_that_would_overflow():
    q, k, v = qkv(7, 7)
    out = flash_attention(*(tg.tensor(x) for x in (1e5 * q, 1e5 * k, v))).array
    same([out], [reference(*map(torch.tensor, (1e5 * q, 1e5 * k, v)), is_causal=True).numpy()])


def test_higher_order_and_forward_mode():
    leaves = [tg.tensor(x, requires_grad=True) for x in qkv(5, 7, B=1, H=2, h=2, D=3, E=2)]
    assert tg.autograd.gradcheck(flash_attention, leaves, check_forward_ad=True)
    assert tg.autograd.gradgradcheck(flash_attention, leaves)


def test_the_scale():
    arrays = qkv(5, 5)
    same(
        answers(lambda *x: flash_attention(*x, scale=0.3), arrays, tg),
        answers(lambda *x: reference(*x, is_causal=True, scale=0.3), arrays, torch),
    )


def peak(T):
    """Bytes at the peak of forward and backward over T tokens, of one head of 8 numbers."""
    leaves = [tg.tensor(x, requires_grad=True) for x in qkv(T, T, 1, 1, 1, 8, 8, dtype=np.float32)]
    tracemalloc.start()
    flash_attention(*leaves).sum().backward()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_the_scores_are_never_there_all_at_once():
    """A matrix of float32 is 16 MiB at T = 2048, and a quarter of it at half as many."""
    peak(2048)  # what is imported and compiled once
    one, two = peak(1024), peak(2048)
    assert two < 2048 * 2048 * 4 / 8
    assert two < 2.1 * one


def test_a_pattern_of_ones_own():
    class Pairs(Pattern):
        def sees(self, i, j):
            return (j <= i) & (i // 2 == j // 2)

    arrays = qkv(9, 9)
    i = np.arange(9)
    mask = torch.tensor((i <= i[:, None]) & (i // 2 == i[:, None] // 2))
    same(
        answers(lambda *x: flash_attention(*x, Pairs()), arrays, tg),
        answers(lambda *x: reference(*x, mask), arrays, torch),
    )


def test_errors_say_what_is_wrong():
    q, k, v = map(tg.tensor, qkv(5, 5))
    with pytest.raises(RuntimeError, match="5 queries are the last of 3 tokens"):
        flash_attention(q, k[:, :, :3], v[:, :, :3])
    with pytest.raises(RuntimeError, match="must be"):
        flash_attention(q[0], k[0], v[0])
    with pytest.raises(RuntimeError, match="no multiple of 2 key heads"):
        flash_attention(q, k[:, :2], v[:, :2])


def test_it_is_what_the_layer_is_given():
    assert nn.flash_attention is flash_attention
