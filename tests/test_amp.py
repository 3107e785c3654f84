"""autocast against PyTorch's on the CPU: dtypes op by op, gradients, a training step."""

import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as TF

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import nn, optim

OPS = {
    "linear": lambda t, F, x, w: F.linear(x, w),
    "linear with bias": lambda t, F, x, w: F.linear(x, w, w[:, 0]),
    "matmul": lambda t, F, x, w: x @ w.T,
    "bmm": lambda t, F, x, w: t.bmm(x[None], w.T[None]),
    "conv": lambda t, F, x, w: F.conv1d(x[None], w[:, :, None][:5, :3]),
    "attention": lambda t, F, x, w: F.scaled_dot_product_attention(*[x[None, None]] * 3),
    "gelu of a product": lambda t, F, x, w: F.gelu(x @ w.T),
    "a product plus float32": lambda t, F, x, w: x @ w.T + w[0, 0],
    "add": lambda t, F, x, w: x + x,
    "layer_norm of a product": lambda t, F, x, w: F.layer_norm(x @ w.T, (7,)),
    "cross_entropy of a product": lambda t, F, x, w: F.cross_entropy(
        x @ w.T, t.tensor([1, 2, 3]),
    ),
}  # fmt: skip


@pytest.fixture
def operands():
    rng = np.random.default_rng(0)
    return rng.standard_normal((3, 5)).astype("f"), rng.standard_normal((7, 5)).astype("f")


@pytest.mark.parametrize("name", OPS)
def test_values_and_gradients_are_pytorchs(name, operands):
    call = OPS[name]
    ours = [tg.tensor(a, requires_grad=True) for a in operands]
    theirs = [torch.tensor(a, requires_grad=True) for a in operands]
    with tg.autocast("cpu"):
        out = call(tg, F, *ours)
    with torch.autocast("cpu", torch.bfloat16):
        expected = call(torch, TF, *theirs)
    if name not in ("layer_norm of a product",):  # in 16 bits on PyTorch's CPU, float32 on its GPU
        assert str(out.dtype) == str(expected.dtype).removeprefix("torch.")
    out.float().sum().backward()
    expected.float().sum().backward()
    np.testing.assert_allclose(
        out.detach().float().numpy(), expected.detach().float().numpy(), 2e-2, 2e-2
    )
    for a, b in zip(ours, theirs, strict=True):
        if b.grad is not None:
            assert a.grad.dtype == tg.float32
            np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), 2e-2, 4e-2)


def test_only_inside_only_here_and_only_on_its_device(operands):
    x, w = (tg.tensor(a) for a in operands)
    seen = []
    with tg.autocast("cpu"):
        assert tg.is_autocast_enabled("cpu") and not tg.is_autocast_enabled("cuda")
        other = threading.Thread(target=lambda: seen.append((x @ w.T).dtype))
        other.start()
        other.join()
        with tg.autocast("cpu", enabled=False):
            assert (x @ w.T).dtype == tg.float32
        assert (x @ w.T).dtype == tg.bfloat16
        assert (x.double() @ w.double().T).dtype == tg.float64  # as in PyTorch, left alone
    with tg.autocast("cuda"):
        assert (x @ w.T).dtype == tg.float32
    with tg.autocast("cpu", tg.float16):
        assert (x @ w.T).dtype == tg.float16
    assert (x @ w.T).dtype == tg.float32 and seen == [tg.float32]
    assert not tg.is_autocast_enabled("cpu")


def test_a_weight_is_cast_once_in_a_block(operands):
    x, w = (tg.tensor(a, requires_grad=True) for a in operands)
    with tg.autocast("cpu"):
        first, second = (F.linear(x, w) for _ in range(2))
        weights = [out.node.parents[1] for out in (first, second)]
        assert weights[0] is weights[1]
    w.data.fill_(1)
    with tg.autocast("cpu"):
        assert F.linear(tg.ones(1, 5), w).tolist() == [[5.0] * 7]


def test_a_training_run_follows_float32():
    """Weights stay float32, and what bfloat16 learns is what float32 learns, roughly."""
    losses = []
    for enabled in (True, False):
        tg.manual_seed(3)
        net = nn.Sequential(nn.Linear(11, 31), nn.GELU(), nn.LayerNorm(31), nn.Linear(31, 5))
        opt = optim.AdamW(net.parameters(), lr=1e-2)
        x, y = tg.randn(64, 11), tg.randint(0, 5, (64,))
        for _ in range(30):
            with tg.autocast("cpu", enabled=enabled):
                loss = F.cross_entropy(net(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
        assert all(p.dtype == p.grad.dtype == tg.float32 for p in net.parameters())
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=0.05) and losses[1] < 0.8


def test_as_a_decorator(operands):
    x, w = (tg.tensor(a) for a in operands)
    assert tg.autocast("cpu")(lambda: x @ w.T)().dtype == tg.bfloat16


def test_what_cannot_be():
    with pytest.raises(RuntimeError, match=r"device_type must be 'cpu' or 'cuda', not 'tpu'"):
        tg.autocast("tpu")
    with pytest.raises(RuntimeError, match=r"dtype must be bfloat16 or float16, not float64"):
        tg.autocast("cpu", tg.float64)
