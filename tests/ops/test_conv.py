"""Convolution, pooling and resizing beside PyTorch in float64, over drawn sizes and settings.

Where PyTorch itself is at fault the case is named, and left out or held to mathematics.
"""

from __future__ import annotations

import warnings
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import twins
from tensorgrad.kernels.cpu import threads
from tensorgrad.ops import conv, pooling
from tests.ops.compare import assert_same, outcome, run, to_numpy

seeds = st.integers(0, 2**16)


def numbers(seed: int, *shape: int, ties: bool = False, nan: bool = False) -> np.ndarray:
    draw = np.random.default_rng(seed)
    x = draw.standard_normal(shape)
    if ties:
        x = np.round(x)
    if nan and x.size:
        x.flat[draw.integers(x.size)] = np.nan
    return x


def same(name: str, arrays: list[np.ndarray], *args, **settings) -> None:
    """Values and gradients equal, or the same class of error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PyTorch's, on even kernels with "same"
        mine, theirs = (
            outcome(
                lambda t=t: run(
                    t, lambda t, *xs: getattr(t.nn.functional, name)(*xs, *args, **settings), arrays
                )
            )
            for t in (tg, torch)
        )
    if isinstance(mine, type) or isinstance(theirs, type):
        assert mine is theirs or theirs is NotImplementedError, f"{mine}, in PyTorch {theirs}"
        return
    assert_same(mine[0], theirs[0], what=f"{name} value")
    assert_same(mine[1], theirs[1], what=f"{name} gradient")


def ints(low: int, high: int, n: int):
    return st.tuples(*[st.integers(low, high)] * n)


# ---- convolutions


@st.composite
def convolutions(draw):
    """Rank, images, channels of both sides, groups, sizes and settings."""
    n, groups = draw(st.integers(1, 2)), draw(st.sampled_from([1, 1, 2, 3]))
    return {
        "n": n, "images": draw(st.sampled_from([(), (0,), (1,), (3,)])), "groups": groups,
        "c": groups * draw(st.integers(1, 3)), "d": groups * draw(st.integers(1, 3)),
        "size": draw(ints(1, 11, n)), "kernel": draw(ints(1, 4, n)), "bias": draw(st.booleans()),
        "stride": draw(ints(1, 3, n)), "padding": draw(ints(0, 4, n)),
        "dilation": draw(ints(1, 3, n)), "output_padding": draw(ints(0, 2, n)), "seed": draw(seeds),
    }  # fmt: skip


@given(convolutions())
def test_convolution(p):
    x = numbers(p["seed"], *p["images"], p["c"], *p["size"])
    w = numbers(p["seed"] + 1, p["d"], p["c"] // p["groups"], *p["kernel"])
    arrays = [x, w, *([numbers(p["seed"] + 2, p["d"])] if p["bias"] else [])]
    settings = {key: p[key] for key in ("stride", "padding", "dilation", "groups")}
    same(f"conv{p['n']}d", arrays, **settings)


@given(convolutions(), st.sampled_from(["same", "valid"]))
def test_convolution_padded_by_a_word(p, padding):
    x = numbers(p["seed"], *p["images"], p["c"], *p["size"])
    w = numbers(p["seed"] + 1, p["d"], p["c"] // p["groups"], *p["kernel"])
    stride = p["stride"] if padding == "valid" else 1
    same(
        f"conv{p['n']}d", [x, w], stride=stride, padding=padding, dilation=p["dilation"],
        groups=p["groups"],
    )  # fmt: skip


@given(convolutions())
def test_transposed_convolution(p):
    if p["images"] == (0,):  # where PyTorch does not look at these
        p["output_padding"] = p["padding"] = 0
    x = numbers(p["seed"], *p["images"], p["d"], *p["size"])
    w = numbers(p["seed"] + 1, p["d"], p["c"] // p["groups"], *p["kernel"])
    arrays = [x, w, *([numbers(p["seed"] + 2, p["c"])] if p["bias"] else [])]
    keys = ("stride", "padding", "output_padding", "groups", "dilation")
    same(f"conv_transpose{p['n']}d", arrays, **{key: p[key] for key in keys})


@pytest.mark.parametrize("name", ["conv1d", "conv2d", "conv_transpose2d"])
@pytest.mark.parametrize("count", [1, 3])
def test_numbers_do_not_depend_on_threads(name, count, monkeypatch):
    n, before = int(name[-2]), threads.get_num_threads()
    x = tg.tensor(numbers(1, 5, 7, *(41,) * n), dtype=tg.float32, requires_grad=True)
    w = tg.tensor(numbers(2, 7, 7, *(3,) * n), dtype=tg.float32, requires_grad=True)

    def all_of_it():
        y = getattr(F, name)(x, w, None, 2, 1)
        return [y, *tg.autograd.grad(y, [x, w], tg.ones_like(y))]

    monkeypatch.setattr(threads, "WORTH", 10)
    expected = all_of_it()
    try:
        threads.set_num_threads(count)
        for a, b in zip(all_of_it(), expected, strict=True):
            np.testing.assert_array_equal(to_numpy(a), to_numpy(b))
    finally:
        threads.set_num_threads(before)


@pytest.mark.parametrize("cache", [1, 1 << 12, 1 << 30])
@pytest.mark.parametrize("pieces", [1, 4, 16])
def test_any_cut_of_the_work_gives_the_sum(cache, pieces, monkeypatch):
    monkeypatch.setattr(conv, "CACHE", cache)
    monkeypatch.setattr(conv, "PIECES", pieces)
    monkeypatch.setattr(conv, "TALL", 2)
    monkeypatch.setattr(conv, "WIDE", 7)
    monkeypatch.setattr(threads, "WORTH", 1)
    for name, groups in (("conv2d", 1), ("conv2d", 2), ("conv_transpose2d", 1)):
        arrays = [numbers(1, 5, 6, 13, 11), numbers(2, 6, 6 // groups, 3, 2)]
        for stride in (1, 2):
            same(name, arrays, None, stride, 1, groups=groups)


def test_a_library_of_products_that_is_not_ours_to_steer(monkeypatch):
    monkeypatch.setattr(conv.blas, "_openblas", lambda: None)
    same("conv2d", [numbers(1, 2, 3, 7, 5), numbers(2, 5, 3, 3, 2)], None, 2)


def test_sums_of_half_types_are_exact():
    """2,048 and 1s: in float16 a running sum would stop at 2,048."""
    x = tg.ones(1, 1, 3000, dtype=tg.float16)
    w = tg.ones(1, 1, 3000, dtype=tg.float16)
    assert F.conv1d(x, w).item() == 3000
    assert F.avg_pool1d(x, 3000).item() == 1
    assert F.fold(tg.ones(1, 4, 9, dtype=tg.float16), 4, 2).sum().item() == 36


def test_integers():
    x, w = np.arange(10).reshape(1, 2, 5), np.arange(12).reshape(3, 2, 2)
    mine, theirs = F.conv1d(tg.tensor(x), tg.tensor(w)), torch.tensor(x)
    theirs = torch.nn.functional.conv1d(theirs, torch.tensor(w))
    np.testing.assert_array_equal(mine.numpy(), theirs.numpy(), strict=True)
    for name in ("max_pool2d", "avg_pool2d"):
        x = np.arange(-13, 12).reshape(1, 5, 5)
        mine = getattr(F, name)(tg.tensor(x), 2)
        theirs = getattr(torch.nn.functional, name)(torch.tensor(x), 2)
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy(), strict=True)


# ---- pooling


@st.composite
def pools(draw):
    n = draw(st.integers(1, 2))
    return n, numbers(
        draw(seeds), *draw(st.sampled_from([(3,), (2, 3), (0, 2), (1, 1)])), *draw(ints(1, 11, n)),
        ties=draw(st.booleans()), nan=draw(st.booleans()),
    ), {
        "kernel_size": draw(ints(1, 4, n)), "stride": draw(st.none() | ints(1, 4, n)),
        "padding": draw(ints(0, 2, n)), "ceil_mode": draw(st.booleans()),
    }  # fmt: skip


@given(pools(), st.integers(1, 3), st.booleans())
def test_max_pool(p, dilation, indices):
    n, x, settings = p
    try:
        getattr(F, f"max_pool{n}d")(tg.tensor(x), dilation=dilation, **settings)
    except RuntimeError as error:  # PyTorch's gradient writes beyond its memory there
        assume("without an element" not in str(error))
    same(f"max_pool{n}d", [x], dilation=dilation, return_indices=indices, **settings)


@given(pools())
def test_max_pool_without_gradient(p):
    n, x, settings = p
    plain, tracked = tg.tensor(x), tg.tensor(x, requires_grad=True)
    mine, theirs = (
        outcome(lambda t=t: getattr(F, f"max_pool{n}d")(t, **settings)) for t in (plain, tracked)
    )
    if isinstance(theirs, type):
        assert mine is theirs
    else:
        np.testing.assert_array_equal(mine.numpy(), to_numpy(theirs), strict=True)


@given(pools(), st.booleans(), st.sampled_from([None, 3, -2]))
def test_avg_pool(p, count_include_pad, divisor):
    n, x, settings = p
    more = {"count_include_pad": count_include_pad} | (
        {"divisor_override": divisor} if n == 2 else {}
    )
    same(f"avg_pool{n}d", [x], **settings, **more)


@given(pools(), st.data())
def test_adaptive_pools(p, data):
    n, x, _ = p
    out = data.draw(ints(1, 13, n)) if n == 2 else data.draw(st.integers(1, 13))
    if n == 2 and data.draw(st.booleans()):
        out = (None, out[1])
    same(f"adaptive_avg_pool{n}d", [x], out)
    same(f"adaptive_max_pool{n}d", [x], out, return_indices=True)


@given(ints(1, 9, 2), ints(1, 4, 2), ints(1, 3, 2), ints(0, 2, 2), ints(1, 3, 2), seeds)
def test_unfold_and_fold(size, kernel_size, dilation, padding, stride, seed):
    x = numbers(seed, 2, 3, *size)
    settings = [kernel_size, dilation, padding, stride]
    same("unfold", [x], *settings)
    try:
        columns = F.unfold(tg.tensor(x), *settings).numpy()
    except RuntimeError:
        return
    same("fold", [columns], size, *settings)
    same("fold", [columns[0]], size, *settings)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(pools(), st.integers(1, 3))
def test_kernels_find_the_formulas_places(dtype, p, dilation):
    n, x, settings = p
    x = x.astype(dtype).reshape(-1, *x.shape[-n:])
    try:
        at = pooling._windows("pool", tg.tensor(x), n, *_ordered(settings, dilation))
    except RuntimeError:
        return
    places = pooling._taps_inside(at)
    assume(all(p.min() >= 0 and p.max() < m for p, m in zip(places, at.size, strict=True)))
    from tensorgrad.kernels.cpu.max_pool import max_pool_backward, max_pool_place

    index = max_pool_place(x, places)
    with_formula(lambda: np.testing.assert_array_equal(index, pooling._place_of_max(np, x, places)))
    flat = index.reshape(len(x), -1)
    g = numbers(1, *flat.shape).astype(dtype)
    mine = max_pool_backward(g, flat, (len(x), prod(at.size)))
    with_formula(
        lambda: np.testing.assert_allclose(
            mine, pooling._added(np, g, flat, (len(x), prod(at.size))), 1e-5
        )
    )


def _ordered(settings, dilation):
    keys = ("kernel_size", "stride", "padding")
    return *(settings[key] for key in keys), dilation, settings["ceil_mode"]


def with_formula(check):
    twins.enabled = False
    try:
        check()
    finally:
        twins.enabled = True


# ---- resizing

MODES = {1: ["linear"], 2: ["bilinear", "bicubic"], 3: ["trilinear"]}


@given(st.integers(1, 3), st.data())
def test_interpolate(n, data):
    size, draw = data.draw(ints(1, 9, n)), data.draw
    mode = draw(st.sampled_from(["nearest", "nearest-exact", "area", *MODES[n]]))
    settings: dict[str, object] = {"mode": mode}
    if mode in MODES[n]:
        settings["align_corners"] = draw(st.sampled_from([None, True, False]))
    if draw(st.booleans()):
        settings["size"] = draw(ints(1, 13, n))
    else:
        factors = st.sampled_from([0.5, 2.0, 3.0, 1.3, 0.7, 1 / 3]) | st.floats(0.3, 3)
        settings["scale_factor"] = draw(st.tuples(*[factors] * n))
        settings["recompute_scale_factor"] = draw(st.sampled_from([None, True, False]))
        if (
            mode == "nearest" and n != 2
        ):  # PyTorch's gradient belongs to other places than its value
            out = [int(m * f) for m, f in zip(size, settings["scale_factor"], strict=True)]
            assume(not any(o in (m, 2 * m) for m, o in zip(size, out, strict=True)))
    same("interpolate", [numbers(draw(seeds), 2, 3, *size)], **settings)


@given(ints(1, 9, 2), ints(2, 13, 2), st.booleans(), st.booleans(), seeds)
def test_interpolate_smoothed(size, out, cubic, align_corners, seed):
    """Images one pixel wide are left out: in PyTorch their columns run together."""
    same(
        "interpolate", [numbers(seed, 2, 3, *size)], out, mode="bicubic" if cubic else "bilinear",
        align_corners=align_corners, antialias=True,
    )  # fmt: skip


@given(st.integers(1, 3), st.sampled_from(["reflect", "replicate", "circular"]), st.data())
def test_pad_by_what_is_there(n, mode, data):
    x = numbers(
        data.draw(seeds), *data.draw(st.sampled_from([(3,), (2, 3)])), *data.draw(ints(1, 7, n))
    )
    least = (
        0 if mode == "circular" or n == 3 else -2
    )  # PyTorch's answers to fewer are not initialised
    same("pad", [x], data.draw(ints(least, 4, 2 * n)), mode)


@given(st.integers(1, 4), st.data(), st.sampled_from([None, 0, -1.5, float("inf")]))
def test_pad_by_a_value(n, data, value):
    shape = data.draw(ints(0, 5, n))
    pads = data.draw(ints(-2, 3, 2 * data.draw(st.integers(1, n))))
    same("pad", [numbers(1, *shape)], pads, "constant", value)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "float16"])
def test_pad_and_nearest_keep_any_dtype(dtype):
    x = (np.arange(12) % 3).astype(dtype).reshape(1, 3, 4)
    for settings in ({}, {"value": 1}, {"mode": "circular"}):
        mine, theirs = (
            t.nn.functional.pad(t.as_tensor(x), (1, 2), **settings) for t in (tg, torch)
        )
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy(), strict=True)
    assert F.interpolate(tg.tensor(x), 7).dtype == x.dtype


@given(st.integers(1, 3), ints(1, 3, 3), seeds)
def test_pixel_shuffle(r, sizes, seed):
    c, h, w = sizes
    same("pixel_shuffle", [numbers(seed, 2, c * r * r, h, w)], r)
    same("pixel_unshuffle", [numbers(seed, 2, c, h * r, w * r)], r)
    x = tg.tensor(numbers(seed, 2, c * r * r, h, w))
    assert F.pixel_unshuffle(F.pixel_shuffle(x, r), r).equal(x)


def test_what_has_no_weight_is_not_looked_at():
    """A NaN or infinity stays where windows see it; PyTorch multiplies it by zero."""
    x = np.zeros((1, 1, 6))
    x[..., 3] = np.inf
    wide = F.interpolate(tg.tensor(x), 6, mode="linear").numpy()
    np.testing.assert_array_equal(wide, x)
    g = tg.zeros(1, 1, 4, dtype=tg.float64)
    g[..., 2] = float("inf")
    leaf = tg.tensor(x, requires_grad=True)
    F.adaptive_avg_pool1d(leaf, 4).backward(g)
    np.testing.assert_array_equal(leaf.grad.numpy()[0, 0], [0, 0, 0, np.inf, np.inf, 0])


# ---- errors


def z(*shape, t=tg, dtype=None):
    return t.zeros(shape, dtype=dtype or t.float32)


def image(F, z, **settings):
    return F.conv2d(z(2, 4, 4, 5), z(3, 4, 2, 2), **settings)


ERRORS = {
    "conv2d": [
        (lambda F, z: F.conv2d(z(2, 3), z(1, 1, 2, 2)), "must have 4 dims, or 3 without a batch"),
        (lambda F, z: F.conv2d(z(2, 3, 4, 5), z(1, 3, 4)), "weight must have 4 dims"),
        (lambda F, z: F.conv2d(z(2, 3, 4, 5), z(1, 1, 2, 2)), r"has 3 channels, .* takes 1"),
        (lambda F, z: F.conv2d(z(2, 4, 4, 5), z(3, 2, 2, 2), groups=2), "multiple of groups, 2"),
        (lambda F, z: F.conv2d(z(2, 4, 4, 5), z(3, 4, 5, 2)), "does not fit into an input"),
        (lambda F, z: F.conv2d(z(2, 4, 0, 5), z(3, 4, 2, 2)), "does not fit into an input"),
        (lambda F, z: image(F, z, groups=0), "groups must be at least 1"),
        (lambda F, z: image(F, z, stride=0), "stride must be at least 1"),
        (lambda F, z: image(F, z, padding=-1), "padding must be at least 0"),
        (lambda F, z: image(F, z, dilation=0), "dilation must be at least 1"),
        (lambda F, z: image(F, z, stride=(1, 2, 3)), "stride must be one int or 2"),
        (lambda F, z: image(F, z, stride=2, padding="same"), "goes with stride 1, not 2"),
        (lambda F, z: image(F, z, padding="full"), "'same', 'valid', an int or 2 ints, not 'full'"),
        (lambda F, z: image(F, z, bias=z(4)), r"bias must have shape \(3,\), one number"),
    ],
    "conv1d": [
        (lambda F, z: F.conv1d(z(2, 4, 5), z(3, 4, 2).double()), "float32 and a weight of float64"),
    ],
    "conv_transpose2d": [
        (lambda F, z: F.conv_transpose2d(z(2, 3, 4, 5), z(4, 3, 2, 2)), "channels, .* takes 4"),
        (
            lambda F, z: F.conv_transpose2d(z(2, 3, 4, 5), z(3, 2, 2, 2), None, 2, 0, 2),
            r"output_padding \(2, 2\) must be smaller than stride",
        ),
        (lambda F, z: F.conv_transpose2d(z(2, 3, 2, 2), z(3, 2, 2, 2), padding=3), "no output"),
    ],
    "max_pool2d": [
        (lambda F, z: F.max_pool2d(z(4, 4), 2), r"expected \(N, C, H, W\)"),
        (lambda F, z: F.max_pool2d(z(1, 0, 4, 4), 2), "only the batch may be empty"),
        (lambda F, z: F.max_pool2d(z(1, 4, 4), 2, padding=2), "more than half of the kernel"),
        (lambda F, z: F.max_pool2d(z(1, 4, 4), 5), "does not fit into an input"),
    ],
    "max_pool1d": [(lambda F, z: F.max_pool1d(z(4), 2), r"expected \(N, C, L\)")],
    "avg_pool2d": [
        (lambda F, z: F.avg_pool2d(z(1, 4, 4), 2, divisor_override=0), "must not be zero")
    ],
    "avg_pool1d": [(lambda F, z: F.avg_pool1d(z(1, 4), 0), "kernel_size must be at least 1")],
    "adaptive_avg_pool2d": [
        (lambda F, z: F.adaptive_avg_pool2d(z(1, 4, 4), -1), "output_size must be at least 0"),
        (lambda F, z: F.adaptive_avg_pool2d(z(1, 4, 4), (2,)), "must have 2 entries"),
    ],
    "adaptive_max_pool2d": [
        (lambda F, z: F.adaptive_max_pool2d(z(1, 0, 4), 2), "only the batch may be empty")
    ],
    "unfold": [(lambda F, z: F.unfold(z(1, 1, 4, 4), 5), "does not fit into")],
    "fold": [
        (lambda F, z: F.fold(z(1, 4, 8), 4, 2), "9 columns, one for each window"),
        (lambda F, z: F.fold(z(1, 5, 9), 4, 2), "multiple of 4 rows"),
    ],
    "pad": [
        (lambda F, z: F.pad(z(2, 4), (1,)), "no pair for each"),
        (lambda F, z: F.pad(z(4), (1, 1, 1, 1)), "no pair for each"),
        (lambda F, z: F.pad(z(2, 4), (-3, -2)), "cuts more off"),
        (lambda F, z: F.pad(z(2, 4), (4, 0), "reflect"), "at most 3 to a dim of size 4, not 4"),
        (lambda F, z: F.pad(z(2, 4), (5, 0), "circular"), "at most 4 to a dim of size 4, not 5"),
        (lambda F, z: F.pad(z(2, 4), (1, 0), "reflect", value=1), "takes no value"),
    ],
    "interpolate": [(lambda F, z: F.interpolate(z(1, 1, 4), 0), "cannot become one of sizes")],
    "pixel_shuffle": [
        (lambda F, z: F.pixel_shuffle(z(1, 3, 2, 2), 2), "no multiple of 2 x 2"),
        (lambda F, z: F.pixel_shuffle(z(2, 2), 2), r"expected \(\*, C, H, W\)"),
    ],
    "pixel_unshuffle": [
        (lambda F, z: F.pixel_unshuffle(z(1, 1, 4, 3), 2), "must be multiples of 2"),
        (lambda F, z: F.pixel_unshuffle(z(1, 1, 4, 4), 0), "must be positive"),
    ],
}


@pytest.mark.parametrize(
    ("name", "call", "sentence"),
    [(name, *case) for name, cases in ERRORS.items() for case in cases],
)
def test_sentences(name, call, sentence):
    """A RuntimeError in both; ours names the op and what does not fit."""
    with pytest.raises(RuntimeError, match=f"^{name}: .*{sentence}"):
        call(F, z)
    with pytest.raises(RuntimeError):
        call(torch.nn.functional, lambda *shape: z(*shape, t=torch))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda F, z: F.conv1d(z(2, 4, 5), None), TypeError),
        (lambda F, z: F.conv2d(z(2, 4, 4, 5), z(3, 4, 2, 2), stride=1.5), TypeError),
        (lambda F, z: F.max_pool2d(z(1, 4, 4), 2.0), TypeError),
        (lambda F, z: F.adaptive_avg_pool1d(z(1, 4), None), TypeError),
        (lambda F, z: F.pad(z(2, 4), 1), TypeError),
        (lambda F, z: F.pad(z(2, 4), (1.5, 1)), TypeError),
        (lambda F, z: F.interpolate(z(1, 1, 4)), ValueError),
        (lambda F, z: F.interpolate(z(1, 1, 4), 2, 2), ValueError),
        (lambda F, z: F.interpolate(z(1, 1, 4), (2, 2)), ValueError),
        (lambda F, z: F.interpolate(z(1, 1, 4), scale_factor=(2, 2)), ValueError),
        (lambda F, z: F.interpolate(z(1, 1, 4), 2, align_corners=False), ValueError),
        (lambda F, z: F.interpolate(z(1, 1, 4), 2, recompute_scale_factor=True), ValueError),
        (lambda F, z: F.interpolate(z(1, 1, 4, 4), 2, antialias=True), ValueError),
        (lambda F, z: F.interpolate(z(1, 1, 4), 2, mode="bilinear"), RuntimeError),
        (lambda F, z: F.interpolate(z(1, 1, 4), 2, mode="other"), RuntimeError),
        (lambda F, z: F.interpolate(z(4, 4), 2), RuntimeError),
        (lambda F, z: F.pad(z(2, 4), (1, 1), mode="edge"), RuntimeError),
        (lambda F, z: F.pad(z(4), (1, 1), mode="reflect"), RuntimeError),
    ],
)
def test_classes_of_errors(call, error):
    with pytest.raises(error):
        call(F, z)
    with pytest.raises(error):  # what PyTorch calls not implemented is a RuntimeError, too
        call(torch.nn.functional, lambda *shape: z(*shape, t=torch))


def test_windows_that_see_nothing_are_refused():
    """PyTorch answers -inf, and its gradient writes beyond its memory."""
    with pytest.raises(RuntimeError, match="leaves a window of 2, dilation 2, without an element"):
        F.max_pool2d(tg.zeros(1, 1, 1), 2, 1, 1, 2)


def test_refused_dtypes():
    flags = tg.zeros(1, 1, 4, dtype=tg.bool)
    for call in (lambda: F.conv1d(flags, flags), lambda: F.max_pool1d(flags, 2)):
        with pytest.raises(RuntimeError, match=r"convert them, as in x\.float\(\)"):
            call()
    whole = tg.zeros(1, 1, 4, dtype=tg.int64)
    for call in (
        lambda: F.adaptive_avg_pool1d(whole, 2), lambda: F.interpolate(whole, 2, mode="linear"),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="floating-point tensor, not int64"):
            call()
