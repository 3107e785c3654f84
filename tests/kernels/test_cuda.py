"""The CUDA twins against NumPy in float64: by the emulator, and on a GPU where there is one."""

import functools
import importlib
import itertools
import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf, logsumexp

from tensorgrad.kernels import cuda
from tensorgrad.kernels.cuda import geometry
from tensorgrad.kernels.cuda.runner import RUNNERS, source
from tensorgrad.rng.philox import dropout_mask
from tests.kernels.emulator import (
    EmulatedRunner,
    instances,
    sources,
    why_not,
)

Array = np.ndarray[Any, Any]

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
BF16, F16 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16)
TOLERANCE = {F64: 1e-12, F32: 1e-5, F16: 2e-3, BF16: 1.6e-2}
DTYPES = pytest.mark.parametrize("dtype", [F64, F32, BF16, F16], ids=str)
RUNGS = pytest.mark.parametrize("rung", [1, 2])
# One element, one row, one column, more columns than threads in a block, more rows than that.
SHAPES = [(1, 1), (1, 37), (37, 1), (3, 1031), (263, 5)]


class Emulator:
    """The CPU: each call with two orders of the threads, which must give the same bits."""

    def __init__(self, folder: Path) -> None:
        self.runner = EmulatedRunner(folder)
        self.seeds = (0, 7)

    def put(self, x: Array) -> Array:
        return x

    def get(self, x: Array) -> Array:
        return x

    def call(self, function: Callable[[], Any]) -> list[Any]:
        results = []
        RUNNERS[np.ndarray] = self.runner
        try:
            for seed in self.seeds:
                self.runner.seed = seed
                results.append(function())
        finally:
            del RUNNERS[np.ndarray]
        return results


class Gpu:
    """The device, twice."""

    def __init__(self) -> None:
        self.cupy = importlib.import_module("cupy")

    def put(self, x: Array) -> Any:
        return self.cupy.asarray(x)

    def get(self, x: Any) -> Array:
        return x.get()

    def call(self, function: Callable[[], Any]) -> list[Any]:
        return [function(), function()]


Machine = Emulator | Gpu


@pytest.fixture(scope="session")
def emulator(request: pytest.FixtureRequest) -> Emulator:
    if why_not():
        pytest.skip(why_not())
    cache = getattr(request.config, "cache", None)
    folder = cache.mkdir("cuda_emulator") if cache else request.getfixturevalue("tmp_path_factory")
    return Emulator(folder if cache else folder.mktemp("cuda_emulator"))


@pytest.fixture(scope="session", params=["emulator", pytest.param("gpu", marks=pytest.mark.gpu)])
def machine(request: pytest.FixtureRequest) -> Machine:
    return Gpu() if request.param == "gpu" else request.getfixturevalue("emulator")


def same(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def on(machine: Machine, twin: Callable[..., Any], *args: Any, bits: bool = True, **kw: Any) -> Any:
    """twin(*args), arrays moved there and back; inputs stay as they were, runs agree bit by bit."""
    inputs = [machine.put(a) if isinstance(a, np.ndarray) else a for a in args]
    results = machine.call(lambda: twin(*inputs, **kw))
    for a, moved in zip(args, inputs, strict=True):
        if isinstance(a, np.ndarray):
            assert same(machine.get(moved), a), f"{twin.__name__} wrote into an input"
    assert results[0] is not None, f"{twin.__name__} declined"
    rows = [r if isinstance(r, tuple) else (r,) for r in results]
    rows = [tuple(None if a is None else machine.get(a) for a in row) for row in rows]
    if bits:
        for first, again in zip(*rows, strict=True):
            assert first is None or same(first, again), f"{twin.__name__} depends on the order"
    return rows[0] if isinstance(results[0], tuple) else rows[0][0]


def close(result: Array, expected: Array, dtype: np.dtype[Any]) -> None:
    """Of this dtype, and equal to `expected` as far as the dtype tells."""
    assert result.dtype == dtype and result.shape == expected.shape
    finite = np.abs(expected[np.isfinite(expected)])
    atol = TOLERANCE[dtype] * max(1.0, finite.max(initial=0.0))
    np.testing.assert_allclose(result.astype(F64), expected, rtol=TOLERANCE[dtype], atol=atol)


def draw(dtype: np.dtype[Any], *shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return F64 if dtype == F64 else F32


# The references: float64 in, float64 out.


def gelu_reference(x: Array, approximate: str) -> Array:
    if approximate == "none":
        return x * (1 + erf(x / math.sqrt(2))) / 2
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def gelu_slope(x: Array, approximate: str) -> Array:
    if approximate == "none":
        density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
        return (1 + erf(x / math.sqrt(2))) / 2 + x * density
    t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    du = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return (1 + t) / 2 + x * (1 - t**2) * du / 2


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@DTYPES
@RUNGS
@pytest.mark.parametrize("shape", [(1,), (7, 1), (3, 347)])
def test_gelu(machine, dtype, rung, approximate, shape):
    x, g = 3 * draw(F64, *shape), draw(dtype, *shape, seed=1)
    x = x.astype(dtype)
    expected = gelu_reference(x.astype(F64), approximate)
    close(on(machine, cuda.gelu_forward, x, approximate, rung=rung), expected, dtype)
    expected = g.astype(F64) * gelu_slope(x.astype(F64), approximate)
    close(on(machine, cuda.gelu_backward, g, x, approximate, rung=rung), expected, dtype)


def layer_norm_reference(x: Array, eps: float) -> tuple[Array, Array, Array]:
    mean = x.mean(-1)
    rstd = 1 / np.sqrt(x.var(-1) + eps)
    return (x - mean[:, None]) * rstd[:, None], mean, rstd


@pytest.mark.parametrize("affine", [True, False])
@DTYPES
@RUNGS
@pytest.mark.parametrize("shape", SHAPES)
def test_layer_norm_forward(machine, dtype, rung, shape, affine):
    x = (draw(F64, *shape) + 3).astype(dtype)
    w, b = (draw(dtype, shape[1], seed=s) if affine else None for s in (1, 2))
    xhat, mean, rstd = layer_norm_reference(x.astype(F64), 1e-3)
    y = xhat * w.astype(F64) + b.astype(F64) if affine else xhat
    results = on(machine, cuda.layer_norm_forward, x, w, b, 1e-3, rung=rung)
    close(results[0], y, dtype)
    close(results[1], mean, wide(dtype))
    close(results[2], rstd, wide(dtype))


@pytest.mark.parametrize("needs", [(True, True, True), (True, False, False), (False, False, True)])
@DTYPES
@RUNGS
@pytest.mark.parametrize("shape", SHAPES)
def test_layer_norm_backward(machine, dtype, rung, shape, needs):
    x, g = (draw(F64, *shape) + 3).astype(dtype), draw(dtype, *shape, seed=1)
    weight = draw(dtype, shape[1], seed=2) if needs[1] else None
    xhat, mean, rstd = layer_norm_reference(x.astype(F64), 1e-3)
    wide_g = g.astype(F64)
    h = wide_g if weight is None else wide_g * weight.astype(F64)
    along = (h * xhat).mean(-1, keepdims=True)
    dx = rstd[:, None] * (h - h.mean(-1, keepdims=True) - xhat * along)
    expected = dx, (wide_g * xhat).sum(0), wide_g.sum(0)
    saved = mean.astype(wide(dtype)), rstd.astype(wide(dtype))
    results = on(machine, cuda.layer_norm_backward, g, x, weight, *saved, needs, rung=rung)
    for result, value, needed in zip(results, expected, needs, strict=True):
        assert (result is not None) == needed
        if needed:
            close(result, value, dtype)


@pytest.mark.parametrize("log", [False, True])
@DTYPES
@RUNGS
@pytest.mark.parametrize("shape", [*SHAPES, (2, 3, 5)])
def test_softmax(machine, dtype, rung, shape, log):
    x, g = (5 * draw(F64, *shape)).astype(dtype), draw(dtype, *shape, seed=1)
    forward = cuda.log_softmax_forward if log else cuda.softmax_forward
    backward = cuda.log_softmax_backward if log else cuda.softmax_backward
    lse = logsumexp(x.astype(F64), axis=-1, keepdims=True)
    expected = x.astype(F64) - lse if log else np.exp(x.astype(F64) - lse)
    close(on(machine, forward, x, rung=rung), expected, dtype)

    out = expected.astype(dtype)
    wide_g, wide_out = g.astype(F64), out.astype(F64)
    total = (wide_g if log else wide_g * wide_out).sum(-1, keepdims=True)
    expected = wide_g - np.exp(wide_out) * total if log else wide_out * (wide_g - total)
    close(on(machine, backward, g, out, rung=rung), expected, dtype)


@RUNGS
def test_softmax_of_extremes(machine, rung):
    inf, nan = math.inf, math.nan
    x = [[-inf, 0, -inf], [1e4, -1e4, 1e4], [-inf, -inf, -inf], [0, inf, 0], [0, nan, 0]]
    out = on(machine, cuda.softmax_forward, np.array(x, F32), rung=rung)
    np.testing.assert_array_equal(out, np.array([[0, 1, 0], [0.5, 0, 0.5], *[[nan] * 3] * 3], F32))
    spread = np.full((1, 1031), -inf, F32)  # most threads of the block see nothing but -inf
    spread[0, [517, 1030]] = 0
    out = on(machine, cuda.softmax_forward, spread, rung=rung)
    np.testing.assert_array_equal(out, np.where(spread == 0, F32.type(0.5), F32.type(0)))


def cross_entropy_reference(x: Array, target: Array, e: float) -> tuple[Array, Array, Array]:
    """Losses, log-sum-exps and the gradient of the losses' sum; rows of target -100 are ignored."""
    lse = logsumexp(x, axis=1)
    kept = target != -100
    rows, t = np.arange(len(x)), np.where(kept, target, 0)
    loss = np.where(kept, lse - (1 - e) * x[rows, t] - e * x.mean(1), 0)
    slope = np.exp(x - lse[:, None]) - e / x.shape[1]
    slope[rows, t] -= 1 - e
    return loss, lse, slope * kept[:, None]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@DTYPES
@RUNGS
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy(machine, dtype, rung, shape, smoothing):
    R, C = shape
    logits, g = (3 * draw(F64, R, C)).astype(dtype), draw(dtype, R, seed=1)
    target = np.random.default_rng(2).integers(0, C, R)
    target[R // 2 :: 5] = -100
    loss, lse, slope = cross_entropy_reference(logits.astype(F64), target, smoothing)
    settings = {"label_smoothing": smoothing, "rung": rung}
    results = on(machine, cuda.cross_entropy_forward, logits, target, **settings)
    close(results[0], loss, dtype)
    close(results[1], lse, wide(dtype))
    saved = logits, target, lse.astype(wide(dtype))
    result = on(machine, cuda.cross_entropy_backward, g, *saved, **settings)
    close(result, g.astype(F64)[:, None] * slope, dtype)
    one = np.array(0.25, dtype)
    result = on(machine, cuda.cross_entropy_backward, one, *saved, **settings)
    close(result, 0.25 * slope, dtype)


@RUNGS
def test_cross_entropy_at_the_edges(machine, rung):
    """A logit of -inf costs nothing elsewhere; a target that is no class is not read, gives NaN."""
    inf = math.inf
    logits = np.array([[0, -inf, 0], [0, 1, 2], [0, 1, 2], [3, 3, 3], [-inf] * 3], F32)
    target = np.array([0, 3, -1, 7, 0], np.int32)
    loss, lse = on(machine, cuda.cross_entropy_forward, logits, target, None, 7, rung=rung)
    np.testing.assert_allclose(loss, [math.log(2), *[math.nan] * 2, 0, math.nan], rtol=1e-6)
    assert lse[4] == -inf
    g = np.ones(5, F32)
    slope = on(machine, cuda.cross_entropy_backward, g, logits, target, lse, None, 7, rung=rung)
    np.testing.assert_allclose(slope[0], [-0.5, 0, 0.5], atol=1e-6)
    assert np.isnan(slope[1:3]).all() and (slope[3] == 0).all()


@pytest.mark.parametrize("padding", [None, 2])
@DTYPES
@pytest.mark.parametrize("rung", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 1, 1), (41, 7, 5), (5, 1, 313), (293, 3, 11)])
def test_embedding_backward(machine, dtype, rung, shape, padding):
    N, V, C = shape
    g, index = draw(dtype, N, C), np.random.default_rng(1).integers(0, V, N)
    expected = np.zeros((V, C))
    kept = index != (-1 if padding is None else padding)
    np.add.at(expected, index[kept], g.astype(F64)[kept])
    twin = functools.partial(cuda.embedding_backward, rung=rung)
    twin.__name__ = "embedding_backward"
    close(on(machine, twin, g, index, V, padding, bits=rung < 3), expected, dtype)


def test_embedding_backward_passes_over_wrong_indices(machine):
    g, index = np.ones((4, 3), F32), np.array([[-1, 1], [5, 1]], np.int32)
    for rung in (1, 2, 3):
        out = on(machine, cuda.embedding_backward, g.reshape(2, 2, 3), index, 5, rung=rung)
        np.testing.assert_array_equal(out, np.array([0, 2, 0, 0, 0], F32)[:, None] * np.ones(3))


def attention_reference(q: Array, k: Array, v: Array, g: Array, causal: bool, scale: float) -> Any:
    s = scale * q @ np.swapaxes(k, -1, -2)
    if causal:
        s = np.where(np.tri(*s.shape[-2:], dtype=bool), s, -math.inf)
    lse = logsumexp(s, axis=-1)
    p = np.exp(s - lse[..., None])
    o = p @ v
    ds = p * (g @ np.swapaxes(v, -1, -2) - (g * o).sum(-1, keepdims=True))
    dq, dk = scale * ds @ k, scale * np.swapaxes(ds, -1, -2) @ q
    return o, lse, (dq, dk, np.swapaxes(p, -1, -2) @ g)


@pytest.mark.parametrize("causal", [False, True])
@DTYPES
@RUNGS
@pytest.mark.parametrize("sizes", [(1, 1, 1), (67, 41, 5), (5, 37, 35), (13, 13, 97)])
def test_attention(machine, dtype, rung, sizes, causal):
    """Tiles that end inside, more keys than queries and fewer, and a width too large for rung 2."""
    L, S, D = sizes
    outer, scale = (2, 1), 1 / math.sqrt(D)
    q, g = draw(dtype, *outer, L, D), draw(dtype, *outer, L, D, seed=1)
    k, v = draw(dtype, *outer, S, D, seed=2), draw(dtype, *outer, S, D, seed=3)
    wide_inputs = (a.astype(F64) for a in (q, k, v, g))
    o, lse, gradients = attention_reference(*wide_inputs, causal, scale)
    results = on(machine, cuda.attention_forward, q, k, v, causal, scale, rung=rung)
    close(results[0], o, dtype)
    close(results[1], lse, wide(dtype))
    saved = o.astype(dtype), lse.astype(wide(dtype))
    results = on(machine, cuda.attention_backward, g, q, k, v, *saved, causal, scale, rung=rung)
    for result, expected in zip(results, gradients, strict=True):
        close(result, expected, dtype)


@RUNGS
def test_attention_without_keys(machine, rung):
    """o = 0 and lse = -inf, and no gradient, where there is nothing to attend to."""
    q, none = draw(F32, 1, 2, 3, 5), np.empty((1, 2, 0, 5), F32)
    o, lse = on(machine, cuda.attention_forward, q, none, none, True, 1.0, rung=rung)
    assert (o == 0).all() and (lse == -math.inf).all()
    saved = q, none, none, o, lse
    dq, dk, dv = on(machine, cuda.attention_backward, q, *saved, True, 1.0, rung=rung)
    assert (dq == 0).all() and dk.shape == dv.shape == none.shape


@DTYPES
@RUNGS
@pytest.mark.parametrize("n", [1, 7, 1031])
def test_adamw(machine, dtype, rung, n):
    """Three steps, compared one at a time: in the half types the state is rounded after each."""
    how = {"lr": 0.05, "b1": 0.8, "b2": 0.95, "eps": 1e-6, "weight_decay": 0.1, "grad_scale": 0.5}
    state = [draw(dtype, n), np.zeros(n, dtype), np.zeros(n, dtype)]
    for k in (1, 2, 3):
        g = draw(dtype, n, seed=k)
        p, m, v = (a.astype(F64) for a in state)
        scaled = 0.5 * g.astype(F64)
        m = 0.8 * m + 0.2 * scaled
        v = 0.95 * v + 0.05 * scaled**2
        p = p * (1 - 0.05 * 0.1) - 0.05 / (1 - 0.8**k) * m / (np.sqrt(v / (1 - 0.95**k)) + 1e-6)

        def step(p, g, m, v, k=k):
            p, m, v = p.copy(), m.copy(), v.copy()
            assert cuda.adamw_step(p, g, m, v, step_number=k, rung=rung, **how)
            return p, m, v

        state = list(on(machine, step, state[0], g, state[1], state[2]))
        for result, expected in zip(state, (p, m, v), strict=True):
            close(result, expected, dtype)


def test_adamw_declines_what_it_cannot_write(emulator):
    whole = draw(F32, 6, 2)
    for p, m in [(whole[:, 0], whole[:, 1]), (whole, whole[:5]), (whole, whole.astype(F64))]:
        before = p.copy()
        call = functools.partial(cuda.adamw_step, p, p, m, m, step_number=1, lr=1.0)
        assert emulator.call(call) == [False, False]
        np.testing.assert_array_equal(p, before)


def philox(seed: int, counter: int) -> list[int]:
    """Philox4x32-10 in Python numbers: four words from a key of 64 bits and a counter of 128."""
    low = 2**32 - 1
    key = [seed & low, seed >> 32]
    x = [counter >> shift & low for shift in (0, 32, 64, 96)]
    for _ in range(10):
        a, b = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [b >> 32 ^ x[1] ^ key[0], b & low, a >> 32 ^ x[3] ^ key[1], a & low]
        key = [key[0] + 0x9E3779B9 & low, key[1] + 0xBB67AE85 & low]
    return x


def test_philox_reference_gives_the_published_words():
    """The known answers that come with the generator (Random123, kat_vectors)."""
    assert philox(0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox(2**64 - 1, 2**128 - 1) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    counter = 0x03707344_13198A2E_85A308D3_243F6A88
    words = [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]
    assert philox(0x299F31D0_A4093822, counter) == words


@DTYPES
@RUNGS
@pytest.mark.parametrize("n, p", [(1, 0.5), (1031, 0.1), (1031, 0.9), (37, 0.0), (37, 1.0)])
def test_dropout(machine, dtype, rung, n, p):
    seed, offset = 0x299F31D0_A4093822, 2**64 - 5  # the counter turns over
    x = draw(dtype, n)
    blocks = range(-(-n // 4))
    words = [word for block in blocks for word in philox(seed, (offset + block) % 2**64)][:n]
    kept = np.array(words) < (1 - p) * 2**32
    np.testing.assert_array_equal(kept, dropout_mask(seed, offset, (n,), p))
    expected = x.astype(F64) * kept / (1 - p if p < 1 else 1)
    result = on(machine, cuda.philox_dropout, x, p, seed, offset, rung=rung)
    close(result, expected, dtype)
    assert ((result == 0) == ~kept).all()


def test_any_layout_is_taken(machine):
    """Transposed, reversed, of 32-bit indices, and at an address that 16 does not divide."""
    x, g = draw(F32, 13, 11).T, draw(F32, 11, 13)[:, ::-1]
    expected = g.astype(F64) * gelu_slope(x.astype(F64), "none")
    close(on(machine, cuda.gelu_backward, g, x), expected, F32)

    odd = machine.put(np.arange(1031, dtype=F32))[1:]
    (first, _) = machine.call(lambda: cuda.gelu_forward(odd))
    close(machine.get(first), gelu_reference(np.arange(1.0, 1031.0), "none"), F32)

    index = np.array([2, 9, 1, 9], np.int32)[::2]
    out = on(machine, cuda.embedding_backward, np.ones((2, 3), F32), index, 3)
    np.testing.assert_array_equal(out, np.array([[0], [1], [1]]) * np.ones(3))


def test_empty_arrays(machine):
    none = np.empty((0, 5), F32)
    assert on(machine, cuda.gelu_forward, none).shape == (0, 5)
    assert on(machine, cuda.softmax_forward, none).shape == (0, 5)
    weight = np.ones(5, F32)
    y, mean, rstd = on(machine, cuda.layer_norm_forward, none, weight, None, 1e-5)
    assert y.shape == (0, 5) and mean.shape == rstd.shape == (0,)
    for rung in (1, 2):
        saved = none, weight, mean, rstd
        _, dw, db = on(machine, cuda.layer_norm_backward, none, *saved, rung=rung)
        assert (dw == 0).all() and (db == 0).all()
    index = np.empty(0, np.int64)
    for rung in (1, 2, 3):
        out = on(machine, cuda.embedding_backward, none, index, 3, rung=rung)
        np.testing.assert_array_equal(out, np.zeros((3, 5)))


def test_twins_decline(emulator):
    """Arrays that no runner knows, dtypes no kernel knows, dtypes that differ, class weights."""
    x = np.ones((3, 5), F32)
    target = np.zeros(3, np.int64)
    assert cuda.gelu_forward(x) is None  # NumPy's arrays, outside of the emulator

    def declined(twin: Callable[..., Any], *args: Any) -> bool:
        return emulator.call(lambda: twin(*args)) == [None, None]

    assert declined(cuda.gelu_forward, x.astype(np.int32))
    assert declined(cuda.gelu_backward, x, x.astype(F64))
    assert declined(cuda.layer_norm_forward, x, x[0].astype(F64), None, 1e-5)
    assert declined(cuda.layer_norm_backward, x, x.astype(F64), None, x[:, 0], x[:, 0])
    assert declined(cuda.softmax_backward, x, x.astype(BF16))
    assert declined(cuda.cross_entropy_forward, x, target, x[0])
    assert declined(cuda.cross_entropy_backward, x[:, 0], x, target, x[:, 0], x[0])
    assert declined(cuda.attention_forward, x, x, x.astype(F64), True, 1.0)
    assert declined(cuda.attention_forward, x[None], x, x, True, 1.0)
    assert declined(cuda.attention_backward, x, x, x, x[:2], x, x[:, 0], True, 1.0)
    narrow = np.ones((3, 5), BF16)  # whose residuals are float32
    assert declined(cuda.layer_norm_backward, narrow, narrow, None, narrow[:, 0], narrow[:, 0])
    assert declined(cuda.cross_entropy_backward, narrow[:, 0], narrow, target, narrow[:, 0])
    assert declined(cuda.attention_backward, *[narrow] * 5, narrow[:, 0], True, 1.0)


@given(st.integers(1, 41), st.integers(1, 67), st.sampled_from([F64, F32]), st.integers(0, 2**20))
@settings(max_examples=20)
def test_rows_of_any_size(emulator, R, C, dtype, seed):
    x = draw(dtype, R, C, seed=seed)
    lse = logsumexp(x.astype(F64), axis=1)
    target = np.arange(R) % C
    loss, _ = on(emulator, cuda.cross_entropy_forward, x, target)
    close(loss, lse - x.astype(F64)[np.arange(R), target], dtype)
    close(on(emulator, cuda.log_softmax_forward, x), x.astype(F64) - lse[:, None], dtype)


@given(
    st.integers(1, 43), st.integers(1, 43), st.integers(1, 19), st.booleans(), st.integers(0, 99)
)
@settings(max_examples=15)
def test_attention_of_any_size(emulator, L, S, D, causal, seed):
    q, g = draw(F64, 1, L, D, seed=seed), draw(F64, 1, L, D, seed=seed + 1)
    k, v = draw(F64, 1, S, D, seed=seed + 2), draw(F64, 1, S, D, seed=seed + 3)
    o, lse, gradients = attention_reference(q, k, v, g, causal, 0.5)
    results = on(emulator, cuda.attention_forward, q, k, v, causal, 0.5)
    close(results[0], o, F64)
    results = on(emulator, cuda.attention_backward, g, q, k, v, o, lse, causal, 0.5)
    for result, expected in zip(results, gradients, strict=True):
        close(result, expected, F64)


@given(st.integers(0, 2**40), st.integers(1, 2**17), st.sampled_from([4, 8]))
def test_geometry_covers_and_fits(n, columns, itemsize):
    def volume(sizes: tuple[int, int, int]) -> int:
        return math.prod(sizes)

    for needed, how in [
        (n, geometry.threads(n)),
        (-(-n * itemsize // 16), geometry.packs(n, itemsize)),
    ]:
        assert 0 <= volume(how.grid) * volume(how.block) - needed < volume(how.block)
    how = geometry.rows(n, columns, itemsize)
    assert how.grid == (n, 1, 1) and how.block[0] % 32 == 0
    how, slab = geometry.slabs(n, columns, itemsize)
    assert how.grid[0] * 32 >= columns and how.grid[1] * slab >= n and how.grid[1] <= 128
    for width, rows_kept in itertools.product((1, 37, 64, 128), (2, 3, 4)):
        tiles = geometry.tiles(3, n, width, rows_kept, itemsize)
        assert tiles or (width, itemsize) == (128, 8)
        if tiles:
            assert tiles.shared <= geometry.SHARED_LIMIT and volume(tiles.block) <= 1024
            assert tiles.grid[0] * tiles.block[1] >= 3 * n


# The compilers for GPUs, which need none.


def nvrtc() -> Any:
    """CuPy's binding of NVRTC if the library loads, else None."""
    try:
        binding = importlib.import_module("cupy_backends.cuda.libs.nvrtc")
        return binding if binding.getVersion() else None
    except (ImportError, RuntimeError):
        return None


def compile_with_nvrtc(binding: Any, architecture: str, file: Path, kernels: list[str]) -> None:
    program = binding.createProgram(source(file.name), file.name, [], [])
    for kernel in kernels:
        binding.addNameExpression(program, kernel)
    try:
        binding.compileProgram(program, [f"-arch={architecture}", "-std=c++17"])
    except binding.NVRTCError:
        pytest.fail(f"{file.name}: {binding.getProgramLog(program)}")
    names = [binding.getLoweredName(program, kernel) for kernel in kernels]
    code = binding.getCUBIN(program)
    for name in names:
        assert (name if isinstance(name, bytes) else name.encode()) in code
    binding.destroyProgram(program)


def compile_with_nvcc(architecture: str, kernels: dict[Path, list[str]], folder: Path) -> None:
    lines = [f'#include "{file}"' for file in kernels]
    lines += ["template <typename F> void use(F*) {}", "void all() {"]
    lines += [f"    use(&{kernel});" for names in kernels.values() for kernel in names]
    (folder / "all.cu").write_text("\n".join([*lines, "}", ""]), encoding="utf-8")
    command = ["nvcc", "-cubin", f"-arch={architecture}", "-std=c++17", "-o", "all.cubin", "all.cu"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    code = (folder / "all.cubin").read_bytes()
    for names in kernels.values():
        for kernel in names:
            assert kernel.partition("<")[0].encode() in code


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_kernels_compile_for_gpus(architecture, tmp_path):
    """Every kernel for both; to save time, each of them in two of the four dtypes."""
    types = {"sm_80": ("<double", "<f16"), "sm_90": ("<float", "<bf16")}[architecture]
    kernels = {
        file: [kernel for kernel in instances(file) if any(t in kernel for t in types)]
        for file in sources()
    }
    if binding := nvrtc():
        for file, names in kernels.items():
            compile_with_nvrtc(binding, architecture, file, names)
    elif shutil.which("nvcc"):
        compile_with_nvcc(architecture, kernels, tmp_path)
    else:
        pytest.skip("needs NVRTC (CuPy and the wheel nvidia-cuda-nvrtc-cu12 or -cu13) or nvcc")
