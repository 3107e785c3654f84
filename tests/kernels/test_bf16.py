"""bfloat16 on the CPU against float64: with oneMKL where it is, and with a stand-in anywhere."""

import ctypes
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
import torch
import torch.nn.functional as TF

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import kernels, nn, twins
from tensorgrad.fit import sum_to
from tensorgrad.halves import converted
from tensorgrad.kernels.cpu import attention, bf16, dropout, gelu, onemkl, threads
from tensorgrad.kernels.cpu import bf16_cross_entropy as losses
from tensorgrad.models.gpt2 import GPT2Config, GPT2LMHeadModel

pytestmark = pytest.mark.skipif(not kernels.available(), reason="the kernels need Numba")

BF16, F32 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32)
ROUNDING = 2.0**-8  # half of the last place of a bfloat16


def normal(rng, *shape, scale=1.0):
    """Read-only, so that a kernel that wrote into it would fail."""
    x = (rng.standard_normal(shape) * scale).astype(F32).astype(BF16)
    x.flags.writeable = False
    return x


def exact(x):
    return torch.tensor(x.astype(np.float64), requires_grad=True)


def close(actual, expected, tolerance):
    """Equal up to so much of the largest."""
    expected = expected.detach().numpy()
    assert actual.dtype == BF16 and actual.shape == expected.shape
    top = np.abs(expected).max(initial=0)
    np.testing.assert_allclose(actual.astype(np.float64), expected, tolerance, tolerance * top)


# ---- a stand-in for oneMKL, of the same signature

INT, PLACE, REAL = ctypes.c_int, ctypes.c_void_p, ctypes.c_float


def stored(address, rows, columns, step, element):
    """The matrix at an address."""
    size = (rows - 1) * step + columns
    flat = np.frombuffer((element * size).from_address(address), element)
    return np.lib.stride_tricks.as_strided(
        flat, (rows, columns), (step * flat.itemsize, flat.itemsize)
    )


SIGNATURE = [*[INT] * 6, REAL, PLACE, INT, PLACE, INT, REAL, PLACE, INT]


@ctypes.CFUNCTYPE(None, *SIGNATURE)
def stand_in(layout, turn_a, turn_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
    assert (layout, alpha) == (101, 1.0)
    assert lda >= (m if turn_a == 112 else k) and ldb >= (k if turn_b == 112 else n) and ldc >= n
    bits = ctypes.c_uint16
    left = stored(a, k, m, lda, bits).T if turn_a == 112 else stored(a, m, k, lda, bits)
    right = stored(b, n, k, ldb, bits).T if turn_b == 112 else stored(b, k, n, ldb, bits)
    with np.errstate(invalid="ignore", over="ignore"):
        product = left.view(BF16).astype(F32) @ right.view(BF16).astype(F32)
        out = stored(c, m, n, ldc, ctypes.c_float)
        out[:] = product + (beta * out if beta else 0)


def without_onemkl(monkeypatch):
    monkeypatch.setattr(onemkl, "gemm_address", lambda: 0)


@pytest.fixture(params=["oneMKL", "stand-in"])
def gemm(request, monkeypatch):
    if request.param == "stand-in":
        address = ctypes.cast(stand_in, ctypes.c_void_p).value
        monkeypatch.setattr(onemkl, "gemm_address", lambda: address)
    elif not onemkl.gemm_address():
        pytest.skip("oneMKL (pip install mkl) or a processor that multiplies bfloat16 is missing")
    assert bf16.available()


# ---- casts


def test_every_bfloat16_goes_to_float32_and_comes_back():
    x = np.arange(2**16, dtype=np.uint16).view(BF16)
    wide = bf16.bf16_cast(x, F32)
    assert wide.dtype == F32
    np.testing.assert_array_equal(wide, x.astype(F32))
    back = bf16.bf16_cast(wide, BF16)
    nan = np.isnan(wide)
    assert np.isnan(back.astype(F32))[nan].all()
    np.testing.assert_array_equal(back.view(np.uint16)[~nan], x.view(np.uint16)[~nan])


def test_rounding_is_to_the_nearest_and_ties_go_to_even():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2**32, 100_003, dtype=np.uint32)
    x[:30_000] = (x[:30_000] & 0xFFFF0000) | 0x8000  # ties
    x[-5:] = [0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7F800001, 0xFFFFFFFF]  # inf and NaN
    x = x.view(F32)
    nan = np.isnan(x)
    with np.errstate(invalid="ignore"):
        expected = x.astype(BF16)
    narrowed = bf16.bf16_cast(x, BF16)
    assert (np.isnan(narrowed.astype(F32)) == nan).all() and nan.any()
    np.testing.assert_array_equal(narrowed.view(np.uint16)[~nan], expected.view(np.uint16)[~nan])


def test_arrays_of_any_order():
    x = np.random.default_rng(0).standard_normal((5, 7, 11)).astype(F32)
    for view in (x.transpose(2, 0, 1), x.T, x[1], x[:0]):
        answer = bf16.bf16_cast(view, BF16)
        np.testing.assert_array_equal(answer.astype(F32), view.astype(BF16).astype(F32))
    assert bf16.bf16_cast(x.transpose(2, 0, 1), BF16).strides == (2, 154, 22)
    for gaps in (x[:, ::2], x[:, :1], np.broadcast_to(x[0], (3, 7, 11))):
        answer = converted(gaps, BF16)
        np.testing.assert_array_equal(answer.astype(F32), gaps.astype(BF16).astype(F32))
    assert bf16.bf16_cast(x, np.dtype(np.float64)) is None
    assert bf16.bf16_cast(x.astype(np.float64), BF16) is None


# ---- products


def check_product(x, y, bias=None):
    answer = bf16.bf16_product(x, y, bias)
    a, b = x.astype(np.float64), y.astype(np.float64)
    expected = a @ b + (0 if bias is None else bias.astype(np.float64))
    bound = np.abs(a) @ np.abs(b) + (0 if bias is None else np.abs(bias.astype(np.float64)))
    assert answer.dtype == BF16 and answer.shape == expected.shape and answer.flags.c_contiguous
    error = np.abs(answer.astype(np.float64) - expected)
    assert (error <= np.abs(expected) * ROUNDING + bound * 1e-6).all()
    return answer


@pytest.mark.parametrize(
    "n, k, m",
    [(1, 1, 1), (3, 5, 7), (257, 31, 5), (5, 29, 515), (260, 17, 1030), (13, 1601, 1027),
     (1, 64, 9), (64, 1, 3), (2, 67, 1)],
)  # fmt: skip
def test_products_of_all_layouts(gemm, n, k, m):
    rng = np.random.default_rng(n * k * m)
    lefts = normal(rng, n, k), normal(rng, k, n).T, normal(rng, 2 * n, k + 3)[::2, :k]
    rights = normal(rng, k, m), normal(rng, m, k).T, normal(rng, k, 3 * m)[:, ::3]
    for x in lefts:
        for y in rights:
            check_product(x, y)
    check_product(lefts[1], rights[1], normal(rng, m))


def test_batches_of_products(gemm):
    rng = np.random.default_rng(0)
    x, y = normal(rng, 2, 3, 5, 7), normal(rng, 2, 3, 7, 11)
    check_product(x, y)
    check_product(x.transpose(1, 0, 2, 3), y[0][:, None])
    check_product(x, normal(rng, 11, 7).T, normal(rng, 11))
    check_product(x, normal(rng, 3, 7, 11))
    check_product(x[0], normal(rng, 2, 1, 7, 11))
    heads = normal(rng, 2, 5, 3, 7).transpose(0, 2, 1, 3)  # (B, T, H, D) -> (B, H, T, D)
    check_product(heads, x.swapaxes(-1, -2))
    check_product(x[:, ::-1], y)


def test_products_of_nothing(gemm):
    rng = np.random.default_rng(0)
    assert check_product(normal(rng, 0, 5), normal(rng, 5, 7)).shape == (0, 7)
    check_product(normal(rng, 2, 0, 5), normal(rng, 5, 7))
    check_product(normal(rng, 3, 0), normal(rng, 0, 7))
    check_product(normal(rng, 3, 2, 0), normal(rng, 0, 7), normal(rng, 7))


def test_what_is_not_finite_stays_so(gemm):
    rng = np.random.default_rng(0)
    x, y = normal(rng, 19, 23).copy(), normal(rng, 23, 29)
    x[2, 3], x[5, 7], x[11] = np.nan, np.inf, -np.inf
    answer = bf16.bf16_product(x, y).astype(F32)
    with np.errstate(invalid="ignore"):
        expected = x.astype(F32) @ y.astype(F32)
    assert np.isnan(answer[2]).all() and not np.isfinite(answer[[5, 11]]).any()
    np.testing.assert_array_equal(np.isnan(answer), np.isnan(expected))
    infinite = np.isinf(expected)
    np.testing.assert_array_equal(answer[infinite], expected[infinite])


def test_what_it_declines(gemm, monkeypatch):
    x = normal(np.random.default_rng(0), 3, 5)
    assert bf16.bf16_product(x, x) is None  # sizes do not fit: the formula says so
    assert bf16.bf16_product(x.astype(F32), x.T.astype(F32)) is None
    assert bf16.bf16_product(x, x.T, x[0]) is None
    without_onemkl(monkeypatch)
    assert bf16.bf16_product(x, x.T) is None


def test_the_bias_is_added_before_the_product_is_rounded(gemm):
    x, y, bias = np.ones((1, 2), BF16), np.full((2, 300), 64, BF16), np.full(300, -128, BF16)
    y[0] = 64.5
    assert (bf16.bf16_product(x, y, bias) == 0.5).all()  # 128.5 alone would be 128


# ---- what is between them


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate):
    rng = np.random.default_rng(0)
    x, g = normal(rng, 31, 37, scale=3.0), normal(rng, 31, 37)
    leaf = exact(x)
    y = TF.gelu(leaf, approximate=approximate)
    (slope,) = torch.autograd.grad(y, leaf, torch.tensor(g.astype(np.float64)))
    close(gelu.gelu_forward(x, approximate), y, ROUNDING)
    close(gelu.gelu_backward(g, x, approximate), slope, ROUNDING)
    close(gelu.gelu_backward(g.T, x.T, approximate), slope.T, ROUNDING)


def test_dropout():
    rng = np.random.default_rng(0)
    x, keep = normal(rng, 31, 37).copy(), rng.random((31, 37)) < 0.75
    x[3, 5] = np.nan
    y = dropout.dropout(x, keep, 4 / 3)
    np.testing.assert_allclose(y.astype(F32), x.astype(F32) * keep * (4 / 3), ROUNDING)
    assert y.dtype == BF16


def test_sums_over_rows():
    x = normal(np.random.default_rng(0), 7, 331, 13)
    close(sum_to(x, (13,)), exact(x).sum((0, 1)), ROUNDING)
    close(sum_to(x, (331, 13)), exact(x).sum(0), ROUNDING)
    close(sum_to(x, (331, 1)), exact(x).sum((0, 2))[:, None], ROUNDING)
    ones = np.ones((100_000, 3), BF16)
    assert (sum_to(ones, (3,)).astype(F32) == 99_840).all()  # in bfloat16 they would stop at 256


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "B, H, T, S, D, E", [(2, 3, 17, 17, 5, 7), (1, 2, 131, 131, 16, 16), (1, 1, 29, 521, 3, 2),
                         (1, 2, 261, 7, 8, 4), (1, 1, 1, 1, 1, 1)],
)  # fmt: skip
def test_attention(gemm, B, H, T, S, D, E, causal):
    rng = np.random.default_rng(T * S)
    q, k, v, g = (
        normal(rng, B, n, H, d).transpose(0, 2, 1, 3)
        for n, d in ((T, D), (S, D), (S, E), (T, E))
    )
    q = q.copy()  # of other strides than the rest
    leaves = [exact(x) for x in (q, k, v)]
    seen = torch.ones(T, S, dtype=torch.bool).tril() if causal else None
    y = TF.scaled_dot_product_attention(*leaves, attn_mask=seen, scale=0.3)
    parts = torch.autograd.grad(y, leaves, torch.tensor(g.astype(np.float64)))
    out, lse = attention.attention_forward(q, k, v, causal, 0.3)
    scores = leaves[0] @ leaves[1].mT * 0.3
    scores = scores if seen is None else scores.masked_fill(~seen, -torch.inf)
    assert lse.dtype == F32
    np.testing.assert_allclose(lse, torch.logsumexp(scores, -1).detach().numpy(), 1e-5, 1e-5)
    close(out, y, 2 * ROUNDING)
    for part, expected in zip(
        attention.attention_backward(g, q, k, v, out, lse, causal, 0.3), parts, strict=True
    ):
        close(part, expected, 3 * ROUNDING)


def test_attention_of_any_outer_dims_and_what_it_declines(gemm, monkeypatch):
    rng = np.random.default_rng(0)
    q, k, v = (normal(rng, 2, 3, 5, 11, 7) for _ in range(3))
    out, lse = attention.attention_forward(q, k, v, True)
    y = TF.scaled_dot_product_attention(*map(exact, (q, k, v)), is_causal=True)
    close(out, y, 2 * ROUNDING)
    assert lse.shape == (2, 3, 5, 11)
    parts = attention.attention_backward(out, q, k, v, out, lse, True)
    assert [part.shape for part in parts] == [q.shape] * 3
    assert attention.attention_forward(q, k.astype(F32), v) is None
    without_onemkl(monkeypatch)
    assert attention.attention_forward(q, k, v) is None


def test_cross_entropy():
    rng = np.random.default_rng(0)
    x, target = normal(rng, 13, 1031, scale=3.0), rng.integers(0, 1031, 13)
    target[4] = -100
    leaf = exact(x)
    rows = TF.cross_entropy(leaf, torch.tensor(target), reduction="none")
    loss, lse = losses.bf16_cross_entropy_forward(x, target, -100)
    assert loss.dtype == lse.dtype == F32
    np.testing.assert_allclose(loss, rows.detach().numpy(), 1e-5)
    (slope,) = torch.autograd.grad(rows.sum() / 8, leaf)
    dx = losses.bf16_cross_entropy_backward(np.float32(1 / 8), x, target, lse, -100)
    close(dx, slope, ROUNDING)
    target[7] = 1031
    with pytest.raises(IndexError, match="target 1031 of row 7"):
        losses.bf16_cross_entropy_forward(x, target, -100)


# ---- autocast

SMALL = GPT2Config(n_layer=2, n_head=3, n_embd=48, vocab_size=307, block_size=40, dropout=0.0)


def losses_and_gradients(dropout=0.0, recorded=None):
    """Of a small GPT-2 under autocast."""
    tg.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**{**SMALL.to_dict(), "resid_pdrop": dropout}))
    ids = tg.randint(0, 307, (3, 41))
    with tg.autocast("cpu") if recorded is None else recorded:
        _, loss = model(ids[:, :-1], ids[:, 1:])
    loss.backward()
    assert loss.dtype == tg.float32
    return loss.item(), {name: p.grad.array for name, p in model.named_parameters()}


def apart(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_gradients_are_float32s_up_to_rounding(gemm, monkeypatch, dropout):
    loss, grads = losses_and_gradients(dropout)
    plain, expected = losses_and_gradients(dropout, tg.enable_grad())
    assert abs(loss / plain - 1) < 1e-3
    assert all(g.dtype == F32 for g in grads.values())
    assert max(apart(grads[name], expected[name]) for name in grads) < 1e-2
    without_onemkl(monkeypatch)  # the same numbers from slower code
    slow, others = losses_and_gradients(dropout)
    assert abs(loss / slow - 1) < 1e-4
    assert max(apart(grads[name], others[name]) for name in grads) < 1e-2


def test_numbers_do_not_depend_on_the_threads(gemm, monkeypatch):
    monkeypatch.setattr(threads, "WORTH", 1)  # small pieces are shared out, too
    before = threads.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            threads.set_num_threads(count)
            results.append(losses_and_gradients())
    finally:
        threads.set_num_threads(before)
    for loss, grads in results[1:]:
        assert loss == results[0][0]
        for name, grad in grads.items():
            np.testing.assert_array_equal(grad, results[0][1][name])


def test_logits_are_not_written_out_in_float32(gemm):
    """The loss takes them as they are; twice differentiable it is all the same."""
    rng = np.random.default_rng(0)
    x = tg.tensor(normal(rng, 5, 331), requires_grad=True)
    target = tg.tensor(rng.integers(0, 331, 5))
    with tg.autocast("cpu"):
        loss = F.cross_entropy(x, target)
    assert loss.dtype == tg.float32 and loss.node.op.name == "cross_entropy_wide"
    leaf = exact(x.detach().numpy())
    expected = TF.cross_entropy(leaf, torch.tensor(target.numpy()))
    np.testing.assert_allclose(loss.item(), expected.item(), 1e-6)
    (g,) = tg.autograd.grad(loss, x, create_graph=True)
    (slope,) = torch.autograd.grad(expected, leaf, create_graph=True)
    close(g.detach().numpy(), slope, ROUNDING)
    (second,) = tg.autograd.grad(g.float().square().sum(), x)
    (expected,) = torch.autograd.grad(slope.square().sum(), leaf)
    close(second.numpy(), expected, 6 * ROUNDING)
    assert F.cross_entropy(x, target).dtype == x.dtype  # without autocast, as in PyTorch


def test_a_linear_layer_runs_in_the_kernel(gemm, monkeypatch):
    calls = []

    def product(x, y, bias=None, product=bf16.bf16_product):
        calls.append((x.shape, y.shape, bias is not None))
        return product(x, y, bias)

    monkeypatch.setattr(bf16, "bf16_product", product)
    monkeypatch.setattr(twins, "_found", {})
    layer, x = nn.Linear(5, 7), tg.ones(6, 5, requires_grad=True)
    with tg.autocast("cpu"):
        layer(x).sum().backward()
    assert calls == [((6, 5), (5, 7), True), ((7, 6), (6, 5), False), ((6, 7), (7, 5), False)]


# ---- finding oneMKL


def test_without_the_library_or_the_instructions_there_are_none(monkeypatch, tmp_path):
    find = onemkl.gemm_address.__wrapped__
    monkeypatch.setattr(onemkl, "has_instructions", lambda: True)
    monkeypatch.setattr(onemkl, "sys", SimpleNamespace(prefix=tmp_path, base_prefix=tmp_path))
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    assert find() == 0
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libmkl_rt.so.3").write_bytes(b"no library")
    assert find() == 0
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: "libc.so.6")
    assert onemkl._is_loaded("libc.so.6") and not onemkl._is_loaded("libnone.so.6")
    assert onemkl._library() is None  # somebody else's
    monkeypatch.setattr(onemkl, "_library", lambda: SimpleNamespace())
    assert find() == 0  # a library without the functions
    monkeypatch.setattr(onemkl, "has_instructions", lambda: False)
    monkeypatch.setattr(onemkl, "_library", lambda: pytest.fail("it was looked for"))
    assert find() == 0


@pytest.mark.parametrize(
    "flags, expected", [("fpu sse avx512_bf16 amx_bf16", True), ("fpu avx512_bf16x", False)]
)
def test_instructions(monkeypatch, flags, expected):
    text = f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: amx_bf16\n"
    monkeypatch.setattr(onemkl.Path, "read_text", lambda path: text)
    assert onemkl.has_instructions.__wrapped__() is expected


def test_where_there_is_no_cpuinfo(monkeypatch):
    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(onemkl.Path, "read_text", missing)
    assert not onemkl.has_instructions.__wrapped__()
