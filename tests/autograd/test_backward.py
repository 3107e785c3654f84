"""Hooks, ownership, partial graphs and modes: each script runs in both libraries and must agree."""

import numpy as np
import pytest
import torch

import tensorgrad as tg

SCRIPTS = []


def script(function):
    SCRIPTS.append(function)
    return function


def make(lib, *shape, grad=True):
    array = np.random.default_rng(len(shape) + sum(shape)).normal(size=shape)
    return lib.tensor(array, requires_grad=grad)


def plain(x):
    """Results as numbers; an error as its class."""
    if isinstance(x, (list, tuple)):
        return [plain(one) for one in x]
    return x.detach().numpy().copy() if hasattr(x, "detach") else x


def outcome(function, lib):
    try:
        return plain(function(lib))
    except RuntimeError:
        return RuntimeError


def the_same(function):
    mine, theirs = outcome(function, tg), outcome(function, torch)

    def compare(a, b):
        if isinstance(a, list):
            assert isinstance(b, list) and len(a) == len(b)
            for one, two in zip(a, b, strict=True):
                compare(one, two)
        elif isinstance(a, np.ndarray):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12, strict=True)
        else:
            assert a == b

    compare(mine, theirs)


# ---- who owns a gradient


@script
def clipping_one_gradient_leaves_the_other(lib):
    a, b = make(lib, 3), make(lib, 3)
    (a + b).sum().backward()
    a.grad.mul_(0.5)
    return a.grad, b.grad


@script
def the_gradient_given_stays(lib):
    a, seed = make(lib, 3), make(lib, 3, grad=False)
    (a + 0.0).backward(seed)
    a.grad.mul_(0.0)
    a2 = make(lib, 3)
    a2.backward(seed)
    a2.grad.mul_(0.0)
    return seed, a.grad, a2.grad


@script
def gradients_of_grad_are_apart(lib):
    a, b = make(lib, 3), make(lib, 3)
    seed = lib.ones_like(a)
    c = a + b
    ga, gb, gc = lib.autograd.grad(c, [a, b, c], seed.detach())
    ga = ga.clone()
    gb.mul_(3.0)
    return ga, gc.shape, seed.shape


@script
def a_stretched_gradient_is_written_out(lib):
    a = make(lib, 3, 5)
    a.sum().backward()
    a.grad[0, 0] = 7.0
    b = make(lib, 3, 5)
    b.T.sum(0).sum().backward()
    return a.grad, b.grad, b.grad.is_contiguous()


@script
def gradients_add_up(lib):
    a = make(lib, 3)
    for k in range(3):
        (a * a * k).sum().backward()
    held = a.grad
    (a * 2.0).sum().backward()
    return a.grad, held, held is a.grad


@script
def gradients_add_up_under_create_graph(lib):
    a = make(lib, 3)
    (a**3).sum().backward(create_graph=True)
    held = a.grad
    (a**3).sum().backward(create_graph=True)
    total = a.grad.sum()
    a.grad = None
    total.backward()
    return a.grad, held


@script
def the_same_tensor_many_times(lib):
    a = make(lib, 3)
    b = a + a
    c = lib.stack([b, b, a * b])
    (c * c).sum().backward()
    return a.grad


@script
def float32_leaves_take_float32_gradients(lib):
    a = make(lib, 3).detach().float().requires_grad_()
    (a.double() * 2.0).sum().backward()
    return str(a.grad.dtype).removeprefix("torch."), a.grad


# ---- hooks


@script
def hooks_see_complete_gradients_in_order(lib):
    a = make(lib, 3)
    b = a * 2.0
    seen = []
    b.register_hook(lambda g: seen.append(g))
    b.register_hook(lambda g: g * 10.0)
    b.register_hook(lambda g: seen.append(g))
    a.register_hook(lambda g: seen.append(g))
    (b * 3.0 + b.exp() + a).sum().backward()
    return seen, a.grad


@script
def what_a_hook_keeps_stays_as_it_was(lib):
    a = make(lib, 64, 64)
    b = a * 2.0
    gelu = lib.nn.functional.gelu
    seen = []
    d = gelu(b)
    d.register_hook(lambda g: seen.append(g))
    b.register_hook(lambda g: seen.append(g))
    c = d * 2.0 + d * 3.0
    c.register_hook(lambda g: seen.append(g))
    gelu(c * 1.0).sum().backward()
    a.grad.mul_(0.0)
    return seen


@script
def hooks_come_off(lib):
    a = make(lib, 3)
    one = a.register_hook(lambda g: g * 2.0)
    two = a.register_hook(lambda g: g * 5.0)
    one.remove()
    a.sum().backward()
    first = a.grad.clone()
    two.remove()
    two.remove()
    a.sum().backward()
    return first, a.grad


@script
def a_hook_on_a_leaf_gets_the_sum(lib):
    a = make(lib, 3)
    seen = []
    a.register_hook(lambda g: seen.append(g.clone()))
    (a * 2.0 + a * 3.0).sum().backward()
    return seen, a.grad


@script
def hooks_act_in_grad_too(lib):
    a = make(lib, 3)
    b = a * 2.0
    b.register_hook(lambda g: g * 7.0)
    y = (b * b).sum()
    return lib.autograd.grad(y, a, retain_graph=True), lib.autograd.grad(y, b)


@script
def hooks_are_recorded(lib):
    a = make(lib, 3)
    b = a * 2.0
    b.register_hook(lambda g: g * g)
    (g,) = lib.autograd.grad((b**3).sum(), a, create_graph=True)
    return g, lib.autograd.grad(g.sum(), a)


@script
def a_hook_of_another_shape(lib):
    a = make(lib, 3)
    a.register_hook(lambda g: g[:2])
    a.sum().backward()


@script
def retained_gradients(lib):
    a = make(lib, 3)
    b = a * 2.0
    c = b.exp()
    b.retain_grad()
    b.retain_grad()
    a.retain_grad()
    c.sum().backward(retain_graph=True)
    c.sum().backward()
    return a.grad, b.grad, b.retains_grad, a.retains_grad, c.retains_grad


@script
def retained_gradients_follow_changes_in_place(lib):
    a = make(lib, 3)
    b = a * 2.0
    b.retain_grad()
    b.mul_(3.0)
    c = b.exp()
    b.add_(1.0)
    try:
        (c + b).sum().backward()
    except RuntimeError:
        return "damaged"
    return a.grad, b.grad


@script
def retained_gradients_after_a_change(lib):
    a = make(lib, 3)
    b = a * 2.0
    b.retain_grad()
    b.mul_(3.0)
    (b * 5.0).sum().backward()
    return a.grad, b.grad


@script
def hooks_on_parts(lib):
    a = make(lib, 5, 3)
    b, c = (a * 2.0).split([2, 3])
    seen = []
    b.register_hook(lambda g: seen.append(g) or g * 10.0)
    c.retain_grad()
    (b * 3.0).sum().backward(retain_graph=True)
    (b.sum() + (c * c).sum()).backward()
    return seen, a.grad, c.grad


@script
def backward_inside_a_hook(lib):
    a, b = make(lib, 3), make(lib, 3)

    def hook(g):
        with lib.enable_grad():
            (b * g.detach()).sum().backward()

    c = a * 2.0
    c.register_hook(hook)
    (c * c).sum().backward()
    return a.grad, b.grad


@script
def backward_inside_backward(lib):
    class Inner(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            with lib.enable_grad():
                x = x.detach().requires_grad_()
                y = (x**3).sum()
            ctx.x, ctx.y = x, y
            return y.detach()

        @staticmethod
        def backward(ctx, g):
            (slope,) = lib.autograd.grad(ctx.y, ctx.x)
            return g * slope

    a = make(lib, 3)
    (Inner.apply(a * 2.0) * 5.0).backward()
    return a.grad


@script
def hooks_on_what_needs_no_gradient(lib):
    make(lib, 3, grad=False).register_hook(print)


# ---- partial graphs


@script
def gradients_of_inner_nodes(lib):
    a, b = make(lib, 3), make(lib, 3)
    c = a * b
    d = c.exp() + a
    return lib.autograd.grad(d.sum(), [c, a, b, d])


@script
def nothing_reaches_dot_grad(lib):
    a = make(lib, 3)
    lib.autograd.grad((a * a).sum(), a)
    return a.grad


@script
def unused_inputs_raise(lib):
    a, b = make(lib, 3), make(lib, 3)
    lib.autograd.grad((a * a).sum(), [a, b])


@script
def unused_inputs_are_none_or_zeros(lib):
    a, b = make(lib, 3), make(lib, 5)
    return (
        lib.autograd.grad((a * a).sum(), [a, b], allow_unused=True),
        lib.autograd.grad((a * a).sum(), [a, b], materialize_grads=True),
    )


@script
def several_outputs(lib):
    a = make(lib, 3)
    b, c = a.exp(), (a * a).sum()
    return lib.autograd.grad([b, c], a, [lib.ones_like(b) * 2.0, None])


@script
def an_output_as_input(lib):
    a = make(lib, 3)
    b = a * 2.0
    return lib.autograd.grad(b.sum(), [b]), lib.autograd.grad(b, b, lib.ones_like(b))


@script
def inputs_of_backward(lib):
    a, b = make(lib, 3), make(lib, 3)
    c = a * b
    c.sum().backward(inputs=[a], retain_graph=True)
    c.sum().backward(inputs=a)
    return a.grad, b.grad


@script
def inputs_of_backward_inside(lib):
    a = make(lib, 3)
    b = a * 2.0
    (b * b).sum().backward(inputs=[b, a])
    return a.grad


@script
def no_inputs_of_backward(lib):
    (make(lib, 3) * 2.0).sum().backward(inputs=[])


@script
def inputs_that_need_no_gradient(lib):
    a = make(lib, 3)
    lib.autograd.grad((a * a).sum(), make(lib, 3, grad=False))


@script
def one_path_can_be_walked_after_another_was_freed(lib):
    a, b = make(lib, 3), make(lib, 3)
    c, d = a.exp(), b.exp()
    e = c + d
    lib.autograd.grad(e.sum(), a)
    return lib.autograd.grad(e.sum(), b)


@script
def a_freed_path_is_refused(lib):
    a = make(lib, 3)
    c = a.exp().sum()
    lib.autograd.grad(c, a)
    lib.autograd.grad(c, a)


@script
def third_derivatives(lib):
    a = make(lib, 3)
    y = (a**4).sum() + (a.tanh() * a.exp()).sum()
    out = []
    for _ in range(3):
        (g,) = lib.autograd.grad(y, a, create_graph=True)
        out.append(g)
        y = g.sum()
    return out


@script
def gradients_through_gradients_arriving(lib):
    a, seed = make(lib, 3), make(lib, 3).detach().requires_grad_()
    (g,) = lib.autograd.grad(a.sin(), a, seed, create_graph=True)
    return lib.autograd.grad(g.sum(), [a, seed])


# ---- names


@script
def flags_of_leaves_and_others(lib):
    a, c = make(lib, 3), make(lib, 3, grad=False)
    b = a * c
    i = lib.argmax(a)
    rows = []
    for x in (a, c, b, b.detach(), b.data, i, a > 0, b[0], b.clone()):
        rows.append((x.requires_grad, x.is_leaf, x.grad_fn is None, x.grad is None))
    return rows


@script
def requires_grad_can_be_switched(lib):
    a = make(lib, 3)
    a.requires_grad_(False)
    b = (a * 2.0).requires_grad
    a.requires_grad = True
    c = (a * 2.0).requires_grad
    return b, c, a.requires_grad_() is a


@script
def a_frozen_leaf_keeps_its_gradient(lib):
    a, b = make(lib, 3), make(lib, 3)
    (a * b).sum().backward()
    a.requires_grad_(False)
    (a * b).sum().backward()
    return a.grad, b.grad


# ---- modes


@script
def no_grad_in_every_form(lib):
    a = make(lib, 3)

    @lib.no_grad()
    def f(x):
        return x * 2.0

    @lib.enable_grad()
    def g(x):
        return x * 2.0

    @lib.no_grad
    def h(x):
        return x * 2.0

    with lib.no_grad():
        one, two = (a * 2.0).requires_grad, g(a).requires_grad
        with lib.enable_grad():
            three = (a * 2.0).requires_grad
        four = lib.is_grad_enabled()
    return one, two, three, four, f(a).requires_grad, h(a).requires_grad, lib.is_grad_enabled()


@script
def no_grad_around_generators(lib):
    seen = []

    @lib.no_grad()
    def tokens(n):
        got = None
        try:
            for i in range(n):
                seen.append(lib.is_grad_enabled())
                got = yield (i, got)
        except KeyError:
            seen.append(lib.is_grad_enabled())
            yield "caught"
        finally:
            seen.append(lib.is_grad_enabled())
        return "end"

    def outer():
        return (yield from tokens(2))

    def drain(generator):
        out = []
        try:
            out.append(next(generator))
            seen.append(lib.is_grad_enabled())
            while True:
                out.append(generator.send("sent"))
        except StopIteration as stop:
            return [*out, stop.value]

    first = drain(outer())
    thrown = tokens(5)
    next(thrown)
    second = thrown.throw(KeyError)
    thrown.close()
    return str(first), second, seen, lib.is_grad_enabled()


@script
def set_grad_enabled_acts_at_once(lib):
    a = make(lib, 3)
    lib.set_grad_enabled(False)
    one = (a * 2.0).requires_grad
    lib.set_grad_enabled(True)
    with lib.set_grad_enabled(False):
        two = (a * 2.0).requires_grad
    three = (a * 2.0).requires_grad

    @lib.set_grad_enabled(False)
    def f(x):
        return x * 2.0

    return one, two, three, f(a).requires_grad, lib.is_grad_enabled()


@script
def an_error_leaves_the_mode(lib):
    try:
        with lib.no_grad():
            raise KeyError
    except KeyError:
        pass
    return lib.is_grad_enabled()


@script
def leaves_made_without_grad_mode(lib):
    with lib.no_grad():
        a = make(lib, 3)
    (a * 2.0).sum().backward()
    return a.requires_grad, a.grad


@script
def backward_inside_no_grad(lib):
    a = make(lib, 3)
    y = (a**3).sum()
    with lib.no_grad():
        (g,) = lib.autograd.grad(y, a, create_graph=True)
    return g.requires_grad, lib.autograd.grad(g.sum(), a)


@script
def inference_tensors(lib):
    a = make(lib, 3)
    with lib.inference_mode():
        b = a * 2.0
        inside = lib.is_inference_mode_enabled(), b.requires_grad, b.is_inference()
    with lib.inference_mode(False):
        c = a * 2.0
    return inside, a.is_inference(), c.requires_grad, c.is_inference(), lib.is_grad_enabled()


@script
def inference_tensors_never_need_gradients(lib):
    with lib.inference_mode():
        b = make(lib, 3, grad=False) * 2.0
    b.requires_grad_()


@script
def a_clone_of_an_inference_tensor_is_ordinary(lib):
    with lib.inference_mode():
        b = make(lib, 3, grad=False) * 2.0
    c = b.clone()
    a = make(lib, 3)
    (a * c).sum().backward()
    return c.is_inference(), c.requires_grad_().requires_grad, a.grad


@pytest.mark.filterwarnings(
    "ignore:Using backward:UserWarning", "ignore:The .grad attr:UserWarning"
)
@pytest.mark.parametrize("function", SCRIPTS, ids=lambda f: f.__name__)
def test_the_libraries_agree(function):
    the_same(function)


def test_a_mode_object_can_be_entered_twice():
    mode = tg.no_grad()
    with mode:
        with mode:
            pass
        assert not tg.is_grad_enabled()
    assert tg.is_grad_enabled()
