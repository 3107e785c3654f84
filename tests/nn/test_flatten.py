"""FlattenConsecutive: the view, the same by slices and cat, and lengths that do not fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad as tg
from tensorgrad import nn

sizes = st.integers(1, 5)


@given(sizes, sizes, sizes, sizes)
def test_neighbours_are_joined(B, groups, n, C):
    """G2.e1, G2.e4: even and odd positions side by side, as cat makes them, are a view."""
    x = tg.randn(B, groups * n, C, requires_grad=True)
    out = nn.FlattenConsecutive(n)(x)
    assert out.shape == (B, groups, n * C)
    assert np.shares_memory(out.detach().numpy(), x.detach().numpy())
    np.testing.assert_array_equal(
        out.detach(), tg.cat([x[:, i::n] for i in range(n)], dim=-1).detach()
    )
    g = tg.randn(*out.shape)
    (dx,) = tg.autograd.grad(out, x, g)
    np.testing.assert_array_equal(dx, g.reshape(x.shape))


def test_a_length_of_one_is_kept_unless_asked():
    """B2.27: (B, 1, n C) stays three-dimensional."""
    x = tg.randn(3, 4, 5)
    assert nn.FlattenConsecutive(4)(x).shape == (3, 1, 20)
    assert nn.FlattenConsecutive(4, squeeze=True)(x).shape == (3, 20)
    assert nn.FlattenConsecutive(2, squeeze=True)(x).shape == (3, 2, 10)


@pytest.mark.parametrize(
    ("n", "shape", "sentence"),
    [
        (3, (2, 7, 5), "7 positions do not divide into groups of n = 3; give it 6 or 9 of them"),
        (2, (2, 7), r"expected an input \(B, T, C\), not one of shape \(2, 7\)"),
    ],
)
def test_what_does_not_fit(n, shape, sentence):
    """B2.27: a length that n does not divide is refused."""
    with pytest.raises(ValueError, match=f"FlattenConsecutive: {sentence}"):
        nn.FlattenConsecutive(n)(tg.zeros(*shape))


def test_no_group():
    with pytest.raises(ValueError, match="n must be at least 1, it is 0"):
        nn.FlattenConsecutive(0)


def test_repr():
    layers = nn.Sequential(nn.FlattenConsecutive(2), nn.FlattenConsecutive(2, squeeze=True))
    assert "FlattenConsecutive(2)" in repr(layers) and "2, squeeze=True" in repr(layers)
