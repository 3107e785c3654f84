"""The engine: what a step leaves behind, who owns gradients, damage, threads, partial graphs."""

import contextlib
import copy
import gc
import threading
import weakref

import numpy as np
import pytest
import torch

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import Tensor, mode
from tensorgrad.op import Op, table


def leaf(*shape, seed=0):
    array = np.random.default_rng(seed).standard_normal(shape)
    return tg.tensor(array, requires_grad=True)


# ---- memory and depth


def test_a_training_step_leaves_nothing_for_the_collector():
    w, b = leaf(7, 5), leaf(5, seed=1)
    x, y = tg.tensor(np.random.default_rng(2).standard_normal((3, 7))), tg.tensor([0, 4, 2])

    def step():
        w.grad = b.grad = None
        h = (x @ w + b).tanh()
        q, k = h.split([2, 3], dim=1)
        loss = F.cross_entropy(tg.cat([k, q], 1), y) + h.square().mean()
        loss.backward()
        for p in (w, b):
            p.data -= 0.1 * p.grad
        return weakref.ref(h), weakref.ref(loss.node), loss.item()

    first = step()[2]
    gc.collect()
    gc.disable()
    try:
        tensor, node, last = step()
        assert tensor() is None
        assert node() is None
        assert gc.collect() == 0
    finally:
        gc.enable()
    assert last < first


def test_a_chain_of_100_000_ops():
    x = tg.tensor([1.0, 2.0], dtype=tg.float64, requires_grad=True)
    y = x
    for _ in range(100_000):
        y = y + 1e-5
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]
    np.testing.assert_allclose(y.detach().numpy(), [2.0, 3.0], rtol=1e-9)
    del y  # freed without recursion, too


def test_arrays_are_freed_as_backward_passes_them():
    x = leaf(5, 7)
    h = x.exp()
    kept = weakref.ref(h.array)
    loss = (h * 2).sum()
    del h
    assert kept() is not None
    loss.backward()
    assert kept() is None


def test_a_second_backward_says_what_to_do():
    x = leaf(3)
    y = x.exp().sum()
    y.backward()
    with pytest.raises(RuntimeError, match=r"exp.*freed.*retain_graph=True"):
        y.backward()


def test_retain_graph_accumulates():
    x = leaf(3)
    y = x.exp().sum()
    y.backward(retain_graph=True)
    once = x.grad.clone()
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * once.numpy())


def test_a_graph_that_keeps_nothing_can_run_twice():
    x = leaf(3)
    y = (x + x).sum()
    y.backward()
    y.backward()
    assert x.grad.tolist() == [4.0] * 3


# ---- who owns a gradient


def test_clipping_one_gradient_leaves_the_other():
    a, b = leaf(3), leaf(3, seed=1)
    (a + b).sum().backward()
    a.grad.mul_(0.5)
    assert b.grad.tolist() == [1.0] * 3


def test_gradients_share_with_nobody():
    x, g = leaf(5, 3), tg.tensor(np.ones((3, 5)))
    y = x.transpose(0, 1)
    y.backward(g)
    assert x.grad.array.flags.c_contiguous
    assert not np.shares_memory(x.grad.array, g.array)
    x.grad.fill_(7.0)
    assert g.array.max() == 1.0


def test_the_gradient_given_is_left_alone():
    x, g = leaf(3), tg.tensor(np.ones(3))
    ((x * 2) + x).backward(g)
    (x.tanh() + x).backward(g)
    assert g.tolist() == [1.0] * 3


def test_a_stretched_gradient_becomes_a_whole_one():
    x = leaf(5, 7)
    x.sum().backward()
    x.grad[0, 0] = 3.0
    assert x.grad.sum().item() == 5 * 7 + 2


def test_the_same_tensor_twice():
    x = leaf(3)
    (x * x + x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * x.detach().numpy() + 1)


def test_reused_buffers_do_not_reach_what_others_hold():
    """gelu may write over its gradient; what the caller or retain_grad holds must not change."""
    array = np.random.default_rng(0).standard_normal((64, 64))
    x, g = tg.tensor(array, requires_grad=True), tg.tensor(np.ones((64, 64)))
    h = F.gelu(x * 1.0, approximate="tanh")
    h.retain_grad()
    h.backward(g)
    assert (g.array == 1).all()
    assert (h.grad.array == 1).all()
    h = F.gelu(x * 1.0, approximate="tanh")
    seen = []
    h.register_hook(lambda grad: seen.append(grad))
    (h * 2.0).sum().backward()
    assert (seen[0].array == 2).all()
    part = tg.autograd.grad((F.gelu(x * 1.0, "tanh") * 3.0).sum(), x)[0]
    want = torch.tensor(array, requires_grad=True)
    (torch.nn.functional.gelu(want, approximate="tanh") * 3).sum().backward()
    np.testing.assert_allclose(part.numpy(), want.grad.numpy(), rtol=1e-9)


# ---- hooks, retain_grad


def test_a_hook_on_a_leaf_gets_the_sum():
    x, seen = leaf(3), []
    x.register_hook(lambda g: seen.append(g.tolist()))
    (x * 2 + x * 3).sum().backward()
    assert seen == [[5.0] * 3]


def test_what_a_hook_returns_replaces_the_gradient():
    x = leaf(3)
    y = x * 2
    handle = y.register_hook(lambda g: g * 10)
    y.sum().backward(retain_graph=True)
    assert x.grad.tolist() == [20.0] * 3
    handle.remove()
    x.grad = None
    (y + 0).sum().backward()
    assert x.grad.tolist() == [2.0] * 3


def test_a_hook_of_the_wrong_shape():
    x = leaf(3)
    x.register_hook(lambda g: g.sum())
    with pytest.raises(RuntimeError, match="shape"):
        (x * 2).sum().backward()


def test_retain_grad():
    x = leaf(3)
    y = x * 2
    y.retain_grad()
    (y * y).sum().backward()
    np.testing.assert_allclose(y.grad.numpy(), 2 * y.detach().numpy())
    with pytest.raises(RuntimeError, match="does not require grad"):
        tg.ones(2).retain_grad()


# ---- in-place damage


def test_damage_is_refused_with_the_op_and_the_shape():
    x = leaf(3, 5)
    y = x.exp()
    y.add_(1)
    with pytest.raises(RuntimeError, match=r"exp keeps 'out', shape \(3, 5\).*changed in place"):
        y.sum().backward()


def test_data_escapes_the_check_and_detach_does_not():
    x = leaf(3)
    y = x.exp()
    y.data.zero_()
    y.sum().backward()
    assert x.grad.tolist() == [0.0] * 3
    x.grad = None
    y = x.exp()
    y.detach().zero_()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


def test_disjoint_parts_do_no_harm():
    buffer = tg.zeros(4, 3, dtype=tg.float64)
    x = leaf(3)
    y = x * buffer[0]
    buffer[1] = 5.0
    y.sum().backward()
    assert x.grad.tolist() == [0.0] * 3
    y = x * buffer[1]
    buffer[1, 2] = 6.0
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


def test_an_optimiser_step_between_forward_and_backward_is_damage():
    w, x = leaf(3), leaf(3, seed=1)
    loss = (w * x).sum()
    with tg.no_grad():
        w.sub_(0.1)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_a_leaf_is_not_changed_in_place():
    x = leaf(3)
    for change in (
        lambda: x.add_(1),
        lambda: x.zero_(),
        lambda: x[0].mul_(2),
        lambda: x.__setitem__(0, 1.0),
    ):
        with pytest.raises(RuntimeError, match="leaf"):
            change()
    with tg.no_grad():
        x.add_(1)
    assert x.requires_grad
    assert x.is_leaf


# ---- partial graphs


def test_grad_runs_only_what_lies_between():
    x, w = leaf(3), leaf(3, seed=1)
    h = x * w
    y = h.tanh().sum()
    (gh,) = tg.autograd.grad(y, h)
    assert x.grad is None
    assert w.grad is None
    np.testing.assert_allclose(gh.numpy(), 1 - np.tanh(h.detach().numpy()) ** 2)


def test_unused_inputs():
    x, z = leaf(3), leaf(2, seed=1)
    with pytest.raises(RuntimeError, match="do not depend on input 1"):
        tg.autograd.grad((x * 2).sum(), (x, z))
    assert tg.autograd.grad((x * 2).sum(), (x, z), allow_unused=True)[1] is None
    assert tg.autograd.grad((x * 2).sum(), (x, z), materialize_grads=True)[1].tolist() == [0.0, 0.0]


def test_backward_for_some_inputs():
    x, w = leaf(3), leaf(3, seed=1)
    (x * w).sum().backward(inputs=[w])
    assert x.grad is None
    np.testing.assert_allclose(w.grad.numpy(), x.detach().numpy())


def test_outputs_with_gradients_of_their_own():
    x = leaf(5)
    a, b, c = x.split([1, 2, 2])
    b.backward(tg.tensor([2.0, 3.0], dtype=tg.float64))
    assert x.grad.tolist() == [0.0, 2.0, 3.0, 0.0, 0.0]
    assert a.shape == (1,)
    assert c.shape == (2,)


@pytest.mark.parametrize(
    ("call", "kind", "match"),
    [
        (lambda x: (x * 2).backward(), RuntimeError, r"scalar outputs.*\(3,\)"),
        (lambda x: x.detach().sum().backward(), RuntimeError, "does not require grad"),
        (lambda x: (x * 2).backward(tg.ones(2)), RuntimeError, r"\(2,\).*\(3,\)"),
        (lambda x: tg.tensor([1, 2], requires_grad=True), RuntimeError, "floating-point"),
        (lambda x: (x * 2).requires_grad_(False), RuntimeError, "only leaves"),
        (lambda x: (x * 2).numpy(), RuntimeError, "detach"),
        (lambda x: x.item(), RuntimeError, "3 elements"),
        (lambda x: bool(x > 0), RuntimeError, "truth value"),
        (lambda x: copy.deepcopy(x * 2), RuntimeError, "only leaves"),
    ],
)
def test_sentences(call, kind, match):
    with pytest.raises(kind, match=match):
        call(leaf(3))


# ---- modes and threads


def test_modes():
    x = leaf(3)
    with tg.no_grad():
        assert not (x * 2).requires_grad
        with tg.enable_grad():
            assert (x * 2).requires_grad
    assert (x * 2).requires_grad

    @tg.no_grad()
    def f(x):
        return x * 2

    @tg.no_grad
    def g(x):
        return x * 2

    assert not f(x).requires_grad
    assert not g(x).requires_grad
    tg.set_grad_enabled(False)
    try:
        assert not (x * 2).requires_grad
    finally:
        tg.set_grad_enabled(True)
    with tg.set_grad_enabled(False):
        assert not tg.is_grad_enabled()
    assert tg.is_grad_enabled()
    with tg.inference_mode():
        y = x * 2
        assert tg.is_inference_mode_enabled()
    assert not y.requires_grad


def test_modes_are_undone_by_errors_and_cost_nothing_afterwards():
    before = tg.mode.careful
    with pytest.raises(ZeroDivisionError), tg.no_grad():
        1 / 0
    assert tg.is_grad_enabled()
    assert tg.mode.careful == before


def test_no_grad_is_of_one_thread():
    x, entered, leave, seen = leaf(3), threading.Event(), threading.Event(), []

    def other():
        with tg.no_grad():
            entered.set()
            leave.wait(10)
            seen.append((x * 2).requires_grad)

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)
    assert (x * 2).requires_grad
    leave.set()
    thread.join()
    assert seen == [False]


def test_backward_in_two_threads():
    results = {}

    def run(seed):
        x = leaf(31, 17, seed=seed)
        for _ in range(20):
            x.grad = None
            (x.tanh() @ x.transpose(0, 1)).sum().backward()
        results[seed] = x

    threads = [threading.Thread(target=run, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for x in results.values():
        want = torch.tensor(x.detach().numpy(), requires_grad=True)
        (want.tanh() @ want.T).sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), want.grad.numpy(), rtol=1e-9)


# ---- ops of one's own


def test_ops_from_outside():
    cube = tg.elementwise("cube", lambda xp, x, /: x**3, dx=lambda g, x: g * (3 * x * x))
    x, t = leaf(3, 5), tg.tensor(np.random.default_rng(3).standard_normal((3, 5)))
    try:
        assert tg.autograd.gradcheck(cube, (x,))
        assert tg.autograd.gradgradcheck(cube, (x,))
        value, tangent = tg.func.jvp(cube, (x.detach(),), (t,))
        np.testing.assert_allclose(value.numpy(), x.detach().numpy() ** 3)
        np.testing.assert_allclose(tangent.numpy(), 3 * x.detach().numpy() ** 2 * t.numpy())
        column = leaf(3, 1, seed=4)
        (cube(column) * x).sum().backward()
        assert column.grad.shape == (3, 1)
    finally:
        del table["cube"]


def test_a_rule_that_asks_for_what_is_not_there():
    with pytest.raises(TypeError, match="asks for 'w'"):
        tg.elementwise("wrong", lambda xp, x, /: x, dx=lambda g, w: g)
    with pytest.raises(TypeError, match="dy fits none of the inputs"):
        tg.elementwise("wrong", lambda xp, x, /: x, dx=lambda g: g, dy=lambda g: g)
    table.pop("wrong", None)


# ---- the flattened callers are Op.__call__, written out

CASES = {
    "add": lambda x, y: (x, y),
    "mul": lambda x, y: (x, y),
    "div": lambda x, y: (x, y),
    "pow": lambda x, y: (x, y),
    "mul number": lambda x, y: (x, 2.5),
    "exp": lambda x, y: (x,),
    "tanh": lambda x, y: (x,),
    "sum": lambda x, y: (x, (0,), True),
    "reshape": lambda x, y: (x, (15,)),
    "transpose": lambda x, y: (x, 0, 1),
    "mm": lambda x, y: (x, y.transpose(0, 1)),
    "softmax": lambda x, y: (x, 1),
    "where": lambda x, y: (x > 1, x, y),
    "slice": lambda x, y: (x, 1),
    "layer_norm": lambda x, y: (x, y[0], y[1], 1e-5),
    "gelu": lambda x, y: (x, "tanh"),
    "cumsum": lambda x, y: (x, 1, False),
}


@pytest.mark.parametrize("case", CASES)
def test_flattened_callers(case):
    from tensorgrad.flat import flatten

    op: Op = table[case.split()[0]]
    call = flatten(op)
    x = tg.tensor(np.random.default_rng(0).uniform(0.5, 2, (3, 5)), requires_grad=True)
    y = tg.tensor(np.random.default_rng(1).uniform(0.5, 2, (3, 5)), requires_grad=True)
    args = CASES[case](x, y)
    flat, plain = call(*args), op(*args)
    assert isinstance(flat, Tensor)
    np.testing.assert_array_equal(flat.array, plain.array)
    assert flat.node.op is plain.node.op
    assert flat.node.parents == plain.node.parents
    assert flat.node.shape == plain.node.shape
    assert _equal(flat.node.kept, plain.node.kept)


def _equal(a, b):
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    return a is None and b is None if a is None or b is None else bool(a == b)


def test_a_rule_that_asks_for_one_of_several_outputs():
    """Recorded, it makes a second node for that output; their gradients add up."""
    two = tg.general(
        "two_powers",
        lambda xp, x, /: (x * x, x * x * x),
        outputs=("out", "cube"),
        visible=2,
        dx=lambda g, x, out: g[0] * 2 * x + g[1] * 3 * out,
    )
    try:
        x = tg.tensor([2.0], dtype=tg.float64, requires_grad=True)
        a, b = two(x)
        (g,) = tg.autograd.grad((a * b).sum(), x, create_graph=True)
        (h,) = tg.autograd.grad(g.sum(), x)
        assert (g.item(), h.item()) == (80.0, 160.0)  # x^5
    finally:
        del table["two_powers"]


@pytest.mark.parametrize("other", [False, True])
def test_no_grad_takes_the_quick_way_and_records_nothing(other):
    """Each kind of caller under no_grad; `other`: a second reason to be careful, a watcher's."""
    x, y = (tg.tensor(np.arange(1.0, 7).reshape(2, 3), requires_grad=True) for _ in range(2))
    calls = [
        lambda: x.exp(), lambda: x.sum(1), lambda: x * y, lambda: x @ y.T, lambda: tg.cat([x, y]),
        lambda: x.split(1, 1)[0], lambda: tg.where(x > 2, x, y), lambda: x[0],
        lambda: F.layer_norm(x, (3,)),
    ]  # fmt: skip
    recorded = [call() for call in calls]
    before = mode.careful - mode.resting  # tensors of other tests may be written to with history
    with tg.autograd.detect_anomaly() if other else contextlib.nullcontext(), tg.no_grad():
        assert (mode.careful - mode.resting > before) == other
        plain = [call() for call in calls]
        with tg.enable_grad():
            assert all(call().requires_grad for call in calls)
    assert mode.careful - mode.resting == before and mode.thread.grad
    for a, b in zip(recorded, plain, strict=True):
        assert a.requires_grad and not b.requires_grad and b.node is None
        np.testing.assert_array_equal(a.detach().numpy(), b.numpy())
