"""Checkpointed blocks: the same gradients, less memory, the same random numbers."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint as torch_checkpoint

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import autograd, func
from tensorgrad.autograd import Function
from tensorgrad.utils.checkpoint import checkpoint, checkpoint_sequential


def leaf(*shape):
    array = np.random.default_rng(sum(shape)).normal(size=shape)
    return tg.tensor(array, requires_grad=True)


def close(a, b, rtol=1e-12):
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=rtol, atol=1e-13)


def grads(*leaves):
    found = [x.grad for x in leaves]
    for x in leaves:
        x.grad = None
    return found


def test_gradients_of_arguments_and_of_what_is_closed_over():
    w, b, x = leaf(5, 5), leaf(5), leaf(3, 5)

    def total(call):
        inner = x + x  # closed over, and not a leaf

        def block(h, k):
            return tg.tanh(h @ w + b) * inner + k.sin()

        h = x.exp()
        return (call(block, h, h * 0.5) ** 2).sum()

    total(lambda f, *args: f(*args)).backward()
    plain = grads(w, b, x)
    total(checkpoint).backward()
    for a, c in zip(plain, grads(w, b, x), strict=True):
        close(a, c)


def test_the_same_as_torch():
    def run(lib, check):
        w = lib.tensor(np.arange(15.0).reshape(3, 5) / 10, requires_grad=True)
        x = lib.tensor(np.linspace(-1, 1, 6).reshape(2, 3), requires_grad=True)
        y = check(lambda x: lib.tanh(x @ w) * 2.0, x)
        z = check(lambda y: (y.exp() * y).sum(1), y + 1.0)
        (z * z).sum().backward()
        return x.grad, w.grad

    mine = run(tg, lambda f, *a: checkpoint(f, *a, use_reentrant=False))
    theirs = run(torch, lambda f, *a: torch_checkpoint(f, *a, use_reentrant=False))
    for a, b in zip(mine, theirs, strict=True):
        close(a, b)


def test_the_arguments_of_a_block_may_depend_on_each_other():
    """h is made of x, and both go in: the gradient of x must not count h's way twice."""
    x = leaf(3)
    h = x * x
    checkpoint(lambda h, x: (h * x).sum(), h, x).backward()
    close(x.grad, 3 * x * x)


def test_trees_numbers_and_keyword_arguments():
    x, y = leaf(3), leaf(3)

    def block(pair, scale, *, extra):
        a, b = pair["a"], pair["b"]
        return {"sum": (a + b) * scale, "more": [a * b + extra["c"], None, "text"]}

    def total(out):
        assert out["more"][1:] == [None, "text"]
        return (out["sum"] * out["more"][0]).sum()

    arguments = ({"a": x, "b": y}, 2.5), {"extra": {"c": x + 1.0}}
    total(block(*arguments[0], **arguments[1])).backward()
    plain = grads(x, y)
    total(checkpoint(block, *arguments[0], **arguments[1])).backward()
    for a, b in zip(plain, grads(x, y), strict=True):
        close(a, b)


def test_several_outputs_some_unused_some_without_gradient():
    x = leaf(5)

    def block(x):
        return x.exp(), x.sin(), tg.argmax(x), x.detach() * 2.0, x

    a, b, i, d, same = checkpoint(block, x)
    assert not i.requires_grad and not d.requires_grad and same is x
    (a * d).sum().backward()
    close(x.grad, x.detach().exp() * 2 * x.detach())
    assert b.requires_grad


def test_the_same_output_twice():
    x = leaf(3)

    def block(x):
        y = x.exp()
        return y, y

    a, b = checkpoint(block, x)
    (a * 2.0 + b * 3.0).sum().backward()
    close(x.grad, 5 * x.detach().exp())


def test_the_inside_is_forgotten_and_made_again():
    x, made = leaf(3), []

    def block(x):
        h = tg.exp(x)
        made.append((weakref.ref(h.array), weakref.ref(h.node)))
        return tg.sin(h)

    y = checkpoint(block, x)
    assert [ref() for ref in made[0]] == [None, None]
    y.sum().backward()
    assert len(made) == 2 and [ref() for ref in made[1]] == [None, None]


def test_memory_falls():
    """Eight blocks of five layers: the peak of forward and backward, and what forward keeps."""
    w = [leaf(64, 64) for _ in range(8)]

    def block(k):
        def run(x):
            for _ in range(5):
                x = tg.tanh(x @ w[k])
            return x

        return run

    def peak(call):
        x = leaf(512, 64)
        gc.collect()
        tracemalloc.start()
        try:
            start = tracemalloc.get_traced_memory()[0]
            for k in range(8):
                x = call(block(k), x)
            kept = tracemalloc.get_traced_memory()[0] - start
            (x * x).sum().backward()
            return kept, tracemalloc.get_traced_memory()[1] - start
        finally:
            tracemalloc.stop()

    one = 512 * 64 * 8  # bytes of an activation
    plain, small = peak(lambda f, x: f(x)), peak(checkpoint)
    first = grads(*w)
    assert plain[0] >= 40 * one and plain[1] >= 40 * one
    assert small[0] <= 10 * one and small[1] <= 20 * one
    peak(checkpoint)
    peak(lambda f, x: f(x))
    for a, b in zip(first, grads(*w), strict=True):
        close(a, b, rtol=1e-9)


def test_nested():
    w, x = leaf(5, 5), leaf(3, 5)
    calls = []

    def inner(x):
        calls.append("inner")
        return tg.tanh(x @ w)

    def outer(x):
        calls.append("outer")
        return checkpoint(inner, checkpoint(inner, x) * 2.0)

    (checkpoint(outer, x) ** 2).sum().backward()
    assert calls.count("outer") == 2 and calls.count("inner") == 6
    nested = grads(w, x)
    (inner(inner(x) * 2.0) ** 2).sum().backward()
    for a, b in zip(nested, grads(w, x), strict=True):
        close(a, b)


def test_higher_derivatives():
    w, x = leaf(3, 3), leaf(2, 3)

    def block(x):
        return tg.tanh(x @ w)

    def second(call):
        loss = (call(block, x) ** 3).sum()
        first = autograd.grad(loss, [x, w], create_graph=True)
        return autograd.grad(sum((g * g).sum() for g in first), [x, w])

    for a, b in zip(second(checkpoint), second(lambda f, x: f(x)), strict=True):
        close(a, b)
    assert autograd.gradcheck(lambda x: checkpoint(block, x), x)
    assert autograd.gradgradcheck(lambda x: checkpoint(block, x), x)


def test_partial_graphs_and_two_passes():
    w, x = leaf(3, 3), leaf(2, 3)
    h = x * 2.0
    y = checkpoint(lambda h: tg.tanh(h @ w), h).sum()
    (dw,) = autograd.grad(y, w, retain_graph=True)
    dh, dx = autograd.grad(y, [h, x], retain_graph=True)
    y.backward()
    close(dw, w.grad)
    close(dx, x.grad)
    close(dh * 2.0, dx)
    with pytest.raises(RuntimeError, match="the arrays kept by checkpoint were freed"):
        y.backward()


@pytest.mark.parametrize("preserve", [True, False])
def test_dropout_draws_the_same_numbers_again(preserve):
    x = tg.ones(1000, dtype=tg.float64, requires_grad=True)

    def run():
        tg.manual_seed(7)
        y = checkpoint(lambda x: F.dropout(x * 3.0, 0.5), x, preserve_rng_state=preserve)
        between = tg.rand(3)
        y.sum().backward()
        return y, between, tg.rand(3)

    y, between, after = run()
    assert ((x.grad != 0) == (y != 0)).all().item() == preserve
    tg.manual_seed(7)
    F.dropout(x.detach() * 3.0, 0.5)
    assert between.tolist() == tg.rand(3).tolist()
    assert (after.tolist() == tg.rand(3).tolist()) == preserve  # backward's draws are undone


def test_hooks_are_called_once():
    x = leaf(3)
    h = x * 2.0
    seen = []
    h.register_hook(lambda g: seen.append(g.tolist()))
    x.register_hook(lambda g: g * 10.0)
    h.retain_grad()
    checkpoint(lambda h: (h * x).sum(), h).backward()
    close(x.grad, 10 * 4 * x)
    assert seen == [x.tolist()] and h.grad.tolist() == x.tolist()


def test_functions_inside():
    class Sine(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return tg.sin(x)

        @staticmethod
        def backward(ctx, g):
            return g * tg.cos(ctx.saved_tensors[0])

    x = leaf(3)
    checkpoint(lambda x: Sine.apply(x).exp(), x).sum().backward()
    plain = grads(x)[0]
    tg.exp(tg.sin(x)).sum().backward()
    close(plain, x.grad)


def test_where_nothing_is_recorded_it_is_a_call():
    x, calls = tg.ones(3), []

    def block(x):
        calls.append(0)
        return x * 2.0

    assert checkpoint(block, x).is_leaf
    with tg.no_grad():
        assert checkpoint(block, leaf(3)).is_leaf
    assert len(calls) == 2


def test_inside_transforms():
    w, x = tg.tensor(np.eye(3)), tg.tensor(np.linspace(0, 1, 3))

    def f(x):
        return checkpoint(lambda x: tg.sin(x @ w), x).sum()

    close(func.grad(f)(x), x.cos())
    close(func.hessian(f)(x).diagonal(), -x.sin())


def test_a_block_that_does_otherwise_the_second_time():
    x, shapes = leaf(3), [3, 2]

    def block(x):
        return x[: shapes.pop(0)] * 2.0

    y = checkpoint(block, x)
    with pytest.raises(RuntimeError, match=r"checkpoint: run again, .* must do the same each time"):
        y.sum().backward()


def test_other_parameters_the_second_time():
    """functional_call puts the module's own parameters back before the block runs again."""
    module = tg.nn.Linear(3, 2)

    class Block(tg.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, x):
            return checkpoint(self.inner, x)

    new = {"inner.weight": tg.ones(2, 3, requires_grad=True)}
    y = func.functional_call(Block(), new, tg.ones(5, 3))
    with pytest.raises(
        RuntimeError, match="run again, the function uses other tensors"
    ):
        y.sum().backward()
    func.functional_call(Block(), new, tg.ones(5, 3)).sum()


def test_damage_between_forward_and_backward():
    w, x = leaf(3), leaf(3)
    h = x * 1.0
    y = checkpoint(lambda h: (h * w).sum(), h)
    with tg.no_grad():
        w.mul_(2.0)
    with pytest.raises(
        RuntimeError, match=r"a checkpoint uses a leaf of shape \(3,\) that was chan"
    ):
        y.backward()
    y = checkpoint(lambda h: (h * w).sum(), h)
    h.add_(1.0)
    with pytest.raises(RuntimeError, match=r"checkpoint keeps 'args', .* changed in place"):
        y.backward()


def test_errors_of_the_block_pass():
    def block(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        checkpoint(block, leaf(3))


@pytest.mark.parametrize("segments", [1, 2, 3, 5, 7])
def test_sequences(segments):
    w = [leaf(3, 3) for _ in range(5)]
    calls = []

    def layer(k):
        def run(x):
            calls.append(k)
            return tg.tanh(x @ w[k])

        return run

    layers = [layer(k) for k in range(5)]
    x = leaf(2, 3)
    y = checkpoint_sequential(layers, segments, x, use_reentrant=False)
    assert calls == [0, 1, 2, 3, 4]
    (y * y).sum().backward()
    found = grads(x, *w)
    for f in layers:
        y = f(y) if f is not layers[0] else f(x)
    (y * y).sum().backward()
    for a, b in zip(found, grads(x, *w), strict=True):
        close(a, b)
    module = tg.nn.Sequential(tg.nn.Linear(3, 5), tg.nn.Tanh(), tg.nn.Linear(5, 2))
    inputs = tg.ones(4, 3, requires_grad=True)
    close(checkpoint_sequential(module, 2, inputs), module(inputs))
    with pytest.raises(ValueError, match="at least one segment"):
        checkpoint_sequential(layers, 0, x)
