"""Convolution, pooling and resizing layers beside torch.nn's: weights, states, outputs, repr."""

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad import nn

L, HW = (2, 6, 11), (2, 6, 7, 11)

LAYERS = {
    "Conv1d": (lambda nn: nn.Conv1d(6, 5, 3), L),
    "Conv1d, no batch": (lambda nn: nn.Conv1d(6, 5, 3, stride=2), L[1:]),
    "Conv1d, same": (lambda nn: nn.Conv1d(6, 4, 3, padding="same", dilation=2, groups=2), L),
    "Conv1d, valid": (lambda nn: nn.Conv1d(6, 4, (3,), padding="valid", bias=False), L),
    "Conv1d, circular": (lambda nn: nn.Conv1d(6, 4, 3, padding=2, padding_mode="circular"), L),
    "Conv2d": (lambda nn: nn.Conv2d(6, 5, 3), HW),
    "Conv2d, strided": (lambda nn: nn.Conv2d(6, 5, (3, 2), (2, 1), (1, 0), (1, 3)), HW),
    "Conv2d, depthwise": (lambda nn: nn.Conv2d(6, 12, 3, groups=6), HW),
    "Conv2d, reflect": (
        lambda nn: nn.Conv2d(6, 5, 3, padding="same", dilation=2, padding_mode="reflect"), HW,
    ),
    "Conv2d, replicate": (
        lambda nn: nn.Conv2d(6, 5, 3, padding=(2, 1), padding_mode="replicate"), HW,
    ),
    "ConvTranspose1d": (lambda nn: nn.ConvTranspose1d(6, 5, 3, 2, 1, 1), L),
    "ConvTranspose2d": (lambda nn: nn.ConvTranspose2d(6, 4, 3, 2, 1, (0, 1), 2), HW),
    "ConvTranspose2d, wide": (lambda nn: nn.ConvTranspose2d(6, 4, 3, dilation=2, bias=False), HW),
    "MaxPool1d": (lambda nn: nn.MaxPool1d(3, 2, 1), L),
    "MaxPool1d, all": (lambda nn: nn.MaxPool1d(2, dilation=3, ceil_mode=True), L),
    "MaxPool2d": (lambda nn: nn.MaxPool2d((3, 2)), HW),
    "AvgPool1d": (lambda nn: nn.AvgPool1d(3, padding=1), L),
    "AvgPool1d, pair": (lambda nn: nn.AvgPool1d([4], 3, 2, True, False), L),
    "AvgPool2d": (lambda nn: nn.AvgPool2d(3, 2, 1, divisor_override=7), HW),
    "AdaptiveAvgPool1d": (lambda nn: nn.AdaptiveAvgPool1d(4), L),
    "AdaptiveAvgPool2d": (lambda nn: nn.AdaptiveAvgPool2d((None, 4)), HW),
    "AdaptiveMaxPool1d": (lambda nn: nn.AdaptiveMaxPool1d(4), L),
    "AdaptiveMaxPool2d": (lambda nn: nn.AdaptiveMaxPool2d(3), HW),
    "Unfold": (lambda nn: nn.Unfold((3, 2), padding=1), HW),
    "Fold": (lambda nn: nn.Fold((3, 4), 2), (2, 8, 6)),
    "ConstantPad1d": (lambda nn: nn.ConstantPad1d(2, 0.5), L),
    "ConstantPad2d": (lambda nn: nn.ConstantPad2d((1, 2, 0, -1), 3), HW),
    "ZeroPad1d": (lambda nn: nn.ZeroPad1d((1, 2)), L),
    "ZeroPad2d": (lambda nn: nn.ZeroPad2d(1), HW),
    "ReflectionPad1d": (lambda nn: nn.ReflectionPad1d(2), L),
    "ReflectionPad2d": (lambda nn: nn.ReflectionPad2d((1, 2, 3, 0)), HW),
    "ReplicationPad1d": (lambda nn: nn.ReplicationPad1d(2), L),
    "ReplicationPad2d": (lambda nn: nn.ReplicationPad2d((1, 2, 3, 0)), HW),
    "CircularPad1d": (lambda nn: nn.CircularPad1d(2), L),
    "CircularPad2d": (lambda nn: nn.CircularPad2d((1, 2, 3, 0)), HW),
    "Upsample": (lambda nn: nn.Upsample(scale_factor=2), L),
    "Upsample, to a size": (lambda nn: nn.Upsample((5, 13), mode="bicubic"), HW),
    "Upsample, corners": (lambda nn: nn.Upsample(scale_factor=(2, 3), mode="bilinear"), HW),
    "UpsamplingNearest2d": (lambda nn: nn.UpsamplingNearest2d(scale_factor=2), HW),
    "UpsamplingBilinear2d": (lambda nn: nn.UpsamplingBilinear2d((5, 13)), HW),
    "PixelShuffle": (lambda nn: nn.PixelShuffle(2), (3, 8, 5, 7)),
    "PixelUnshuffle": (lambda nn: nn.PixelUnshuffle(2), (3, 5, 6, 8)),
    "Unflatten": (lambda nn: nn.Unflatten(1, (2, -1)), L),
    "network": (
        lambda nn: nn.Sequential(
            nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 5, 2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
        ), HW,
    ),
}  # fmt: skip
table = pytest.mark.parametrize("name", LAYERS)


def pair(make):
    """The layer of both frameworks from one seed."""
    tg.manual_seed(1337)
    torch.manual_seed(1337)
    return make(nn), make(torch.nn)


def numbers(*shape):
    return np.random.default_rng(7).standard_normal(shape)


@table
def test_first_weights_and_repr(name):
    ours, theirs = pair(LAYERS[name][0])
    assert repr(ours) == repr(theirs)
    mine, other = ours.state_dict(), theirs.state_dict()
    assert list(mine) == list(other)
    for key in mine:
        np.testing.assert_array_equal(mine[key].numpy(), other[key].numpy(), strict=True)


@table
def test_outputs_gradients_and_states(name):
    make, shape = LAYERS[name]
    ours, theirs = pair(make)
    ours, theirs = ours.double(), theirs.double()
    theirs.load_state_dict({k: torch.tensor(v.numpy() * 3) for k, v in ours.state_dict().items()})
    ours.load_state_dict(theirs.state_dict())
    x = tg.tensor(numbers(*shape), requires_grad=True)
    y = torch.tensor(numbers(*shape), requires_grad=True)
    mine, other = ours(x), theirs(y)
    np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), 1e-9, 1e-12)
    g = numbers(*other.shape)
    mine.backward(tg.tensor(g))
    other.backward(torch.tensor(g))
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), 1e-9, 1e-12)
    for (key, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), 1e-9, 1e-12, err_msg=key)


@pytest.mark.parametrize("adaptive", ["", "Adaptive"])
@pytest.mark.parametrize("kind", ["MaxPool1d", "MaxPool2d"])
def test_places_of_maxima(kind, adaptive):
    ours, theirs = pair(lambda nn: getattr(nn, adaptive + kind)(3, return_indices=True))
    assert repr(ours) == repr(theirs)
    x = numbers(*(L if kind[-2] == "1" else HW))
    for mine, other in zip(ours(tg.tensor(x)), theirs(torch.tensor(x)), strict=True):
        np.testing.assert_array_equal(mine.numpy(), other.numpy(), strict=True)


@pytest.mark.parametrize("size", [(13, 21), (14, 22), (2, 5, 14, 21), [13, 22]])
def test_transposed_convolution_to_a_size(size):
    ours, theirs = pair(lambda nn: nn.ConvTranspose2d(6, 5, 3, stride=2, padding=1))
    x = numbers(*HW).astype("f")
    mine, other = ours(tg.tensor(x), size), theirs(torch.tensor(x), size)
    assert mine.shape == other.shape
    np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), 1e-4, 1e-5)


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda nn: nn.Conv2d(3, 4, 3, groups=2), ValueError, "divide in_channels and out"),
        (lambda nn: nn.Conv2d(4, 3, 3, groups=2), ValueError, "divide in_channels and out"),
        (lambda nn: nn.Conv1d(4, 4, 3, groups=0), ValueError, "groups must be positive"),
        (lambda nn: nn.Conv1d(3, 4, 3, padding="full"), ValueError, "'same', 'valid' or ints"),
        (lambda nn: nn.Conv1d(3, 4, 3, 2, "same"), ValueError, "goes with stride 1, not 2"),
        (lambda nn: nn.Conv2d(3, 4, 3, padding_mode="edge"), ValueError, "padding_mode must be"),
        (
            lambda nn: nn.ConvTranspose1d(3, 4, 3, padding_mode="reflect"), ValueError,
            "padding_mode must be 'zeros', not 'reflect'",
        ),
        (lambda nn: nn.Unflatten(1, 6), TypeError, "a tuple of ints, not 6"),
        (
            lambda nn: nn.ConvTranspose1d(3, 4, 3, 2)(tg.ones(1, 3, 5) if nn is not torch.nn
            else torch.ones(1, 3, 5), (13,)), ValueError, r"must lie between \(11,\) and \(12,\)",
        ),
        (
            lambda nn: nn.ConvTranspose1d(3, 4, 3, 2)(tg.ones(1, 3, 5) if nn is not torch.nn
            else torch.ones(1, 3, 5), (1, 13)), ValueError, "must have 1 or 3 entries",
        ),
    ],
)  # fmt: skip
def test_errors(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make(nn)
    with pytest.raises(error):
        make(torch.nn)


def test_kernels_of_a_wrong_rank_and_transposed_words_are_refused():
    """PyTorch makes such layers and fails when they are called."""
    with pytest.raises(ValueError, match=r"kernel_size .* an int or 2 ints"):
        nn.Conv2d(3, 4, (3,))
    with pytest.raises(ValueError, match="padding must be an int or 2 ints, not 'same'"):
        nn.ConvTranspose2d(3, 4, 3, padding="same")


def test_other_dtypes():
    assert nn.Conv1d(2, 3, 3, dtype=tg.float64).weight.dtype == tg.float64
    half = nn.Conv2d(2, 3, 3, dtype=tg.float16)
    assert half(tg.ones(1, 2, 5, 5, dtype=tg.float16)).dtype == tg.float16
