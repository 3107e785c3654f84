"""Positions beside the papers' formulas and transformers': rotations, prices on distance, sines."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import tensorgrad as tg
from tensorgrad.nn import ALiBi, Positions, RoPE, SinusoidalPositions
from tensorgrad.nn.positions import alibi_slopes
from tests.ops.compare import few

B, H, T, D = 2, 3, 7, 10


def numbers(*shape, seed=5, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def angles(positions, base=10_000.0, D=D):
    """p base^(-2i/D), (..., D / 2)"""
    return np.asarray(positions)[..., None] * np.array(
        [base ** (-2 * i / D) for i in range(D // 2)]
    )


def test_interleaved_pairs_turn_as_complex_numbers():
    x = numbers(B, H, T, D)
    out = RoPE(D, interleaved=True).turn(tg.tensor(x), 4).array
    z = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * angles(np.arange(4, 4 + T)))
    assert np.allclose(out[..., ::2], z.real, rtol=1e-12)
    assert np.allclose(out[..., 1::2], z.imag, rtol=1e-12)


@pytest.mark.parametrize("base", [10_000.0, 500.0])
def test_halves_turn_as_in_transformers(base):
    q = numbers(B, H, T, D)
    at = np.random.default_rng(1).integers(0, 99, (B, T))
    angle = torch.tensor(np.concatenate([angles(at, base)] * 2, -1))
    theirs, _ = apply_rotary_pos_emb(torch.tensor(q), torch.tensor(q), angle.cos(), angle.sin())
    ours = RoPE(D, base).turn(tg.tensor(q), tg.tensor(at)).array
    assert np.allclose(ours, theirs.numpy(), rtol=1e-12)


@pytest.mark.parametrize("interleaved", [True, False])
@few
@given(st.integers(0, 70), st.integers(1, 9), st.integers(0, 40))
def test_scores_depend_on_the_distance_alone(interleaved, start, n, shift):
    """B3.8: what is said of rotary positions is measured."""
    rope = RoPE(D, interleaved=interleaved)
    q, k = tg.tensor(numbers(1, 1, n, D)), tg.tensor(numbers(1, 1, n, D, seed=6))
    one, other = (
        rope.turn(q, a) @ rope.turn(k, a).transpose(-1, -2) for a in (start, start + shift)
    )
    assert np.allclose(one.array, other.array, rtol=1e-9, atol=1e-9)
    still = rope.turn(q, tg.zeros(n, dtype=tg.int64)).array
    assert np.array_equal(still, q.array), "position 0 does not turn"


@pytest.mark.parametrize("interleaved", [True, False])
def test_positions_in_their_three_forms(interleaved):
    rope, x = RoPE(D, interleaved=interleaved), tg.tensor(numbers(B, H, T, D))
    row = rope.turn(x, tg.arange(3, 3 + T)).array
    assert np.array_equal(rope.turn(x, 3).array, row)
    rows = np.stack([np.arange(3, 3 + T), np.arange(20, 20 - T, -1)])
    both = rope(x, tg.tensor(rows)).array
    assert np.array_equal(both[0], row[0])
    assert np.array_equal(both[1], rope.turn(x[1:], tg.tensor(rows[1])).array[0])


@pytest.mark.parametrize("interleaved", [True, False])
def test_gradients_turn_back(interleaved):
    rope = RoPE(4, interleaved=interleaved)
    x = tg.tensor(numbers(2, 1, 3, 4), requires_grad=True)
    f = lambda x: rope.turn(x, 5).square() * x  # noqa: E731
    assert tg.autograd.gradcheck(f, (x,), check_forward_ad=True)
    assert tg.autograd.gradgradcheck(f, (x,))
    g = tg.autograd.grad(rope.turn(x, 5), x, rope.turn(x, 5).detach())[0]
    assert np.allclose(g.array, x.detach().array), "the transpose of a rotation undoes it"


@pytest.mark.parametrize("dtype", [tg.float16, tg.float32, tg.float64])
def test_dtypes_are_kept(dtype):
    x = tg.tensor(numbers(B, H, T, D), dtype=dtype)
    rope = RoPE(D)
    out = rope.turn(x, 9)
    exact = rope.turn(x.to(tg.float64), 9).array
    assert out.dtype == dtype
    assert np.allclose(out.array, exact, atol=8 * np.finfo(dtype).eps)


def test_what_cannot_turn():
    with pytest.raises(ValueError, match="head_size 5 is odd"):
        RoPE(5)
    with pytest.raises(ValueError, match="heads of 4 numbers are wanted, these have 10"):
        RoPE(4).turn(tg.ones(B, H, T, D), 0)
    with pytest.raises(ValueError, match="7 tokens have positions of shape"):
        RoPE(D).turn(tg.ones(B, H, T, D), tg.arange(3))


@pytest.mark.parametrize("heads", [1, 2, 3, 7, 8, 12, 20, 32])
def test_slopes_are_those_of_the_reference(heads):
    """Bloom's are the paper's, made by another hand; they are rounded to float32."""
    theirs = build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)[:, 0, 1].numpy()
    assert np.allclose(alibi_slopes(heads), theirs, rtol=1e-6)


def test_slopes_of_the_paper():
    assert np.array_equal(alibi_slopes(8), [2.0**-i for i in range(1, 9)])
    assert len(set(alibi_slopes(12))) == 12


def test_the_price_of_distance():
    bias = ALiBi(4).bias(3, 5, tg.ones(1, dtype=tg.float64)).array
    for h, slope in enumerate([1 / 4, 1 / 16, 1 / 64, 1 / 256]):
        for i in range(3):
            for j in range(i + 3):
                assert bias[h, i, j] == -slope * (i + 2 - j)
    assert bias.shape == (4, 3, 5)
    assert ALiBi(2).bias(1, 2, tg.ones(1)).dtype == tg.float32
    with pytest.raises(ValueError, match="at least 1"):
        ALiBi(0)


@few
@given(st.integers(1, 9), st.lists(st.integers(0, 5000), min_size=1, max_size=5))
def test_sinusoids(C, positions):
    out = SinusoidalPositions(C).double()(tg.tensor(positions)).array
    for p, row in zip(positions, out, strict=True):
        for c, x in enumerate(row):
            angle = p / 10_000 ** (c // 2 * 2 / C)
            assert math.isclose(x, (math.cos if c % 2 else math.sin)(angle), abs_tol=1e-9)


def test_sinusoids_take_the_place_of_an_embedding():
    layer = SinusoidalPositions(6)
    assert layer(tg.arange(5)).shape == (5, 6) and layer(tg.ones(2, 3, dtype=tg.int64)).ndim == 3
    assert layer(tg.arange(5)).dtype == tg.float32
    assert list(layer.parameters()) == [] and layer.state_dict() == {}


def test_no_positions_at_all():
    x = tg.ones(1, 1, 2, 2)
    assert Positions().turn(x, 3) is x and Positions().bias(2, 2, x) is None


def test_repr():
    assert repr(RoPE(8)) == "RoPE(8, base=10000, interleaved=False)"
    assert repr(ALiBi(3)) == "ALiBi(3)" and repr(SinusoidalPositions(4)) == "SinusoidalPositions(4)"
