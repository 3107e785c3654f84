"""Initialisers: the numbers of torch.nn.init from the same seed."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad as tg
from tensorgrad.nn import Parameter, init


def both(name, shape, *args, dtype="float32", **kwargs):
    """What the initialiser of each framework makes of a tensor of zeros, from one seed."""
    tg.manual_seed(42)
    torch.manual_seed(42)
    x = tg.zeros(shape, dtype=getattr(tg, dtype))
    y = torch.zeros(shape, dtype=getattr(torch, dtype))
    assert getattr(init, name)(x, *args, **kwargs) is x
    getattr(torch.nn.init, name)(y, *args, **kwargs)
    return x.numpy(), y.numpy()


EXACT = [
    ("constant_", (3, 5), 0.25),
    ("ones_", (3, 5)),
    ("zeros_", (3, 5)),
    ("eye_", (3, 5)),
    ("eye_", (5, 3)),
    ("dirac_", (3, 5, 7)),
    ("dirac_", (6, 2, 3, 5), 2),
    ("dirac_", (3, 3, 2, 2, 2), 3),
    ("uniform_", (17, 5), -2.0, 3.0),
    ("normal_", (17, 5), 1.0, 0.02),
    ("normal_", (3, 5), 0.0, 2.0),
    ("trunc_normal_", (31, 17)),
    ("trunc_normal_", (31, 17), 0.0, 0.02, -0.03, 0.04),
    ("trunc_normal_", (31, 17), 1.0, 2.0, 0.0, 1.5),
    ("xavier_uniform_", (5, 7)),
    ("xavier_uniform_", (5, 7, 3, 2), 5 / 3),
    ("xavier_normal_", (5, 7), 2.0),
    ("sparse_", (13, 7), 0.3),
    ("sparse_", (3, 7), 1.0, 0.5),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", EXACT, ids=lambda case: f"{case[0]}{case[1]}")
def test_equal_numbers(case, dtype):
    ours, theirs = both(*case, dtype=dtype)
    assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["kaiming_uniform_", "kaiming_normal_"])
@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
@pytest.mark.parametrize("nonlinearity", ["leaky_relu", "relu", "linear", "tanh", "selu", "conv2d"])
def test_kaiming(name, mode, nonlinearity):
    for shape in ((5, 7), (5, 7, 3)):
        ours, theirs = both(name, shape, a=0.3, mode=mode, nonlinearity=nonlinearity)
        assert np.array_equal(ours, theirs) and theirs.any()


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7), (5, 2, 3)])
def test_orthogonal(shape):
    ours, theirs = both("orthogonal_", shape, gain=3.0, dtype="float64")
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    rows = ours.reshape(shape[0], -1)
    small = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows
    np.testing.assert_allclose(small, 9 * np.eye(len(small)), atol=1e-12)


@given(
    st.floats(-3, 3),
    st.floats(0.1, 3),
    st.floats(-4, 4),
    st.floats(0.1, 3),
    st.sampled_from([5, 101]),
)
def test_trunc_normal_everywhere(mean, std, a, width, n):
    """Also far from the mean, where uniforms are drawn and refused; the bounds hold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        ours, theirs = both("trunc_normal_", (n,), mean, std, a, a + width, dtype="float64")
    np.testing.assert_allclose(ours, theirs, rtol=1e-14)
    assert (a <= ours).all() and (ours <= a + width).all()


def test_trunc_normal_warns_of_a_mean_outside():
    with pytest.warns(
        UserWarning, match=r"mean 5.0 is more than 2 std \(1.0\) away from \[0.0, 1.0\]"
    ):
        init.trunc_normal_(tg.zeros(3), 5.0, 1.0, 0.0, 1.0)


@pytest.mark.parametrize(
    "args",
    [(n,) for n in ("linear", "conv1d", "conv_transpose3d", "sigmoid", "tanh", "relu", "selu")]
    + [("leaky_relu",), ("leaky_relu", 0.2), ("leaky_relu", 3)],
)
def test_gains(args):
    assert init.calculate_gain(*args) == torch.nn.init.calculate_gain(*args)


def test_parameters_and_generators():
    p = Parameter(tg.zeros(3, 5))
    init.normal_(p, generator=tg.Generator().manual_seed(3))
    torch_generator = torch.Generator().manual_seed(3)
    theirs = torch.nn.init.normal_(torch.zeros(3, 5), generator=torch_generator)
    assert np.array_equal(p.detach().numpy(), theirs.numpy())
    assert p.requires_grad and p.is_leaf
    for name in ("xavier_uniform_", "kaiming_normal_", "trunc_normal_", "orthogonal_", "uniform_"):
        before = tg.get_rng_state().numpy().copy()
        getattr(init, name)(p, generator=tg.Generator().manual_seed(3))
        assert np.array_equal(tg.get_rng_state().numpy(), before), name


def test_a_change_is_seen_by_backward():
    p = Parameter(tg.ones(3))
    loss = (p * p).sum()
    init.zeros_(p)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_errors():
    flat = tg.zeros(3)
    for name in ("xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_"):
        with pytest.raises(ValueError, match=r"2 or more dimensions.*shape \(3,\)"):
            getattr(init, name)(flat)
    for name in ("eye_", "dirac_", "orthogonal_"):
        with pytest.raises(ValueError, match=f"{name}: only tensors with"):
            getattr(init, name)(flat)
    with pytest.raises(ValueError, match="sparse_: only tensors with 2 dimensions"):
        init.sparse_(flat, 0.5)
    with pytest.raises(ValueError, match="5 output channels do not divide into 2 groups"):
        init.dirac_(tg.zeros(5, 2, 3), 2)
    with pytest.raises(ValueError, match="mode 'fan' is not supported"):
        init.kaiming_uniform_(tg.zeros(3, 3), mode="fan")
    with pytest.raises(ValueError, match="unsupported nonlinearity 'swish'; choose from conv1d"):
        init.calculate_gain("swish")
    with pytest.raises(ValueError, match="negative slope is a number"):
        init.calculate_gain("leaky_relu", True)
    with pytest.warns(UserWarning, match="without elements"):
        init.kaiming_normal_(tg.zeros(0, 3))
    assert init.orthogonal_(tg.zeros(0, 3)).shape == (0, 3)


def test_the_spread_is_right():
    """Mathematics, not PyTorch: the variance after a layer with its gain is that before."""
    tg.manual_seed(0)
    weight = init.kaiming_normal_(tg.zeros(997, 991), nonlinearity="relu").numpy()
    assert abs(weight.std() * math.sqrt(991 / 2) - 1) < 0.01
    weight = init.xavier_uniform_(tg.zeros(997, 991)).numpy()
    assert abs(weight.std() * math.sqrt((991 + 997) / 2) - 1) < 0.01
