"""In-place changes through views, drawn at random: values and gradients as in PyTorch."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorgrad as tg

ROWS, COLS = 3, 5


def views(shape):
    """A way to look at part of a tensor of this shape, as a function of either library's tensors."""
    ways = []
    if shape:
        n = shape[0]
        ways += [
            st.integers(0, n - 1).map(lambda i: lambda x: x[i]),
            st.tuples(st.integers(0, n - 1), st.integers(1, n)).map(
                lambda p: lambda x: x[p[0] : max(p[0] + 1, p[1])]
            ),
            st.just(lambda x: x[::2]),
            st.just(lambda x: x[None]),
            st.just(lambda x: x.reshape(-1)),
            st.just(lambda x: x.split(1, 0)[-1]),
            st.just(lambda x: x.unbind(0)[0]),
            st.just(lambda x: x.detach() if False else x[...]),
        ]
    if len(shape) > 1:
        n = shape[1]
        ways += [
            st.integers(0, n - 1).map(lambda i: lambda x: x[:, i]),
            st.just(lambda x: x.transpose(0, 1)),
            st.just(lambda x: x.permute(*range(x.ndim)[::-1])),
            st.just(lambda x: x[:, 1:]),
        ]
    return st.one_of(ways)


CHANGES = [
    ("add_", lambda x, y: x.add_(y)),
    ("mul_", lambda x, y: x.mul_(y)),
    ("sub number", lambda x, y: x.sub_(0.5)),
    ("mul number", lambda x, y: x.mul_(1.5)),
    ("iadd", lambda x, y: x.__iadd__(y)),
    ("copy_", lambda x, y: x.copy_(y)),
    ("fill_", lambda x, y: x.fill_(0.25)),
    ("zero_", lambda x, y: x.zero_()),
    ("tanh_", lambda x, y: x.tanh_()),
    ("sin_", lambda x, y: x.sin_()),
    ("setitem", lambda x, y: x.__setitem__(..., y)),
    ("setitem number", lambda x, y: x.__setitem__(..., 0.75)),
]


@st.composite
def programs(draw):
    """A list of steps over a growing list of tensors: (kind, which, argument)."""
    steps = []
    shapes = [(ROWS, COLS), (ROWS, COLS), ()]  # buffer, another, number
    for _ in range(draw(st.integers(1, 9))):
        kind = draw(st.sampled_from(["view", "view", "change", "change", "use", "use", "chain"]))
        i = draw(st.integers(0, len(shapes) - 1))
        if kind == "view":
            if not shapes[i]:
                continue
            way = draw(views(shapes[i]))
            shapes.append(tuple(way(torch.empty(shapes[i])).shape))
            steps.append((kind, i, way))
        elif kind == "change":
            change = draw(st.sampled_from(CHANGES))
            fitting = [j for j, s in enumerate(shapes) if s in (shapes[i], ())]
            steps.append((kind, i, (change[1], draw(st.sampled_from(fitting)))))
        else:
            shapes.append(shapes[i])
            steps.append((kind, i, None))
    return steps


def play(lib, steps, data, recorded):
    """The tensors of a program and the gradients of the leaves, or the message of what refused."""
    leaves = [lib.tensor(a) for a in data]
    for leaf, grad in zip(leaves, recorded, strict=True):
        leaf.requires_grad_(grad)
    tensors = [leaf * 1.0 for leaf in leaves]
    total = 0.0
    for kind, i, argument in steps:
        x = tensors[i]
        if kind == "view":
            tensors.append(argument(x))
        elif kind == "change":
            change, j = argument
            change(x, tensors[j])
        else:
            y = (x * 1.25) if kind == "use" else lib.sin(x)
            total = total + (y * y).sum()
            tensors.append(y)
    total = total + sum((x * (0.5 + k)).sum() for k, x in enumerate(tensors))
    values = [x.detach().numpy().copy() for x in tensors]
    grads = []
    if total.requires_grad:
        total.backward()
        grads = [leaf.grad for leaf in leaves]
    return values, [None if g is None else g.numpy() for g in grads]


@settings(max_examples=300)
@given(programs(), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_programs_of_views_and_changes(steps, recorded):
    random = np.random.default_rng(0)
    data = [random.normal(size=(ROWS, COLS)), random.normal(size=(ROWS, COLS)), np.array(0.5)]
    try:
        expected = play(torch, steps, data, recorded)
    except RuntimeError as error:
        expected = str(error)
    try:
        found = play(tg, steps, data, recorded)
    except RuntimeError as error:
        if isinstance(expected, str):
            return
        raise AssertionError(f"refused what PyTorch does: {error}") from error
    assert not isinstance(expected, str), f"did what PyTorch refuses: {expected}"
    for mine, theirs in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(found[1], expected[1], strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9)
