"""Graphs at large: memory, damage, histories in place, quick paths beside plain ones."""

import gc
import weakref
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorgrad as tg
from tensorgrad import autograd, memory, mode, views
from tensorgrad.backend import is_array
from tensorgrad.flat import flatten
from tensorgrad.op import PICK
from tests.ops.table import ROWS, Row


def numbers(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


def leaf(*shape):
    return tg.tensor(numbers(*shape), requires_grad=True)


@contextmanager
def no_collector():
    """Only reference counts free anything inside, and they free everything."""
    gc.collect()
    gc.disable()
    try:
        yield
        assert gc.collect() == 0
    finally:
        gc.enable()


# ---- memory


def test_forward_without_backward_leaves_nothing():
    w = leaf(5, 5)
    tg.softmax(w, -1)  # loads its kernel
    with no_collector():
        y = tg.softmax(tg.tanh(w) @ w, -1).split(2, 1)[0]
        alive = [weakref.ref(y), weakref.ref(y.node), weakref.ref(y.array)]
        del y
        assert [ref() for ref in alive] == [None] * 3


def test_a_long_chain_without_backward_is_freed():
    y = leaf(3)
    with no_collector():
        for _ in range(50_000):
            y = tg.sin(y * 1.0)
        del y


def test_backward_frees_as_it_goes():
    x = leaf(3)
    h = tg.exp(x)
    y = tg.exp(h)
    kept = weakref.ref(y.array)
    seen = []
    h.register_hook(lambda g: seen.append(kept()))
    total = (y + 1.0).sum()
    del y
    total.backward()
    assert seen == [None]


def test_in_place_histories_are_forgotten_without_backward():
    """exp keeps its result, which is then changed: a circle through the note of the change."""

    def leaves_a_circle():
        y = tg.exp(leaf(3, 5))
        y.add_(1.0)
        assert memory.notes and mode.careful
        return weakref.ref(y.array)

    gc.collect()
    arrays = [leaves_a_circle() for _ in range(20)]
    assert len(memory.notes) < 12  # swept on the way
    views.sweep()
    assert not any(array() is not None for array in arrays)
    assert not memory.notes and not mode.careful


def test_a_circle_is_found_by_use_alone():
    """Nobody sweeps by hand: the careful callers look around now and then."""
    y = tg.exp(leaf(3, 5))
    y.add_(1.0)
    array = weakref.ref(y.array)
    del y
    z = leaf(3, 5) * 1.0
    view = z[1:]
    z[2].mul_(2.0)  # a note that somebody reads
    for _ in range(100_000):
        view * 1.0
        if array() is None:
            break
    assert array() is None


# ---- changes in place


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y.mul_(2.0), lambda y: y.__setitem__(0, 1.0), lambda y: y[1:].zero_(),
        lambda y: y.detach().add_(1.0), lambda y: y.copy_(tg.ones(3)), lambda y: y.normal_(),
        lambda y: y.__iadd__(1.0), lambda y: y.fill_(tg.tensor(2.0)), lambda y: y.tanh_(),
    ],
)  # fmt: skip
def test_every_way_to_change_is_noticed(change):
    y = leaf(3) * 1.0
    z = tg.sin(y)
    change(y)
    with pytest.raises(RuntimeError, match=r"backward: sin keeps 'x', shape \(3,\), .* in place"):
        z.sum().backward()


def test_a_buffer_filled_row_by_row():
    """The recurrence that writes h[t + 1] = f(h[t]) into one buffer."""
    w = leaf(5)
    h = tg.zeros(7, 5, dtype=tg.float64)
    h[0] = w
    for t in range(6):
        h[t + 1] = tg.sin(h[t]) + w
    (h * h).sum().backward()
    tw = torch.tensor(w.detach().numpy(), requires_grad=True)
    rows = [tw]
    for _ in range(6):
        rows.append(torch.sin(rows[-1]) + tw)
    (torch.stack(rows) ** 2).sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), tw.grad.numpy(), rtol=1e-12)


def test_views_of_leaves_are_refused_before_anything_happens():
    x = leaf(3)
    before = x.detach().numpy().copy()
    for change in (lambda: x[1:].mul_(2.0), lambda: x.reshape(3, 1).zero_(), lambda: x.T.add_(x)):
        with pytest.raises(RuntimeError, match="this is a view of a leaf that requires grad"):
            change()
    np.testing.assert_array_equal(x.detach().numpy(), before)
    x.reshape(3, 1).transpose(0, 1).clone().mul_(2.0)
    with tg.no_grad():
        x[1:].mul_(2.0)
    assert x.requires_grad and x.is_leaf


def test_a_copy_has_a_node_of_its_own():
    """y.copy_(h): hooks on y see the gradient that reaches y, not all that reaches h."""
    x = leaf(3)
    h = x * 2.0
    y, z = tg.zeros(3, dtype=tg.float64), tg.zeros(3, dtype=tg.float64)
    y.copy_(h)
    seen = []
    y.register_hook(lambda g: seen.append(g.tolist()))
    (y * 3.0 + h * 5.0).sum().backward()
    assert seen == [[3.0] * 3] and x.grad.tolist() == [16.0] * 3
    z.copy_(x)
    assert not z.is_leaf
    z.add_(1.0)


def test_what_a_tensor_says_of_itself_after_a_change_elsewhere():
    buffer = tg.zeros(3, 5, dtype=tg.float64)
    row, other = buffer[1], buffer[2]
    w = leaf(5)
    row.copy_(w)
    assert buffer.requires_grad and not buffer.is_leaf and buffer.grad_fn is not None
    assert not other.requires_grad
    (g,) = autograd.grad(buffer[1:].sum(), w)
    assert g.tolist() == [1.0] * 5
    buffer.retain_grad()
    (row * 2.0).sum().backward()
    assert w.grad.tolist() == [2.0] * 5
    buffer.sum().backward()
    assert buffer.grad.tolist() == [[1.0] * 5] * 3


def test_a_value_of_another_dtype_and_shape():
    w = tg.tensor(numbers(1, 5), dtype=tg.float32, requires_grad=True)
    x = tg.zeros(3, 5, dtype=tg.float64)
    x[1:] = w
    (x * x).sum().backward()
    assert w.grad.dtype == tg.float32
    np.testing.assert_allclose(w.grad.numpy(), 4 * w.detach().numpy(), rtol=1e-6)


def test_elements_are_views():
    x = tg.zeros(3, 5)
    one, also, last = x[1][2], x[1, 3], x.unbind(0)[2].unbind(0)[4]
    one.add_(1.0)
    also.fill_(2.0)
    last.sub_(3.0)
    assert x.tolist()[1] == [0, 0, 1, 2, 0] and x[2, 4].item() == -3
    assert tg.flip(x, [0]).array.base is None


# ---- the quick paths beside the plain one


def calls_of(row: Row):
    """The op calls that a row makes: (op, operands, parameters)."""
    seen = []
    mode.be_careful(1)
    mode.thread.watchers = (lambda op, values, params, *_: seen.append((op, list(values), params)),)
    try:
        row.call(tg, *[tg.tensor(a) for a in row.inputs()])
    finally:
        mode.thread.watchers = ()
        mode.be_careful(-1)
    return seen


def same_kept(one, two):
    """Equal structure, equal numbers."""
    if is_array(one) or is_array(two):
        np.testing.assert_array_equal(one, two, strict=True)
    elif isinstance(one, (tuple, list)):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            same_kept(a, b)
    else:
        assert one == two


def trunk(x):
    node = x.node
    return node.parents[0] if node is not None and node.op is PICK else node


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_flattened_callers_do_what_the_op_does(row: Row):
    for op, values, params in calls_of(row):
        if not hasattr(op, "impls") or op.variadic:
            continue
        quick = flatten(op)
        floats = [is_array(v) and v.dtype.kind == "f" for v in values]
        for needed in {tuple(floats), (False,) * len(floats), (True, *[False] * len(floats[1:]))}:
            inputs = [
                tg.Tensor(v).requires_grad_(f and n) if is_array(v) else v
                for v, f, n in zip(values, floats, needed, strict=True)
            ]
            mine, plain = quick(*inputs, *params), op(*inputs, *params)
            mine, plain = ((r,) if type(r) is tg.Tensor else tuple(r) for r in (mine, plain))
            for a, b in zip(mine, plain, strict=True):
                assert type(a) is tg.Tensor and a.grad is None
                np.testing.assert_array_equal(a.array, b.array, strict=True)
                one, two = trunk(a), trunk(b)
                assert (one is None) == (two is None)
                if one is not None and two is not None:
                    assert (one.op, one.parents, one.shape) == (two.op, two.parents, two.shape)
                    assert one.born > max(p.born for p in one.parents if p is not None)
                    same_kept(one.kept, two.kept)


@st.composite
def expressions(draw):
    """Steps over a growing list of (3, 5) values: (what, which, which)."""
    names = [
        "exp", "tanh", "sin", "sigmoid", "gelu", "neg", "rows", "turn", "split", "add", "sub",
        "mul", "self",
    ]  # fmt: skip
    return [
        (draw(st.sampled_from(names)), draw(st.integers(0, k + 1)), draw(st.integers(0, k + 1)))
        for k in range(draw(st.integers(1, 12)))
    ]


def value(lib, steps, leaves):
    gelu = tg.nn.functional.gelu if lib is tg else torch.nn.functional.gelu
    xs = list(leaves)
    for name, i, j in steps:
        x, y = xs[i], xs[j]
        if name == "rows":
            z = x.sum(0, keepdim=True) * 0.2 + y[1] + x * 0.0
        elif name == "turn":
            z = x.T.reshape(3, 5) * 0.5
        elif name == "split":
            a, b, c = x.split([1, 3, 1], 1)
            z = lib.cat([c, a, b * 2.0], 1)
        elif name == "self":
            z = x + x
        elif name == "gelu":
            z = gelu(x)
        elif name in ("add", "sub", "mul"):
            z = getattr(lib, name)(x, y) * 0.5
        else:
            z = getattr(lib, name)(x)
        xs.append(lib.tanh(z) if name in ("exp", "mul") else z)
    return sum((x * (1.0 + 0.1 * k)).sum() for k, x in enumerate(xs))


@settings(max_examples=2500)
@given(expressions())
def test_random_graphs_equal_torch_and_their_own_recording(steps):
    """Nodes shared, doubled, in parts: plain and recorded backward, torch, forward mode."""
    data = numbers(3, 5), numbers(2, 3, 5)[1]
    mine = [tg.tensor(a, requires_grad=True) for a in data]
    theirs = [torch.tensor(a, requires_grad=True) for a in data]
    total, other = value(tg, steps, mine), value(torch, steps, theirs)
    np.testing.assert_allclose(total.item(), other.item(), rtol=1e-9)
    other.backward()
    recorded = autograd.grad(total, mine, retain_graph=True, create_graph=True)
    plain = autograd.grad(total, mine, retain_graph=True)
    total.backward()
    for x, y, r, p in zip(mine, theirs, recorded, plain, strict=True):
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(r.detach().numpy(), x.grad.numpy(), rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(p.numpy(), x.grad.numpy())
    points = tuple(x.detach() for x in mine)
    along = tuple(tg.ones_like(x) for x in points)
    _, slope = tg.func.jvp(lambda *xs: value(tg, steps, xs), points, along)
    expected = sum(x.grad.sum().item() for x in mine)
    np.testing.assert_allclose(slope.item(), expected, rtol=1e-9, atol=1e-9)
