"""autograd.Function beside torch.autograd.Function: values, gradients, histories, refusals."""

import gc
import weakref
from typing import ClassVar

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad import autograd, func
from tensorgrad.autograd import Function
from tensorgrad.autograd.function import once_differentiable

RNG = np.random.default_rng(7)


def pair(*shape, grad=True):
    """The same numbers as a tensor here and a tensor there."""
    array = RNG.normal(size=shape)
    return tg.tensor(array, requires_grad=grad), torch.tensor(array, requires_grad=grad)


def close(ours, theirs, rtol=1e-11):
    np.testing.assert_allclose(
        ours.detach().numpy(), theirs.detach().numpy(), rtol=rtol, atol=1e-12, strict=True
    )


def power(lib, base, style="ctx"):
    """x**k * y as a Function of either library: saves inputs and the output, takes a number."""

    def forward(ctx, x, k, y):
        out = x**k * y
        ctx.save_for_backward(x, y, out)
        ctx.k = k
        return out

    def backward(ctx, g):
        x, y, _ = ctx.saved_tensors
        dx = g * y * ctx.k * x ** (ctx.k - 1) if ctx.needs_input_grad[0] else None
        return dx, None, g * x**ctx.k

    def bare_forward(x, k, y):
        return x**k * y

    def setup_context(ctx, inputs, output):
        x, ctx.k, y = inputs
        ctx.save_for_backward(x, y, output)

    members = {"forward": forward, "backward": backward}
    if style == "setup_context":
        members |= {"forward": bare_forward, "setup_context": setup_context}
    return type("Power", (base,), {name: staticmethod(f) for name, f in members.items()})


@pytest.mark.parametrize("style", ["ctx", "setup_context"])
def test_three_derivatives_equal_torch(style):
    ours, theirs = power(tg, Function, style), power(torch, torch.autograd.Function, style)
    (x, tx), (y, ty) = pair(3, 5), pair(3, 5)
    a, b = ours.apply(x, 3, y), theirs.apply(tx, 3, ty)
    close(a, b)
    for _ in range(3):
        a = autograd.grad((a * a).sum(), [x, y], create_graph=True)
        b = torch.autograd.grad((b * b).sum(), [tx, ty], create_graph=True)
        for mine, yours in zip(a, b, strict=True):
            close(mine, yours)
        a, b = sum((p * p).sum() for p in a).sqrt(), sum((p * p).sum() for p in b).sqrt()


class Saves(Function):
    """Saves its output, and differentiates through it."""

    @staticmethod
    def forward(ctx, x):
        out = tg.tanh(x)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx, g):
        (out,) = ctx.saved_tensors
        return g * (1 - out * out)


def test_a_saved_output_has_its_history_again():
    x, tx = pair(7)
    for order in range(1, 4):
        a, b = Saves.apply(x), torch.tanh(tx)
        for _ in range(order):
            (a,) = autograd.grad(a.sum(), x, create_graph=True)
            (b,) = torch.autograd.grad(b.sum(), tx, create_graph=True)
        close(a, b)


def test_a_saved_output_makes_no_cycle():
    gc.collect()
    gc.disable()
    try:
        x, _ = pair(7)
        y = Saves.apply(x)
        alive = weakref.ref(y), weakref.ref(y.node), weakref.ref(y.array)
        y.sum().backward()
        del y
        assert [ref() for ref in alive] == [None, None, None]
        y = Saves.apply(x)  # never differentiated
        alive = weakref.ref(y), weakref.ref(y.node)
        del y
        assert [ref() for ref in alive] == [None, None]
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_saved_arrays_are_freed_and_a_second_backward_says_so():
    x, _ = pair(7)
    y = Saves.apply(x)
    array = weakref.ref(y.array)
    total = (y + 1.0).sum()
    del y
    total.backward(retain_graph=True)
    assert array() is not None
    total.backward()
    assert array() is None
    with pytest.raises(RuntimeError, match="the arrays kept by Saves were freed"):
        total.backward()


class Several(Function):
    """(x + y, x * y, argmax of x, a number)."""

    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        ctx.seen = []
        return x + y, x * y, tg.argmax(x), 13

    @staticmethod
    def backward(ctx, g, h, i, n):
        ctx.seen += [g, h, i, n]
        x, y = ctx.saved_tensors
        return g + h * y, g + h * x


def test_several_outputs():
    (x, tx), (y, ty) = pair(5), pair(5)
    s, p, i, n = Several.apply(x, y)
    assert (n, i.requires_grad, s.requires_grad, p.requires_grad) == (13, False, True, True)
    (s.exp().sum() + p.sin().sum()).backward()
    ((tx + ty).exp().sum() + (tx * ty).sin().sum()).backward()
    close(x.grad, tx.grad)
    close(y.grad, ty.grad)


def test_outputs_that_no_gradient_reaches():
    x, _ = pair(5)
    y, _ = pair(5)
    out = Several.apply(x, y)
    (dx,) = autograd.grad(out[0].sum(), x)
    assert dx.tolist() == [1.0] * 5
    seen = out[0].node.parents[0].op.ctx.seen
    assert [None if g is None else (g.shape, g.dtype) for g in seen] == [
        ((5,), tg.float64), ((5,), tg.float64), ((), tg.int64), None,
    ]  # fmt: skip

    class Declined(Several):
        @staticmethod
        def forward(ctx, x, y):
            ctx.set_materialize_grads(False)
            return Several.forward(ctx, x, y)

        @staticmethod
        def backward(ctx, *gs):
            assert [g is None for g in gs] == [True, False, True, True]
            x, y = ctx.saved_tensors
            return gs[1] * y, gs[1] * x

    _, p, _, _ = Declined.apply(x, y)
    (dx,) = autograd.grad(p.sum(), x)
    assert dx.tolist() == y.tolist()


def test_mark_non_differentiable():
    class SortOf(Function):
        @staticmethod
        def forward(ctx, x):
            rank = x - x.mean()
            ctx.mark_non_differentiable(rank)
            ctx.save_for_backward(rank)
            return x * 2.0, rank

        @staticmethod
        def backward(ctx, g, h):
            assert h.tolist() == [0.0] * 3
            assert not ctx.saved_tensors[0].requires_grad
            return g * 2.0

    x, _ = pair(3)
    y, rank = SortOf.apply(x)
    assert y.requires_grad and not rank.requires_grad and rank.is_leaf
    (y * rank).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * rank.numpy())


def test_needs_input_grad():
    class Asks(Function):
        seen: ClassVar[list] = []

        @staticmethod
        def forward(ctx, x, k, y):
            Asks.seen.append(ctx.needs_input_grad)
            return x + k + y

        @staticmethod
        def backward(ctx, g):
            Asks.seen.append(ctx.needs_input_grad)
            return g, None, g

    x, y = pair(3)[0], pair(3, grad=False)[0]
    Asks.apply(x, 2, y).sum().backward()
    assert Asks.seen == [(True, False, False)] * 2
    assert y.grad is None
    with tg.no_grad():
        out = Asks.apply(x, 2, y)
    assert not out.requires_grad and out.is_leaf


def test_forward_records_nothing_and_returns_new_tensors():
    class Returns(Function):
        @staticmethod
        def forward(ctx, x):
            assert not tg.is_grad_enabled()
            return x

        @staticmethod
        def backward(ctx, g):
            assert not tg.is_grad_enabled()
            return g * 3.0

    x, _ = pair(3)
    y = Returns.apply(x)
    assert y is not x and y.array is x.array and y.grad_fn.name() == "Returns" and x.is_leaf
    y.sum().backward()
    assert x.grad.tolist() == [3.0] * 3


def test_gradients_that_the_user_keeps_are_not_scaled_with_grad():
    kept = tg.tensor([2.0, 3.0, 5.0])

    class Gives(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1.0

        @staticmethod
        def backward(ctx, g):
            return kept

    x = tg.ones(3, requires_grad=True)
    Gives.apply(x).sum().backward()
    x.grad.mul_(0.0)
    (again,) = autograd.grad(Gives.apply(x).sum(), x)
    again.mul_(0.0)
    (Gives.apply(x) + Gives.apply(x)).sum().backward()
    assert kept.tolist() == [2.0, 3.0, 5.0]
    assert x.grad.tolist() == [4.0, 6.0, 10.0]


def test_a_gradient_of_another_dtype_or_broadcast_shape():
    class Wide(Function):
        @staticmethod
        def forward(ctx, x):
            return x + tg.zeros(5, 3)

        @staticmethod
        def backward(ctx, g):
            return g.double()  # (5, 3) for an argument of shape (3,): summed, as in PyTorch

    x = tg.ones(3, requires_grad=True)
    Wide.apply(x).sum().backward()
    assert x.grad.dtype == tg.float32 and x.grad.tolist() == [5.0] * 3


# ---- in place


class Doubles(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        x.mul_(2.0)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        assert x.requires_grad and x.grad_fn.name() == "Doubles"
        return g * 2.0


def test_mark_dirty():
    x, _ = pair(3)
    y = x * 1.0
    view = y[1:]
    z = Doubles.apply(y)
    assert z is y and y.grad_fn.name() == "Doubles"
    np.testing.assert_array_equal(y.detach().numpy(), 2 * x.detach().numpy())
    (view * tg.tensor([3.0, 5.0], dtype=tg.float64)).sum().backward()
    assert x.grad.tolist() == [0.0, 6.0, 10.0]


def test_mark_dirty_of_leaves_and_of_what_is_not_returned():
    x, _ = pair(3)
    with pytest.raises(RuntimeError, match="Doubles: a leaf that requires grad cannot be changed"):
        Doubles.apply(x)

    class Hides(Doubles):
        @staticmethod
        def forward(ctx, x):
            ctx.mark_dirty(x)
            return x.mul_(2.0) * 1.0

    with pytest.raises(RuntimeError, match=r"Hides: mark_dirty: .* must be returned by forward"):
        Hides.apply(x * 1.0)
    with pytest.raises(RuntimeError, match="mark_dirty: a traced value cannot be changed in place"):
        func.grad(lambda x: Doubles.apply(x * 1.0).sum())(x.detach())


def test_a_saved_tensor_changed_in_place_is_refused():
    x, _ = pair(3)
    y = x * 1.0
    z = power(tg, Function).apply(y, 2, x)
    y.add_(1.0)
    with pytest.raises(
        RuntimeError, match=r"backward: Power keeps 'saved', shape .* changed in place"
    ):
        z.sum().backward()


# ---- wrong answers


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda g: g, r"Bad.backward returned 1 gradients for 3 arguments"),
        (lambda g: (g, None), r"Bad.backward returned 2 gradients for 3 arguments"),
        (lambda g: (g, None, g, g), r"Bad.backward returned 4 gradients for 3 arguments"),
        (
            lambda g: (g, g, g),
            r"Bad.backward returned a gradient for argument 1, which is no tensor",
        ),
        (lambda g: (g, None, 3.0), r"Bad.backward: the gradient of argument 2 is of type float"),
        (lambda g: (g, None, g.sum()), r"argument 2 has shape \(\), the argument \(3,\)"),
        (lambda g: (g, None, g[:2]), r"argument 2 has shape \(2,\), the argument \(3,\)"),
    ],
)
def test_wrong_answers_name_the_function(answer, message):
    class Bad(Function):
        @staticmethod
        def forward(ctx, x, k, y):
            return x * k + y

        @staticmethod
        def backward(ctx, g):
            return answer(g)

    (x, _), (y, _) = pair(3), pair(3)
    with pytest.raises(RuntimeError, match=message):
        Bad.apply(x, 2.0, y).sum().backward()


def test_more_nones_than_arguments_are_fine():
    class Long(Saves):
        @staticmethod
        def backward(ctx, g):
            return Saves.backward(ctx, g), None, None

    x, _ = pair(3)
    Long.apply(x).sum().backward()
    assert x.grad is not None


def test_what_cannot_be_saved_or_called():
    class Numbers(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x, 3)
            return x

    with pytest.raises(TypeError, match="save_for_backward: argument 1 is of type int"):
        Numbers.apply(tg.ones(2))
    with pytest.raises(RuntimeError, match=r"Saves: a Function has no instances; call Saves.apply"):
        Saves()
    with pytest.raises(RuntimeError, match="define the static method forward"):
        type("Empty", (Function,), {}).apply(tg.ones(2))

    class NoWayBack(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2.0

    y = NoWayBack.apply(tg.ones(2, requires_grad=True))
    with pytest.raises(RuntimeError, match="define the static method backward"):
        y.sum().backward()


def test_once_differentiable():
    class ByNumPy(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return tg.from_numpy(np.sin(x.detach().numpy()))

        @staticmethod
        @once_differentiable
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return tg.from_numpy(g.detach().numpy() * np.cos(x.detach().numpy()))

    x, tx = pair(5)
    ByNumPy.apply(x).sum().backward()
    tx.sin().sum().backward()
    close(x.grad, tx.grad)
    (first,) = autograd.grad(ByNumPy.apply(x).sum() + (x**3).sum(), x, create_graph=True)
    with pytest.raises(
        RuntimeError, match=r"ByNumPy.backward is once differentiable; its gradient"
    ):
        first.sum().backward()
    once = func.grad(lambda x: ByNumPy.apply(x).sum())(x.detach())
    close(once, tx.grad)
    with pytest.raises(RuntimeError, match="once differentiable; no transform can pass through"):
        func.grad(lambda x: func.grad(lambda y: ByNumPy.apply(y).sum())(x).sum())(x.detach())


# ---- transforms


class WithJvp(Function):
    """sin x, whose jvp counts its calls."""

    calls = 0

    @staticmethod
    def forward(x):
        return tg.sin(x), 3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs, output[0])

    @staticmethod
    def backward(ctx, g, _):
        (x,) = ctx.saved_tensors
        return g * tg.cos(x)

    @staticmethod
    def jvp(ctx, t):
        WithJvp.calls += 1
        x, out = ctx.saved_tensors
        assert out.shape == x.shape
        return t * tg.cos(x), None


def sine(x):
    return WithJvp.apply(x)[0]


class Without(Function):
    """sin x, without jvp."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return tg.sin(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * tg.cos(x)


@pytest.mark.parametrize("f", [sine, Without.apply], ids=["jvp", "transposed backward"])
def test_forward_mode_and_nesting(f):
    x, t = (tg.tensor(RNG.normal(size=5)) for _ in range(2))

    def jvp(g):
        return lambda x: func.jvp(g, (x,), (t,))[1]

    def total(g):
        return lambda x: func.grad(lambda y: (g(y) * t).sum())(x)

    s, c, n = np.sin(x.numpy()), np.cos(x.numpy()), t.numpy()
    WithJvp.calls = 0
    for transform, expected in [
        (jvp, n * c), (total, n * c), (lambda f: jvp(jvp(f)), -n * n * s),
        (lambda f: jvp(total(f)), -n * n * s), (lambda f: total(jvp(f)), -n * n * s),
        (lambda f: total(total(f)), -n * n * s), (lambda f: jvp(total(jvp(f))), -(n**3) * c),
        (lambda f: total(total(total(f))), -(n**3) * c),
    ]:  # fmt: skip
        np.testing.assert_allclose(transform(f)(x).numpy(), expected, rtol=1e-12)
    assert (WithJvp.calls > 0) == (f is sine)


def test_several_inputs_and_outputs_in_forward_mode():
    xs = [tg.tensor(RNG.normal(size=5)) for _ in range(4)]

    def mine(x, y):
        s, p, i, n = Several.apply(x, y)
        assert n == 13 and not i.requires_grad
        return s, p

    def plain(x, y):
        return x + y, x * y

    for outs in zip(
        func.jvp(mine, tuple(xs[:2]), tuple(xs[2:]))[1],
        func.jvp(plain, tuple(xs[:2]), tuple(xs[2:]))[1],
        strict=True,
    ):
        np.testing.assert_allclose(outs[0].numpy(), outs[1].numpy(), rtol=1e-13)
    only_second = func.jvp(lambda y: mine(xs[0], y), (xs[1],), (xs[3],))[1]
    np.testing.assert_allclose(only_second[1].numpy(), (xs[0] * xs[3]).numpy(), rtol=1e-13)


def test_traced_values_beside_recorded_ones():
    """A tensor that requires grad is a constant for func.grad, and keeps its own history."""
    w, _ = pair(5)
    x = tg.tensor(RNG.normal(size=5))
    product = power(tg, Function)
    slope = func.grad(lambda x: product.apply(x, 3, w).sum())(x)
    np.testing.assert_allclose(slope.detach().numpy(), 3 * x.numpy() ** 2 * w.detach().numpy())
    slope.sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), 3 * x.numpy() ** 2)


def test_a_jvp_that_answers_wrongly():
    class Bad(WithJvp):
        @staticmethod
        def jvp(ctx, t):
            return t.sum(), None

    class Short(WithJvp):
        @staticmethod
        def jvp(ctx, t):
            return t

    x = tg.ones(3)
    with pytest.raises(RuntimeError, match=r"Bad.jvp: the tangent of output 0 has shape \(\)"):
        func.jvp(lambda x: Bad.apply(x)[0], (x,), (x,))
    with pytest.raises(RuntimeError, match=r"Short.jvp returned 1 tangents for 2 outputs"):
        func.jvp(lambda x: Short.apply(x)[0], (x,), (x,))


def test_a_closed_over_tracer_is_refused():
    class Closes(Function):
        @staticmethod
        def forward(ctx, x):
            return x * hidden

    def f(y):
        nonlocal hidden
        hidden = y
        return Closes.apply(tg.ones(3)).sum()

    hidden = None
    with pytest.raises(
        RuntimeError, match="Closes: forward uses a value of a surrounding transform"
    ):
        func.grad(f)(tg.ones(3))


def test_hooks_and_partial_graphs_pass_through():
    x, tx = pair(3)
    h = Saves.apply(x)
    h.register_hook(lambda g: g * 2.0)
    h.retain_grad()
    y = Saves.apply(h)
    y.sum().backward()
    th = torch.tanh(tx)
    th.retain_grad()
    th.register_hook(lambda g: g * 2.0)
    torch.tanh(th).sum().backward()
    close(x.grad, tx.grad)
