"""Shapes beyond the formulas: broadcasting, dims, empty tensors, edges; answers without a graph."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tensorgrad as tg
from tests.ops.compare import (
    SHAPES,
    assert_same,
    both,
    few,
    floats,
    gradients,
    leaves,
    numbers,
    tensors,
    to_torch,
)


@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=5, min_side=0))
@few
def test_binary_ops_broadcast(shapes):
    x, y = (numbers(s, i) for i, s in enumerate(shapes.input_shapes))
    both(lambda t, x, y: x * y - x / (y * y + 1), x, y)
    both(lambda t, x, y: t.where(x < y, t.maximum(x, y), x**2), x, y)


@given(SHAPES, SHAPES)
@few
def test_shapes_that_do_not_broadcast_are_errors(a, b):
    both(lambda t, x, y: x + y, numbers(a), numbers(b, 1))


@given(hnp.mutually_broadcastable_shapes(signature="(n,k),(k,m)->(n,m)", max_dims=3, max_side=4))
@few
def test_matmul_broadcasts(shapes):
    x, y = (numbers(s, i) for i, s in enumerate(shapes.input_shapes))
    both(lambda t, x, y: x @ y, x, y)


@given(SHAPES, SHAPES)
@few
def test_matmul_of_any_shapes(a, b):
    both(lambda t, x, y: x @ y, numbers(a), numbers(b, 1))


# ---- dims

REDUCTIONS = {
    "sum": lambda t, x, **kw: x.sum(**kw),
    "mean": lambda t, x, **kw: x.mean(**kw),
    "amax": lambda t, x, **kw: x.amax(**kw),
    "amin": lambda t, x, **kw: t.amin(x, **kw),
    "var": lambda t, x, **kw: t.var(x, **kw),
    "std": lambda t, x, **kw: x.std(**kw),
    "logsumexp": lambda t, x, **kw: x.logsumexp(**kw),
    "any": lambda t, x, **kw: (x > 0).any(**kw),
    "all": lambda t, x, **kw: t.all(x > 0, **kw),
    "norm": lambda t, x, **kw: x.norm(p=2, **kw),
}


@pytest.mark.parametrize("name", REDUCTIONS)
@given(data=st.data())
@few
@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
def test_dims_of_reductions(name, data):
    """Negative, several, repeated, out of range; kept or not."""
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4))
    one = st.integers(-len(shape) - 1, len(shape))
    dim = data.draw(one | st.lists(one, max_size=3).map(tuple))
    keepdim = data.draw(st.booleans())
    assume(
        not (name in ("logsumexp", "var", "std") and dim == ())
    )  # refused, and inf for a gradient
    if isinstance(dim, tuple):
        inside = [-len(shape) <= d < max(len(shape), 1) for d in dim]
        assume(all(inside) or len(dim) == 1)  # of two errors either
    both(lambda t, x: REDUCTIONS[name](t, x, dim=dim, keepdim=keepdim), numbers(shape))


@pytest.mark.parametrize("name", REDUCTIONS)
def test_numpy_names_of_dim_and_keepdim(name):
    if name in ("var", "std", "norm"):
        pytest.skip("PyTorch has no axis there")
    both(lambda t, x: REDUCTIONS[name](t, x, axis=1, keepdims=True), numbers((3, 5)))


@pytest.mark.parametrize(
    "name", ["argmax", "argmin", "max", "min", "cumsum", "cumprod", "prod", "sort", "argsort"]
)
@given(data=st.data())
@few
def test_dims_of_searches(name, data):
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4))
    dim = data.draw(st.integers(-len(shape) - 1, len(shape)))
    keep = (
        {"keepdim": data.draw(st.booleans())}
        if name in ("argmax", "argmin", "max", "min", "prod")
        else {}
    )
    both(lambda t, x: getattr(x, name)(dim, **keep), numbers(shape))


@pytest.mark.parametrize(
    "name",
    ["sum", "mean", "prod", "amax", "max", "argmax", "any", "all", "var", "logsumexp", "std"],
)
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3)], ids=str)
@pytest.mark.parametrize("dim", [None, 0, 1, -1])
@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
def test_reductions_of_nothing(name, shape, dim):
    if name == "logsumexp" and dim is None:
        dim = (0,)
    args = () if dim is None else (dim,)
    call = (
        (lambda t, x: getattr(x > 0, name)(*args))
        if name in ("any", "all")
        else (lambda t, x: getattr(x, name)(*args))
    )
    both(call, np.zeros(shape))


@given(SHAPES, st.data())
@few
def test_argmax_takes_the_first_and_nan_before_all(shape, data):
    values = data.draw(
        hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 1.0, math.nan, math.inf]))
    )
    assume(values.size)
    both(lambda t, x: [x.argmax(), x.argmin(), x.max().detach(), x.min().detach()], values)
    if shape:
        both(lambda t, x: [x.argmax(-1), x.argmin(0), *x.max(-1), *x.min(0)], values)


# ---- shapes


@given(SHAPES, st.data())
@few
def test_reshape(shape, data):
    n = math.prod(shape)
    divisors = [d for d in range(1, n + 1) if n % d == 0] or [0, 1, 5]
    a = data.draw(st.sampled_from(divisors))
    new = data.draw(st.permutations([a, data.draw(st.sampled_from([-1, 1, n // a if a else 3]))]))
    both(lambda t, x: x.reshape(new), numbers(shape))
    both(lambda t, x: x.reshape(*new), numbers(shape))


@given(hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=3), st.data())
@few
def test_permute_transpose_movedim(shape, data):
    n = len(shape)
    order = data.draw(st.permutations(range(n)))
    signed = [d - n if data.draw(st.booleans()) else d for d in order]
    both(lambda t, x: x.permute(signed), numbers(shape))
    a, b = (data.draw(st.integers(-n - 1, n)) for _ in range(2))
    both(lambda t, x: x.transpose(a, b), numbers(shape))
    both(lambda t, x: x.movedim(a, b), numbers(shape))
    both(lambda t, x: x.unsqueeze(a), numbers(shape))
    both(lambda t, x: x.squeeze(a), numbers(shape))
    both(lambda t, x: x.squeeze(), numbers(shape))
    both(lambda t, x: x.flatten(a, b), numbers(shape))
    both(lambda t, x: x.flip((a,)), numbers(shape))


@given(
    st.lists(
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3), min_size=1, max_size=3
    ),
    st.integers(-3, 3),
    st.booleans(),
)
@few
def test_cat_and_stack(shapes, dim, alike):
    shapes = [shapes[0]] * len(shapes) if alike else shapes
    arrays = [numbers(s, i) for i, s in enumerate(shapes)]
    both(lambda t, *xs: t.cat(xs, dim), *arrays)
    assume(len({*shapes}) == 1 or -2 <= dim < 2)  # of two errors either
    both(lambda t, *xs: t.stack(xs, dim), *arrays)


@given(st.integers(0, 7), st.integers(-1, 4), st.integers(-3, 2))
@few
def test_split_chunk_unbind(n, size, dim):
    x = numbers((n, 3))
    both(lambda t, x: x.unbind(dim), x)
    assume(-2 <= dim < 2 or size > 0)  # of two errors either
    both(lambda t, x: x.split(size, dim), x)
    both(lambda t, x: x.chunk(size, dim), x)
    both(lambda t, x: x.split([1, size], dim), x)


@given(
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    st.lists(st.integers(-1, 3), max_size=4),
)
@few
def test_expand_and_repeat(shape, sizes):
    assume(shape or -1 not in sizes)  # PyTorch: a ValueError
    both(lambda t, x: x.expand(sizes), numbers(shape))
    both(lambda t, x: x.expand(*sizes) if sizes else x, numbers(shape))
    if min(sizes, default=0) >= 0:
        both(lambda t, x: x.repeat(sizes), numbers(shape))
        both(lambda t, x: x.tile(sizes), numbers(shape))


def test_parts_that_nobody_uses_have_no_gradient():
    both(lambda t, x: x.split([2, 3, 2])[1], numbers((7, 3)))
    both(lambda t, x: x.unbind(1)[0], numbers((7, 3)))
    both(lambda t, x: x.topk(2).indices, numbers((7, 3)))


# ---- other answers


@given(hnp.arrays(np.int64, hnp.array_shapes(max_dims=2, max_side=6), elements=st.integers(0, 5)))
@few
def test_unique_bincount_nonzero(values):
    x, y = tg.from_numpy(values), to_torch(values)
    for options in (
        {},
        {"return_inverse": True},
        {"return_counts": True},
        {"dim": 0},
        {"return_inverse": True, "return_counts": True, "dim": 0},
    ):
        assert_same(tensors(x.unique(**options)), tensors(y.unique(**options)))
    flat = values.ravel()
    assert_same(
        [tg.bincount(tg.from_numpy(flat), minlength=3)],
        [torch.bincount(to_torch(flat), minlength=3)],
    )
    w = numbers(flat.shape)
    assert_same(
        [tg.bincount(tg.from_numpy(flat), tg.from_numpy(w))],
        [torch.bincount(to_torch(flat), to_torch(w))],
    )
    assert_same([x.nonzero(), *x.nonzero(as_tuple=True)], [y.nonzero(), *y.nonzero(as_tuple=True)])


@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(max_dims=2, max_side=7),
        elements=st.sampled_from([0.0, 1, 2, math.nan, -math.inf]),
    ),
    st.data(),
)
@few
def test_sort_and_topk(values, data):
    both(
        lambda t, x: [*t.sort(x, stable=True), *t.sort(x, dim=0, descending=True, stable=True)],
        values,
    )
    k = data.draw(st.integers(0, values.shape[-1]))
    largest = data.draw(st.booleans())
    mine, theirs = (t.topk(leaves([values], t)[0], k, largest=largest).values for t in (tg, torch))
    assert_same([mine], [theirs])  # which of equal elements is taken is open


def test_answers_that_are_python_values():
    x, y = tg.tensor([1.0, math.nan]), tg.tensor([1.0, 2.0])
    assert tg.equal(y, y) and not tg.equal(x, x) and not tg.equal(y, y[:1])
    assert tg.allclose(y, y + 1e-9) and not tg.allclose(x, x) and tg.allclose(x, x, equal_nan=True)
    assert isinstance(tg.equal(y, y), bool) and isinstance(tg.allclose(y, y), bool)
    assert (y == None) is False and (y != None) is True and (y == "a") is False  # noqa: E711
    assert 2.0 in y and 3.0 not in y


@pytest.mark.parametrize(
    "equation",
    [
        "i,j",
        "ij->ji",
        "i,i",
        "ii",
        "ij,jk,kl->il",
        "...i,...i->...",
        "bhqd,bhkd->bhqk",
        "ij,ij->ij",
        "i,ij,j->",
        "...ij->...ji",
        "ijk,ilk->ijl",
        "ij,kl->ijkl",
        "ij->",
    ],
)
def test_einsum(equation):
    sizes = dict(zip("bhijklmqd", (2, 3, 3, 5, 7, 2, 5, 3, 7), strict=True))
    shapes = [
        tuple(sizes[c] for c in term.replace("...", "bh"))
        for term in equation.split("->")[0].split(",")
    ]
    if equation == "ii":
        shapes = [(3, 3)]
    arrays = [numbers(s, i) for i, s in enumerate(shapes)]
    both(lambda t, *xs: t.einsum(equation, *xs), *arrays)
    both(lambda t, *xs: t.einsum(equation, list(xs)), *arrays)


def test_a_warning_is_an_error_in_these_tests():
    with pytest.raises(UserWarning):
        warnings.warn("seen", stacklevel=1)


def test_discrete_results_have_no_history():
    x = tg.ones(3, requires_grad=True)
    for result in (x > 0, x.argmax(), x.isnan(), tg.zeros_like(x), x.sort().indices, x.nonzero()):
        assert not result.requires_grad
    assert floats([x * 1, x > 0])[0].requires_grad
    assert gradients(tg, [], [x]) == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int64"])
def test_where_by_bits_is_where(dtype):
    """Large selections are made with bit operations: every value, NaN and signs of zero too."""
    draw = np.random.default_rng(0)
    values = np.array([0.0, -0.0, 1.5, -2.0, np.inf, -np.inf, np.nan])
    if dtype == "int64":
        values = np.arange(7)
    condition = draw.random((31, 67)) > 0.5
    kind = getattr(tg, dtype)
    x, y = (values[draw.integers(0, 7, shape)].astype(kind) for shape in ((31, 67), (67,)))
    for a, b in ((x, y), (x, y[0]), (y[0], x), (x.T.copy().T, y), (x[::-1], y)):
        a, b = np.asarray(a), np.asarray(b)
        mine = tg.where(*map(tg.from_numpy, (condition, a, b))).array
        assert mine.tobytes() == np.where(condition, a, b).tobytes()
    for number in (0, -0.0, 2.5) if dtype != "int64" else (0, 2):
        mine = tg.from_numpy(x).masked_fill(tg.from_numpy(condition), number).array
        assert mine.tobytes() == np.where(condition, kind.type(number), x).tobytes()
