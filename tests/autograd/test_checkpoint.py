"""Checkpointing: the same numbers, fewer bytes."""

import numpy as np
import pytest

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad.autograd import saved
from tensorgrad.utils.checkpoint import checkpoint, checkpoint_sequential


def leaf(*shape, seed=0):
    return tg.tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


def gradients(block, wrap, *leaves):
    for x in leaves:
        x.grad = None
    tg.manual_seed(3)
    out = wrap(block, leaves[0])
    loss = out.square().sum() if isinstance(out, tg.Tensor) else sum((o * o).sum() for o in out)
    kept = saved(loss).total
    loss.backward()
    return kept, loss.item(), [x.grad.numpy().copy() for x in leaves]


def plain(block, x):
    return block(x)


def test_parameters_in_closures_and_dropout():
    x, w, b = leaf(7, 5), leaf(5, 5, seed=1), leaf(5, seed=2)

    def block(x):
        for _ in range(3):
            x = F.dropout((x @ w + b).tanh(), 0.4)
        return x

    kept, loss, want = gradients(block, plain, x, w, b)
    fewer, again, got = gradients(block, checkpoint, x, w, b)
    assert again == loss
    assert fewer < kept / 3
    for a, e in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, e)


def test_the_generator_goes_on_as_if_the_block_had_run_once():
    x = leaf(3, 5)
    tg.manual_seed(1)
    checkpoint(lambda x: F.dropout(x * 2, 0.5), x).sum().backward()
    after = tg.rand(3)
    tg.manual_seed(1)
    F.dropout(x * 2, 0.5)
    assert after.tolist() == tg.rand(3).tolist()


def test_several_outputs_and_one_unused():
    x, w = leaf(3, 5), leaf(5, seed=1)

    def block(x):
        return (x * w).exp(), x.sum(0), (x + 1).tanh()

    want = gradients(lambda x: block(x)[:2], plain, x, w)[2]
    got = gradients(lambda x: checkpoint(block, x)[:2], plain, x, w)[2]
    for a, e in zip(got, want, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-12)


def test_nested():
    x, w = leaf(3, 5), leaf(5, 5, seed=1)

    def inner(x):
        return (x @ w).tanh()

    def outer(x):
        return checkpoint(inner, checkpoint(inner, x)).exp()

    def flat(x):
        return inner(inner(x)).exp()

    want = gradients(flat, plain, x, w)[2]
    got = gradients(outer, checkpoint, x, w)[2]
    for a, e in zip(got, want, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-12)


def test_second_derivatives():
    x, w = leaf(3), leaf(3, seed=1)

    def second(wrap):
        (g,) = tg.autograd.grad(wrap(lambda x: (x * w).exp(), x).sum(), x, create_graph=True)
        return tg.autograd.grad(g.square().sum(), (x, w))

    for a, e in zip(second(checkpoint), second(plain), strict=True):
        np.testing.assert_allclose(a.numpy(), e.numpy(), rtol=1e-12)


def test_sequential():
    x, w = leaf(3, 5), leaf(5, 5, seed=1)
    layers = [lambda x: (x @ w).tanh()] * 4

    def run(x):
        for layer in layers:
            x = layer(x)
        return x

    want = gradients(run, plain, x, w)[2]
    got = gradients(lambda x: checkpoint_sequential(layers, 2, x), plain, x, w)[2]
    for a, e in zip(got, want, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-12)


def test_without_recording_it_is_a_call():
    x = leaf(3)
    with tg.no_grad():
        y = checkpoint(lambda x: x * 2, x)
    assert not y.requires_grad
    with pytest.raises(ZeroDivisionError):
        checkpoint(lambda x: x / (1 // 0), x)
