"""The CPU twins against PyTorch in float64, at every shape; what they decline; and threads."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as TF
from hypothesis import given
from hypothesis import strategies as st

from tensorgrad import kernels
from tensorgrad.kernels.cpu import (
    adamw,
    attention,
    cross_entropy,
    dropout,
    elementary,
    embedding,
    gelu,
    jit,
    layer_norm,
    softmax,
    threads,
)

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
dtypes = st.sampled_from([F32, F64])
sizes = st.sampled_from([0, 1, 2, 3, 7, 13, 29, 61])
columns = st.sampled_from([1, 2, 3, 5, 11, 31, 67, 131])
seeds = st.integers(0, 2**32 - 1)


def normal(rng, *shape, dtype=F64, scale=1.0):
    """Read-only, so that a twin that wrote into it would fail."""
    x = np.asarray(rng.standard_normal(shape) * scale, dtype)
    x.flags.writeable = False
    return x


def close(actual, expected, dtype, scale=0):
    """Equal to PyTorch in float64, up to rounding of the largest number, or of scale."""
    for a, e in zip(actual, expected, strict=True):
        e = e.detach().numpy()
        assert a.dtype == dtype and a.shape == e.shape
        rtol = 1e-5 if dtype == F32 else 1e-12
        atol = rtol / 10 * np.abs(e[np.isfinite(e)]).max(initial=scale)
        np.testing.assert_allclose(a, e, rtol, atol)


def leaf(x):
    return None if x is None else torch.tensor(x.astype(np.float64), requires_grad=True)


def slopes(y, g, *inputs):
    return torch.autograd.grad(y, inputs, torch.tensor(g.astype(np.float64)), retain_graph=True)


# ---- numbers


@jit.kernel
def each_exp(lo: int, hi: int, x: jit.Vector, y: jit.OutVector) -> None:
    x, y = x[lo:hi], y[lo:hi]
    for i in range(x.size):
        y[i] = elementary.exp(x[i])


@jit.kernel
def each_cdf(lo: int, hi: int, x: jit.Vector, y: jit.OutVector) -> None:
    for i in range(lo, hi):
        y[i] = elementary.normal_cdf(x[i], elementary.exp(x.dtype.type(-0.5) * x[i] * x[i]))


@jit.kernel
def largest(lo: int, hi: int, x: jit.Vector, y: jit.OutVector) -> None:
    y[0] = x[lo]
    for i in range(lo, hi):
        y[0] = elementary.larger(y[0], x[i])


def run(kernel, x):
    y = np.empty_like(x)
    kernel[x.dtype](0, x.size, x, y)
    return y


def test_exp_is_right_to_two_units_in_the_last_place():
    x = np.linspace(-87.3, 88.3, 1_000_003).astype(F32)
    exact = np.exp(x.astype(F64))
    assert np.max(np.abs(run(each_exp, x) - exact) / np.spacing(exact.astype(F32))) < 2
    x = np.linspace(-700, 700, 10_007)
    np.testing.assert_allclose(run(each_exp, x), np.exp(x), 1e-15)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_exp_of_nothing_finite(dtype):
    x = np.array([0, -0.0, -np.inf, np.inf, np.nan, -1e4, 1e4] * 7, dtype)
    np.testing.assert_array_equal(run(each_exp, x), [1, 1, 0, np.inf, np.nan, 0, np.inf] * 7)


def test_the_normal_distribution_keeps_its_left_tail():
    x = np.linspace(-12, 12, 100_003).astype(F32)
    exact = 0.5 * torch.special.erfc(torch.tensor(x.astype(F64) * -(0.5**0.5))).numpy()
    near = np.abs(x) < 2
    np.testing.assert_allclose(run(each_cdf, x[near]), exact[near], 1e-6)
    np.testing.assert_allclose(run(each_cdf, x), exact, 1e-5)


@given(st.integers(1, 67), seeds)
def test_the_larger_number(n, seed):
    x = normal(np.random.default_rng(seed), n)
    assert run(largest, x)[0] == x.max()
    assert np.isnan(run(largest, np.append(x, np.nan))[0])
    assert np.isnan(run(largest, np.append(np.nan, x))[0])


# ---- each twin against PyTorch


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@given(sizes, columns, dtypes, seeds)
def test_gelu(approximate, rows, width, dtype, seed):
    rng = np.random.default_rng(seed)
    x, g = normal(rng, rows, width, dtype=dtype, scale=2), normal(rng, rows, width, dtype=dtype)
    tx = leaf(x)
    y = TF.gelu(tx, approximate=approximate)
    close([gelu.gelu_forward(x, approximate)], [y], dtype)
    close([gelu.gelu_backward(g, x, approximate)], slopes(y, g, tx), dtype)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_far_out(approximate, dtype):
    x = np.array([-np.inf, -1e9, -40, -0.0, 0, 40, 1e9, np.inf, np.nan] * 5, dtype)
    # In float64: on some processors PyTorch's float32 erf form makes nan of +inf.
    expected = TF.gelu(torch.tensor(x, dtype=torch.float64), approximate=approximate).numpy()
    np.testing.assert_allclose(gelu.gelu_forward(x, approximate), expected, 1e-6, 1e-30)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("n", [5, 1024, 2503])
def test_the_gradient_of_gelu_may_take_the_place_of_g(n, approximate):
    rng = np.random.default_rng(n)
    x, g = normal(rng, n), normal(rng, n)
    expected = gelu.gelu_backward(g, x, approximate)
    place = g.copy()
    assert gelu.gelu_backward(place, x, approximate, place) is place
    np.testing.assert_array_equal(place, expected)
    for unfit in (np.empty(n, F32), np.empty(n + 1), np.empty(2 * n)[::2], g):
        dx = gelu.gelu_backward(g, x, approximate, unfit)
        assert dx is not unfit
        np.testing.assert_array_equal(dx, expected)


@given(sizes, columns, dtypes, st.booleans(), st.booleans(), seeds)
def test_layer_norm(rows, width, dtype, weighted, biased, seed):
    rng = np.random.default_rng(seed)
    x, g = normal(rng, rows, width, dtype=dtype, scale=3) + 1, normal(rng, rows, width, dtype=dtype)
    if width < 5:  # a few numbers may be nearly equal: then float32 has no digits left of x - mean
        x += 20 * np.arange(width, dtype=dtype)
    weight = normal(rng, width, dtype=dtype) if weighted else None
    bias = normal(rng, width, dtype=dtype) if biased else None
    tx, tw, tb = map(leaf, (x, weight, bias))
    expected = TF.layer_norm(tx, (width,), tw, tb, 1e-3)
    y, mean, rstd = layer_norm.layer_norm_forward(x, weight, bias, 1e-3)
    close([y, mean], [expected, tx.mean(-1)], dtype)
    variance = (tx - tx.mean(-1, keepdim=True)).square().mean(-1)
    close([rstd], [(variance + 1e-3).rsqrt()], dtype)

    needs = (True, weighted, biased)
    parts = layer_norm.layer_norm_backward(g, x, weight, mean, rstd, needs)
    assert [part is not None for part in parts] == list(needs)
    wanted = [t for t in (tx, tw, tb) if t is not None]
    parts = [part for part in parts if part is not None]
    if width > 1:  # of one number nothing is left but cancellation
        close(parts, slopes(expected, g, *wanted), dtype, scale=30)


def test_layer_norm_gives_only_what_is_needed():
    rng = np.random.default_rng(3)
    x, g, weight = normal(rng, 5, 7), normal(rng, 5, 7), normal(rng, 7)
    _, mean, rstd = layer_norm.layer_norm_forward(x, weight, None, 1e-5)
    full = layer_norm.layer_norm_backward(g, x, weight, mean, rstd)
    for i in range(3):
        needs = tuple(i == j for j in range(3))
        parts = layer_norm.layer_norm_backward(g, x, weight, mean, rstd, needs)
        assert [p is not None for p in parts] == list(needs)
        np.testing.assert_array_equal(parts[i], full[i])


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@given(sizes, columns, dtypes, seeds)
def test_softmax(name, rows, width, dtype, seed):
    rng = np.random.default_rng(seed)
    x, g = normal(rng, rows, width, dtype=dtype, scale=4), normal(rng, rows, width, dtype=dtype)
    tx = leaf(x)
    expected = getattr(torch, name)(tx, -1)
    y = getattr(softmax, name + "_forward")(x)
    close([y], [expected], dtype)
    dx = getattr(softmax, name + "_backward")(g, y)
    close([dx], slopes(expected, g, tx), dtype, scale=1)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_of_rows_that_are_not_finite(name, dtype):
    inf, nan = np.inf, np.nan
    x = np.array([[0, -inf, 1e4], [-inf, -inf, -inf], [inf, 0, 1], [nan, 0, 1], [1e38] * 3], dtype)
    expected = getattr(torch, name)(torch.tensor(x.astype(F64)), -1).numpy()
    np.testing.assert_allclose(getattr(softmax, name + "_forward")(x), expected, 1e-6)


@given(
    sizes, columns, dtypes, st.booleans(), st.sampled_from([0.0, 0.1, 1.0]),
    st.sampled_from([np.int64, np.int32, np.uint8]), seeds,
)  # fmt: skip
def test_cross_entropy(rows, classes, dtype, weighted, smoothing, kind, seed):
    rng = np.random.default_rng(seed)
    x = normal(rng, rows, classes, dtype=dtype, scale=3)
    target = rng.integers(0, classes, rows).astype(kind)
    ignore = 0 if rng.random() < 0.5 else -100
    weight = np.abs(normal(rng, classes, dtype=dtype)) + dtype.type(0.1) if weighted else None
    tx, tw = leaf(x), None if weight is None else torch.tensor(weight.astype(F64))
    expected = TF.cross_entropy(
        tx, torch.tensor(target.astype(np.int64)), tw, ignore_index=ignore, reduction="none",
        label_smoothing=smoothing,
    )  # fmt: skip
    options = (weight, ignore, smoothing)
    loss, lse = cross_entropy.cross_entropy_forward(x, target, *options)
    kept = target != ignore
    close([loss, lse[kept]], [expected, tx.logsumexp(-1)[kept]], dtype)
    assert not lse[~kept].any()

    g = normal(rng, rows, dtype=dtype)
    dx = cross_entropy.cross_entropy_backward(g, x, target, lse, *options)
    close([dx], slopes(expected, g, tx), dtype, scale=1)
    dx = cross_entropy.cross_entropy_backward(dtype.type(0.3), x, target, lse, *options)
    close([dx], slopes(expected, np.full(rows, dtype.type(0.3)), tx), dtype, scale=1)


@pytest.mark.parametrize("wrong", [-1, 7, -100, 2**40])
def test_a_target_that_is_no_class_is_named(wrong):
    x, target = np.zeros((5, 7)), np.array([0, 6, 3, wrong, 3])
    with pytest.raises(IndexError, match=f"target {wrong} of row 3 .* 7 classes"):
        cross_entropy.cross_entropy_forward(x, target, None, -50)
    dx = cross_entropy.cross_entropy_backward(np.ones(5), x, target, np.zeros(5), None, -50)
    assert dx.any(1).tolist() == [True, True, True, False, True]


@given(sizes, columns, st.sampled_from([1, 2, 17]), dtypes, st.booleans(), seeds)
def test_embedding(n, width, rows, dtype, padded, seed):
    rng = np.random.default_rng(seed)
    g, index = normal(rng, 3, n, width, dtype=dtype), rng.integers(0, rows, (3, n))
    padding = int(rng.integers(0, rows)) if padded else None
    weight = torch.zeros(rows, width, dtype=torch.float64, requires_grad=True)
    y = TF.embedding(torch.tensor(index), weight, padding)
    for kind in (np.int64, np.uint8):
        dw = embedding.embedding_backward(g, index.astype(kind), rows, padding)
        close([dw], slopes(y, g, weight), dtype)


@pytest.mark.parametrize("wrong", [-1, 11, 2**40])
def test_an_index_that_is_no_row_is_named(wrong):
    with pytest.raises(IndexError, match=f"index {wrong} is none of the table's 11 rows"):
        embedding.embedding_backward(np.ones((3, 2)), np.array([0, wrong, 10]), 11)


def lay(x, order):
    """The same (B, H, T, D) with its axes in another order in memory."""
    return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))


lengths = st.sampled_from([1, 2, 3, 15, 16, 17, 31, 97, 131])
widths = st.sampled_from([1, 3, 16, 17, 32])
orders = st.permutations(range(4))


@given(lengths, lengths, widths, widths, st.booleans(), dtypes, orders, seeds)
def test_attention(T, S, D, E, causal, dtype, order, seed):
    rng = np.random.default_rng(seed)
    q, k = normal(rng, 2, 3, T, D, dtype=dtype), normal(rng, 2, 3, S, D, dtype=dtype)
    v, g = normal(rng, 2, 3, S, E, dtype=dtype), normal(rng, 2, 3, T, E, dtype=dtype)
    scale = [None, 0.3, 0.7][seed % 3]
    tq, tk, tv = map(leaf, (q, k, v))
    expected = TF.scaled_dot_product_attention(tq, tk, tv, is_causal=causal, scale=scale)
    scores = tq @ tk.transpose(-1, -2) * (D**-0.5 if scale is None else scale)
    if causal:
        scores = scores.masked_fill(~torch.ones(T, S).tril().bool(), -np.inf)
    q, k, v, g = (lay(x, order) for x in (q, k, v, g))
    if S >= 64 * T:
        assert attention.attention_forward(q, k, v, causal, scale) is None
        return
    out, lse = attention.attention_forward(q, k, v, causal, scale)
    close([out, lse], [expected, scores.logsumexp(-1)], dtype, scale=10)
    parts = attention.attention_backward(g, q, k, v, out, lse, causal, scale)
    close(parts, slopes(expected, g.copy(), tq, tk, tv), dtype, scale=30)


@pytest.mark.parametrize("outer", [(), (3,), (2, 3), (2, 1, 3)])
def test_attention_under_any_outer_sizes(outer):
    rng = np.random.default_rng(5)
    q, k, v = (normal(rng, *outer, n, 7) for n in (5, 11, 11))
    out, lse = attention.attention_forward(q, k, v, True)
    parts = attention.attention_backward(out, q, k, v, out, lse, True)
    tq, tk, tv = map(leaf, (q, k, v))
    expected = TF.scaled_dot_product_attention(tq, tk, tv, is_causal=True)
    close([out, *parts], [expected, *slopes(expected, out.copy(), tq, tk, tv)], F64)
    assert lse.shape == (*outer, 5)


def test_attention_of_scores_that_would_overflow():
    rng = np.random.default_rng(7)
    q, k, v = (normal(rng, 1, 2, 113, 16, dtype=F32, scale=s) for s in (300, 300, 1))
    out, lse = attention.attention_forward(q, k, v, True)
    tq, tk, tv = map(leaf, (q, k, v))
    expected = TF.scaled_dot_product_attention(tq, tk, tv, is_causal=True)
    np.testing.assert_allclose(out, expected.detach().numpy(), 1e-3, 1e-2)
    assert np.isfinite(lse).all()


def test_attention_lays_its_results_so_that_heads_join_without_a_copy():
    rng = np.random.default_rng(9)
    q = normal(rng, 2, 3, 5, 7)
    out, lse = attention.attention_forward(q, q, q)
    for x in (out, *attention.attention_backward(q, q, q, q, out, lse)):
        assert x.transpose(0, 2, 1, 3).flags.c_contiguous


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("shape", [(), (1,), (67,), (5, 13), (0, 3)])
def test_adamw_takes_the_steps_of_pytorch(shape, dtype):
    rng = np.random.default_rng(11)
    p = normal(rng, *shape, dtype=dtype).copy()
    options = {"lr": 0.03, "eps": 1e-6, "weight_decay": 0.2}
    theirs = torch.tensor(p, requires_grad=True)
    optimizer = torch.optim.AdamW([theirs], betas=(0.8, 0.95), foreach=False, **options)
    m, v = np.zeros_like(p), np.zeros_like(p)
    for n in range(1, 11):
        g = normal(rng, *shape, dtype=dtype)
        theirs.grad = torch.tensor(g) * 0.5
        optimizer.step()
        done = adamw.adamw_step(
            p, g, m, v, step_number=n, b1=0.8, b2=0.95, grad_scale=0.5, **options
        )
        assert done
        rtol = 2e-6 if dtype == F32 else 1e-14
        np.testing.assert_allclose(p, theirs.detach().numpy(), rtol, rtol)
        np.testing.assert_allclose(v, optimizer.state[theirs]["exp_avg_sq"], rtol, rtol)


def test_adamw_writes_nothing_where_it_declines():
    p, g, m, v = np.ones((4, 7, 7))
    fixed = p.copy()
    fixed.flags.writeable = False
    options = {"step_number": 1, "lr": 0.1}
    assert not adamw.adamw_step(fixed, g, m, v, **options)
    assert not adamw.adamw_step(p.T, g, m, v, **options)
    assert not adamw.adamw_step(p, g.astype(F32), m, v, **options)
    assert not adamw.adamw_step(p, g[:5], m, v, **options)
    assert all((x == 1).all() for x in (p, g, m, v))
    assert adamw.adamw_step(p, g.T, m, v, **options)


@given(sizes, columns, dtypes, seeds)
def test_dropout(rows, width, dtype, seed):
    rng = np.random.default_rng(seed)
    x, keep = normal(rng, rows, width, dtype=dtype), rng.random((rows, width)) < 0.8
    y = dropout.dropout(x, keep, 1.25)
    np.testing.assert_array_equal(y, x * (keep * dtype.type(1.25)))
    assert y.dtype == dtype


def test_dropout_lets_nothing_that_is_not_a_number_vanish():
    y = dropout.dropout(np.array([np.nan, np.inf, 1.0]), np.zeros(3, bool), 2.0)
    np.testing.assert_array_equal(y, [np.nan, np.nan, 0])


# ---- every twin alike


def calls(rng, dtype=F32, n=97):
    """A call of each twin, and the arrays that it is given."""
    x, g, weight, bias = (normal(rng, *s, dtype=dtype) for s in ((n, 67), (n, 67), (67,), (67,)))
    target, keep = rng.integers(0, 67, n), rng.random((n, 67)) < 0.7
    q, k, v, o = normal(rng, 4, 2, 5, n, 17, dtype=dtype)
    _, mean, rstd = layer_norm.layer_norm_forward(x, weight, bias, 1e-5)
    _, lse = cross_entropy.cross_entropy_forward(x, target)
    out, scores = attention.attention_forward(q, k, v, True)
    return {
        "gelu forward": (gelu.gelu_forward, x),
        "gelu backward": (gelu.gelu_backward, g, x),
        "tanh gelu forward": (gelu.gelu_forward, x, "tanh"),
        "tanh gelu backward": (gelu.gelu_backward, g, x, "tanh"),
        "layer_norm forward": (layer_norm.layer_norm_forward, x, weight, bias, 1e-5),
        "layer_norm backward": (layer_norm.layer_norm_backward, g, x, weight, mean, rstd),
        "softmax forward": (softmax.softmax_forward, x),
        "softmax backward": (softmax.softmax_backward, g, x),
        "log_softmax forward": (softmax.log_softmax_forward, x),
        "log_softmax backward": (softmax.log_softmax_backward, g, x),
        "cross_entropy forward": (cross_entropy.cross_entropy_forward, x, target),
        "cross_entropy backward": (cross_entropy.cross_entropy_backward, mean, x, target, lse),
        "embedding": (embedding.embedding_backward, g, target, 67),
        "attention forward": (attention.attention_forward, q, k, v, True),
        "attention backward": (attention.attention_backward, o, q, k, v, out, scores, True),
        "dropout": (dropout.dropout, x, keep, 2.0),
    }


NAMES = list(calls(np.random.default_rng(0)))


def flat(answer):
    return list(answer) if isinstance(answer, tuple) else [answer]


@pytest.mark.parametrize("name", NAMES)
def test_threads_change_no_bit(name, monkeypatch):
    f, *args = calls(np.random.default_rng(13))[name]
    monkeypatch.setattr(threads, "WORTH", 1)
    monkeypatch.setattr(threads._pool, "size", 1)
    expected = [x.tobytes() for x in flat(f(*args))]
    for count in (2, 3, 5):
        monkeypatch.setattr(threads._pool, "size", count)
        assert [x.tobytes() for x in flat(f(*args))] == expected


def offset(x):
    """x at an address that is no multiple of its item's size."""
    room = np.zeros(x.nbytes + 1, np.uint8)
    y = room[1:].view(x.dtype).reshape(x.shape)
    y[...] = x
    return y


def spread(x):
    """x with its numbers two items apart."""
    room = np.zeros((*x.shape, 2), x.dtype)
    room[..., 1] = x
    return room[..., 1]


@pytest.mark.parametrize("change", [offset, spread, np.asfortranarray, np.copy])
@pytest.mark.parametrize("name", NAMES)
def test_any_layout_gives_the_same_numbers_and_inputs_stay(name, change):
    f, *args = calls(np.random.default_rng(17))[name]
    expected = flat(f(*args))
    changed = [change(a) if isinstance(a, np.ndarray) else a for a in args]
    for a, e in zip(flat(f(*changed)), expected, strict=True):
        np.testing.assert_array_equal(a, e)
    for a, e in zip(changed, args, strict=True):
        np.testing.assert_array_equal(a, e)


def recast(x, dtype):
    return x.astype(dtype) if isinstance(x, np.ndarray) and x.dtype == F32 else x


@pytest.mark.parametrize("dtype", ["float16", "int32", ">f4", "complex64"])
@pytest.mark.parametrize("name", NAMES)
def test_a_dtype_that_no_twin_knows_is_declined(name, dtype):
    f, *args = calls(np.random.default_rng(19), n=5)[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args = [recast(a, dtype) for a in args]
    assert f(*args) is None


@pytest.mark.parametrize("name", NAMES)
def test_mixed_dtypes_and_shapes_that_do_not_fit_are_declined(name):
    f, *args = calls(np.random.default_rng(23), n=5)[name]
    arrays = [i for i, a in enumerate(args) if isinstance(a, np.ndarray)]
    floats = [i for i in arrays if args[i].dtype == F32]
    if f is cross_entropy.cross_entropy_backward:
        floats.remove(0)  # g is cast
    for i in floats * (len(floats) > 1):
        assert f(*args[:i], args[i].astype(F64), *args[i + 1 :]) is None
    for i in arrays * (len(arrays) > 1):
        if name != "layer_norm forward" or i > 0:
            assert f(*args[:i], args[i][:-1], *args[i + 1 :]) is None


@pytest.mark.parametrize("f", [gelu.gelu_forward, softmax.softmax_forward])
@pytest.mark.parametrize("shape", [(), (1,), (0,), (0, 3), (3, 0), (2, 3, 5)])
def test_shapes_are_kept(f, shape):
    x = np.ones(shape, F32)
    y = f(x)
    assert y is None or y.shape == shape
    assert (y is None) == (f is softmax.softmax_forward and shape == ())


# ---- threads


def test_share_covers_the_range_once(monkeypatch):
    monkeypatch.setattr(threads, "WORTH", 1)
    for size in (1, 2, 3, 7):
        monkeypatch.setattr(threads._pool, "size", size)
        for n in (0, 1, 2, 5, 11):
            seen = np.zeros(n, int)

            def count(lo, hi, seen):
                seen[lo:hi] += 1
                return hi

            assert threads.share(count, n, 1e9, seen) == n
            assert (seen == 1).all()


def test_an_error_in_any_thread_arrives(monkeypatch):
    monkeypatch.setattr(threads, "WORTH", 1)
    monkeypatch.setattr(threads._pool, "size", 3)

    def fail(lo, hi, where):
        if lo <= where < hi:
            raise ValueError(f"at {where}")

    for where in (0, 5, 8):
        with pytest.raises(ValueError, match=f"at {where}"):
            threads.share(fail, 9, 1e9, where)
    assert threads.share(fail, 9, 1e9, -1) == 0


def test_the_number_of_threads():
    before = threads.get_num_threads()
    try:
        threads.set_num_threads(3)
        assert threads.get_num_threads() == 3
        with pytest.raises(RuntimeError, match="positive number of threads, not 0"):
            threads.set_num_threads(0)
    finally:
        threads.set_num_threads(before)


def python(code, **environment):
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_starts_threads_of_its_own():
    code = """
import os
from tensorgrad.kernels.cpu import threads
threads.set_num_threads(3)
work = lambda lo, hi: hi
assert threads.share(work, 9, 1e9) == 9
child = os.fork()
if child == 0:
    os._exit(threads.share(work, 9, 1e9))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert python(code) == ["9"]


def test_threads_asked_for_by_the_environment():
    code = "from tensorgrad.kernels.cpu import threads; print(threads.get_num_threads())"
    assert python(code, OMP_NUM_THREADS="3,2") == ["3"]
    assert int(python(code, OMP_NUM_THREADS="many")[0]) >= 1


# ---- Numba is optional, and late


def test_numba_waits_for_the_first_kernel():
    code = """
import sys, tensorgrad.kernels.cpu.threads
print("numba" in sys.modules)
import tensorgrad.kernels
print(tensorgrad.kernels.available(), "numba" in sys.modules)
"""
    assert python(code) == ["False", "True", "True"]


def test_without_numba_there_are_no_twins(monkeypatch):
    kernels.available.cache_clear()
    try:
        monkeypatch.setattr(kernels, "find_spec", lambda name: None)
        assert not kernels.available()
        monkeypatch.undo()
        monkeypatch.setitem(sys.modules, "numba", None)
        monkeypatch.setattr(kernels, "find_spec", lambda name: object())
        kernels.available.cache_clear()
        with pytest.warns(UserWarning, match="Numba is installed but cannot be loaded"):
            assert not kernels.available()
    finally:
        kernels.available.cache_clear()


def test_a_kernel_compiles_where_nothing_can_be_kept(monkeypatch):
    @jit.kernel
    def double(lo: int, hi: int, x: jit.Vector, y: jit.OutVector) -> None:
        for i in range(lo, hi):
            y[i] = x[i] + x[i]

    original = jit.njit

    def njit(*args, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return original(*args, **options)

    monkeypatch.setattr(jit, "njit", njit)
    np.testing.assert_array_equal(run(double, np.arange(3.0)), [0, 2, 4])
