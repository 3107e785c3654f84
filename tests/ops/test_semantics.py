"""What ops do beyond their formulas: broadcasting, promotion, dims, indices, ties, in place."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tensorgrad as tg
from tests.ops.compare import (
    DTYPES,
    assert_same,
    dtype_name,
    floats,
    gradients,
    leaves,
    outcome,
    run,
    tensors,
    to_numpy,
    to_torch,
)

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
few = settings(max_examples=25)


def numbers(shape, seed=0, low=-3.0, high=3.0):
    return np.random.default_rng(seed).uniform(low, high, shape)


def both(call, *arrays):
    """Value and gradient of a call, or the class of its error, agree in both frameworks."""
    mine, theirs = (outcome(lambda t=t: run(t, call, arrays)) for t in (tg, torch))
    if isinstance(mine, type) or isinstance(theirs, type):
        assert isinstance(mine, type) and isinstance(theirs, type), (
            f"mine {mine}, PyTorch's {theirs}"
        )
        assert issubclass(theirs, mine), f"mine {mine}, PyTorch's {theirs}"
        return
    assert_same(mine[0], theirs[0], what="value")
    assert_same(mine[1], theirs[1], what="gradient")


# ---- broadcasting


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


# ---- dtypes


def of(t, dtype, shape):
    """Ones of a dtype, 0-d tensors included."""
    return t.ones(shape, dtype=getattr(t, dtype) if dtype != "bool" else t.bool)


BINARY = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "floor_divide": lambda x, y: x // y,
    "remainder": lambda x, y: x % y,
    "pow": lambda x, y: x**y,
    "lt": lambda x, y: x < y,
    "eq": lambda x, y: x == y,
}
INTEGERS_ONLY = {"and": lambda x, y: x & y, "or": lambda x, y: x | y, "xor": lambda x, y: x ^ y}


def same_dtype(call):
    mine, theirs = outcome(lambda: call(tg)), outcome(lambda: call(torch))
    if isinstance(theirs, type):
        assert isinstance(mine, type) and issubclass(theirs, mine), (
            f"mine {mine}, PyTorch's {theirs}"
        )
    else:
        assert not isinstance(mine, type), f"mine {mine}, PyTorch's {theirs}"
        assert dtype_name(mine) == dtype_name(theirs)
        np.testing.assert_array_equal(
            to_numpy(mine).astype(np.float64), to_numpy(theirs).astype(np.float64)
        )


# On bools PyTorch has no division with rest; here they count as 0 and 1.
def undefined(name, *dtypes):
    return name in ("floor_divide", "remainder", "pow") and all(d in ("bool", bool) for d in dtypes)


@pytest.mark.parametrize("name", [*BINARY, *INTEGERS_ONLY])
def test_promotion_of_tensors(name):
    """All pairs of dtypes; a 0-d tensor only decides by its category."""
    call = {**BINARY, **INTEGERS_ONLY}[name]
    for a, b in itertools.product(DTYPES, DTYPES):
        for shapes in ([(3,), (3,)], [(3,), ()], [(), (3,)], [(), ()]):
            if not undefined(name, a, b):
                same_dtype(lambda t, s=shapes, a=a, b=b: call(of(t, a, s[0]), of(t, b, s[1])))


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("number", [True, 2, 2.5], ids=str)
def test_promotion_with_python_numbers(name, number):
    """A number only decides by its category, from either side."""
    for dtype, shape in itertools.product(DTYPES, [(3,), ()]):
        if not undefined(name, dtype, type(number)):
            same_dtype(lambda t, d=dtype, s=shape: BINARY[name](of(t, d, s), number))
            same_dtype(lambda t, d=dtype, s=shape: BINARY[name](number, of(t, d, s)))


UNARY = [
    "exp", "log", "sqrt", "sin", "tanh", "sigmoid", "erf", "reciprocal", "square", "sign",
    "floor", "round", "relu", "isnan", "logical_not", "neg", "abs", "sum", "mean", "prod", "max",
    "any", "cumsum", "argmax", "var",
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UNARY)
def test_result_dtypes_of_one_tensor(name, dtype):
    if dtype == "bool" and name in ("sign", "square", "floor", "round", "abs", "relu", "argmax"):
        pytest.skip("undefined for bools in PyTorch, or by accident of NumPy's")
    args = (0,) if name == "cumsum" else ()
    same_dtype(lambda t: getattr(of(t, dtype, (3,)), name)(*args).float().round(decimals=0))
    mine, theirs = (
        outcome(lambda t=t: getattr(of(t, dtype, (3,)), name)(*args)) for t in (tg, torch)
    )
    if not isinstance(theirs, type):
        assert dtype_name(mine) == dtype_name(theirs)


def test_numpy_scalars_count_as_python_numbers():
    x = tg.ones(3)
    for scalar in (np.float64(2), np.float32(2), np.int64(2), np.bool_(True)):
        assert (x * scalar).dtype == tg.float32 and (scalar * x).dtype == tg.float32
        assert isinstance(scalar * x, tg.Tensor)
    assert isinstance(np.ones(3) + x, tg.Tensor)


@pytest.mark.parametrize("zero", [0, "tensor"])
@pytest.mark.parametrize("name", ["floor_divide", "remainder", "fmod"])
def test_integers_are_not_divided_by_zero(name, zero):
    x = tg.tensor([1, 2])
    with pytest.raises(RuntimeError, match="zero"):
        getattr(tg, name)(x, tg.tensor([1, 0]) if zero == "tensor" else 0)


def test_products_of_different_dtypes_are_errors():
    for call in (
        lambda t, x, y: x @ y,
        lambda t, x, y: t.mv(x, y[:, 0]),
        lambda t, x, y: t.bmm(x[None], y[None]),
    ):
        for t in (tg, torch):
            with pytest.raises(RuntimeError, match=r"dtype|scalar type"):
                call(t, t.ones(3, 3), t.ones(3, 3).double())


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


# ---- indices


def index_parts(n):
    """One entry of an index for a dim of n elements."""
    basic = st.slices(n).filter(lambda s: s.step is None or s.step > 0)
    kinds = [basic, st.just(slice(None))]
    if n:
        kinds += [
            st.integers(-n, n - 1),
            hnp.arrays(
                np.int64, st.sampled_from([(), (2,), (3, 2), (1,)]), elements=st.integers(-n, n - 1)
            ),
        ]
    return st.one_of(*kinds)


@st.composite
def indexed(draw, max_side=4):
    """A shape and an index that fits it, mixing every kind of entry."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=max_side))
    parts, d = [], 0
    stop = draw(st.integers(0, len(shape)))
    while d < stop:
        if draw(st.integers(0, 5)) == 0:
            parts.append(None)
        elif draw(st.integers(0, 4)) == 0:
            wide = draw(st.integers(1, min(2, stop - d)))
            parts.append(draw(hnp.arrays(np.bool_, shape[d : d + wide])))
            d += wide
        else:
            parts.append(draw(index_parts(shape[d])))
            d += 1
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), Ellipsis)
        after = len(parts) - parts.index(Ellipsis) - 1 if False else 0
        assume(parts[-1] is Ellipsis or stop == len(shape) or after)
    return shape, tuple(parts)


def in_framework(t, index):
    return tuple(leaves([p], t, False)[0] if isinstance(p, np.ndarray) else p for p in index)


def agreeable(shape, index):
    """Indices whose arrays broadcast together."""
    masks = [p.nonzero()[0] if p.dtype == bool else p for p in index if isinstance(p, np.ndarray)]
    try:
        np.broadcast_shapes(*(m.shape for m in masks))
    except ValueError:
        return False
    return True


@given(indexed())
@settings(max_examples=80)
def test_taking_by_any_index(case):
    shape, index = case
    assume(agreeable(shape, index))
    both(lambda t, x: x[in_framework(t, index)] * 2, numbers(shape))


@given(indexed(), st.booleans())
@settings(max_examples=80)
def test_setting_by_any_index(case, number):
    shape, index = case
    assume(agreeable(shape, index))
    part = torch.zeros(shape)[in_framework(torch, index)]
    arrays = [p for p in index if isinstance(p, np.ndarray) and p.dtype != bool]
    assume(
        not arrays or part.numel() == np.unique(places(shape, index)).size
    )  # twice the same place: open

    def call(t, x, y):
        z = x * 1
        z[in_framework(t, index)] = 2.5 if number else y * 3
        return z

    both(call, numbers(shape), numbers(tuple(part.shape), 1))


def places(shape, index):
    return torch.arange(math.prod(shape)).reshape(shape)[in_framework(torch, index)].numpy()


@pytest.mark.slow
@given(indexed(max_side=6))
@settings(max_examples=3000)
def test_taking_by_many_indices(case):
    shape, index = case
    assume(agreeable(shape, index))
    both(lambda t, x: x[in_framework(t, index)] * 2, numbers(shape))


INDEX_EDGES = {
    "int beside array, apart": lambda t, x: x[0, :, [0, 1]],
    "0-d tensor is an int": lambda t, x: x[t.tensor(1), :, t.tensor([0, 2])],
    "list": lambda t, x: x[[1, 0]],
    "empty list": lambda t, x: x[[]],
    "list of bools": lambda t, x: x[[True, False]],
    "tuple of lists": lambda t, x: x[[0, 1], [1, 2]],
    "True": lambda t, x: x[True],
    "False": lambda t, x: x[False],
    "0-d mask": lambda t, x: x[t.tensor(True)],
    "mask of all dims": lambda t, x: x[x > 0],
    "negative": lambda t, x: x[-1, ..., -2],
    "int32": lambda t, x: x[t.tensor([1, 0], dtype=t.int32)],
    "beyond the end": lambda t, x: x[:9, 2:1],
    "tensors as bounds": lambda t, x: x[t.tensor(0) : t.tensor(1)],
    "None only": lambda t, x: x[None, :, None],
    "same row twice": lambda t, x: x[t.tensor([0, 0, 1])],
    "too many": lambda t, x: x[0, 0, 0, 0],
    "out of range": lambda t, x: x[5],
    "tensor out of range": lambda t, x: x[t.tensor([5])],
    "float": lambda t, x: x[1.0],
    "str": lambda t, x: x["a"],
    "float tensor": lambda t, x: x[t.tensor([1.0])],
    "mask of another shape": lambda t, x: x[t.zeros(3, dtype=t.bool)],
    "backwards": lambda t, x: x[::-1],
    "0-d": lambda t, x: x.sum()[0],
    "0-d ...": lambda t, x: x.sum()[...] + x.sum()[None],
}


@pytest.mark.parametrize("edge", INDEX_EDGES)
def test_edges_of_indexing(edge):
    both(INDEX_EDGES[edge], numbers((2, 3, 4)))


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


# ---- ties, kinks, not-numbers

KINKS = {
    "maximum": lambda t, x, y: t.maximum(x, y),
    "minimum": lambda t, x, y: t.minimum(x, y),
    "clamp": lambda t, x, y: x.clamp(-1, 1),
    "clamp by tensors": lambda t, x, y: t.clamp(x, y, y + 1),
    "clamp by crossed tensors": lambda t, x, y: t.clamp(x, y + 1, y),
    "clamp from below": lambda t, x, y: x.clamp(min=y),
    "clamp from above": lambda t, x, y: x.clamp(max=y),
    "amax": lambda t, x, y: x.amax(),
    "max": lambda t, x, y: x.max(),
    "min": lambda t, x, y: x.min(),
    "abs": lambda t, x, y: x.abs(),
    "sign": lambda t, x, y: x.sign(),
    "relu": lambda t, x, y: x.relu(),
    "pow": lambda t, x, y: x**y,
    "pow 0": lambda t, x, y: x**0,
    "pow 0.0": lambda t, x, y: x**0.0,
    "pow 1": lambda t, x, y: x**1,
    "pow 2": lambda t, x, y: x**2,
    "pow -1": lambda t, x, y: x**-1,
    "pow 0.5": lambda t, x, y: (x + 0.0) ** 0.5,
    "0 pow": lambda t, x, y: 0**x,
    "2 pow": lambda t, x, y: 2**x,
    "-2 pow": lambda t, x, y: (-2) ** x,
    "sqrt": lambda t, x, y: x.sqrt(),
    "log": lambda t, x, y: x.log(),
    "div": lambda t, x, y: x / y,
    "where": lambda t, x, y: t.where(x > 0, x.log(), x * 2),
    "masked_fill": lambda t, x, y: x.masked_fill(x <= 0, 1.0).log(),
    "nan_to_num": lambda t, x, y: t.nan_to_num(x, 1, 2, 3),
    "logaddexp": lambda t, x, y: t.logaddexp(x, y),
    "sigmoid": lambda t, x, y: x.sigmoid(),
    "tanh": lambda t, x, y: x.tanh(),
    "logsumexp": lambda t, x, y: t.logsumexp(x, 0),
    "prod": lambda t, x, y: x[:9].prod(),
    "norm": lambda t, x, y: (x * 0).norm(),
    "std": lambda t, x, y: (x * 0 + 1).std(),
    "frac, trunc": lambda t, x, y: x.frac() + x.trunc(),
    "remainder": lambda t, x, y: x % y,
    "round": lambda t, x, y: (x * 2.5).round(),
    "cumprod": lambda t, x, y: x.cumprod(0),
    "sort": lambda t, x, y: t.sort(x, stable=True),
    "sort descending": lambda t, x, y: t.sort(x, descending=True, stable=True),
    "isclose": lambda t, x, y: [t.isclose(x, y), t.isclose(x, x, equal_nan=True)],
}
GRID = np.array([-2.0, -1, -0.0, 0, 0.5, 1, 2])
FINITE = [a.ravel() for a in np.meshgrid(GRID, GRID)]
WILD = [
    a.ravel()
    for a in np.meshgrid(
        np.append(GRID, [np.inf, -np.inf, np.nan]), np.append(GRID, [np.inf, -np.inf, np.nan])
    )
]
NOT_WILD = {  # a gradient beside an infinity or NaN hangs on the order of multiplications
    "pow", "logaddexp", "logsumexp", "prod", "cumprod", "norm", "std", "remainder", "frac, trunc",
    "div", "0 pow", "2 pow", "-2 pow", "amax", "max", "min", "tanh", "sigmoid", "where", "pow 0.5",
    "pow -1", "relu",
}  # fmt: skip


@pytest.mark.parametrize("name", KINKS)
def test_values_and_gradients_at_kinks(name):
    both(KINKS[name], *FINITE)


@pytest.mark.parametrize("name", KINKS)
def test_values_at_infinity_and_nan(name):
    mine, theirs = (tensors(KINKS[name](t, *leaves(WILD, t, False))) for t in (tg, torch))
    assert_same(mine, theirs)
    if name not in NOT_WILD:
        both(KINKS[name], *WILD)


def test_where_leaks_no_nan():
    x = tg.tensor([0.0, 1.0, 4.0], requires_grad=True)
    tg.where(x > 0, x, tg.zeros(3)).sum().backward()
    assert x.grad.tolist() == [0, 1, 1]
    x.grad = None
    safe = tg.where(x > 0, x, 1.0)  # the double where: the branch not taken sees a harmless number
    tg.where(x > 0, safe.log(), 0.0).sum().backward()
    assert x.grad.tolist() == [0, 1, 0.25]


SAME_TWICE = {
    "add": lambda t, x: x + x,
    "sub": lambda t, x: x - x,
    "mul": lambda t, x: x * x,
    "div": lambda t, x: x / x,
    "pow": lambda t, x: x.abs() ** x,
    "maximum": lambda t, x: t.maximum(x, x),
    "where": lambda t, x: t.where(x > 0, x, x),
    "matmul": lambda t, x: x @ x,
    "cat": lambda t, x: t.cat([x, x, x]),
    "stack": lambda t, x: t.stack([x, x]),
    "einsum": lambda t, x: t.einsum("ij,ij->i", x, x),
    "lerp": lambda t, x: t.lerp(x, x, x),
    "scatter_add": lambda t, x: x.scatter_add(0, t.tensor([[0, 1, 0]] * 3), x),
    "clamp": lambda t, x: t.clamp(x, x, x),
}


@pytest.mark.parametrize("name", SAME_TWICE)
def test_one_tensor_in_two_places(name):
    both(SAME_TWICE[name], numbers((3, 3)))
    x = tg.from_numpy(numbers((3, 3))).requires_grad_()
    SAME_TWICE[name](tg, x).sum().backward()
    again = tg.from_numpy(numbers((3, 3))).requires_grad_()
    (grad,) = tg.autograd.grad(SAME_TWICE[name](tg, again).sum(), again, create_graph=True)
    np.testing.assert_allclose(x.grad.array, grad.detach().array)


# ---- in-place forms

IN_PLACE = {
    "add_": (2.5,), "sub_": (2.5,), "mul_": (2.5,), "div_": (2.5,), "neg_": (), "square_": (),
    "reciprocal_": (), "abs_": (), "sign_": (), "floor_": (), "ceil_": (), "round_": (),
    "trunc_": (), "remainder_": (0.7,), "pow_": (3,), "sqrt_": (), "rsqrt_": (), "exp_": (),
    "exp2_": (), "expm1_": (), "log_": (), "log2_": (), "log10_": (), "log1p_": (), "sin_": (),
    "cos_": (), "tan_": (), "tanh_": (), "sigmoid_": (), "erf_": (),
    "relu_": (), "clamp_": (0.5, 1.5), "fill_": (2.5,), "zero_": (),
    "masked_fill_": ("mask", 2.5), "copy_": ("tensor",),
}  # fmt: skip
RANDOM = {
    "uniform_", "normal_", "random_", "bernoulli_", "exponential_", "log_normal_", "cauchy_",
    "geometric_",
}  # fmt: skip
NOT_IN_PLACE = {"requires_grad_"}


def test_every_in_place_method_is_in_this_list():
    found = {name for name in dir(tg.Tensor) if name.endswith("_") and not name.startswith("_")}
    assert found - RANDOM - NOT_IN_PLACE == set(IN_PLACE)


def arguments(t, name, x):
    known = {"mask": x > 1, "tensor": x * 2}
    return [known.get(a, a) if isinstance(a, str) else a for a in IN_PLACE[name]]


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_equals_out_of_place(name):
    """Value and gradient as in PyTorch; the tensor itself is returned, its memory stays."""

    def call(t, x):
        y = x * 1.5
        args = arguments(t, name, x.detach())
        z = getattr(y, name)(*args)
        assert z is y
        return z * x

    both(call, numbers((3, 5), low=0.2))
    plain = tg.from_numpy(numbers((3, 5), low=0.2))
    memory, args = plain.array, arguments(tg, name, plain.clone())
    before = plain.clone()
    getattr(plain, name)(*args)
    assert plain.array is memory and not plain.requires_grad
    if name not in ("fill_", "zero_", "copy_"):
        assert_same([plain], [to_torch(getattr(before, name[:-1])(*args).array)])


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_on_a_view_reaches_the_base(name):
    def call(t, x):
        y = x * 1.5
        part = y[1:, ::2]
        getattr(part, name)(*arguments(t, name, x.detach()[1:, ::2]))
        return y * x

    both(call, numbers((3, 5), low=0.2))


@pytest.mark.parametrize("name", [*IN_PLACE, "+=", "setitem"])
def test_leaves_that_require_grad_refuse(name):
    for t in (tg, torch):
        x = t.ones(3, requires_grad=True)
        with pytest.raises(RuntimeError, match="leaf"):
            if name == "+=":
                x += 1
            elif name == "setitem":
                x[0] = 1
            else:
                getattr(x, name)(*arguments(t, name, x.detach()))
        with t.no_grad():
            x += 1


@pytest.mark.parametrize("name", IN_PLACE)
def test_backward_notices_damage(name):
    """A kept array that was changed since raises, in both frameworks for the same ops."""
    for t in (tg, torch):
        x = t.full((3,), 1.5, requires_grad=True)
        y = x * 1
        z = y * y  # keeps y
        getattr(y, name)(*arguments(t, name, y.detach().clone()))
        with pytest.raises(RuntimeError, match=r"in.?place"):
            z.sum().backward()


@pytest.mark.parametrize("augmented", ["+=", "-=", "*=", "/=", "**="])
def test_augmented_assignment(augmented):
    def call(t, x, y):
        z = x * 1
        if augmented == "+=":
            z += y
        elif augmented == "-=":
            z -= y
        elif augmented == "*=":
            z *= y
        elif augmented == "/=":
            z /= y
        else:
            z **= y
        return z

    both(call, numbers((3, 5), low=0.5), numbers((5,), 1, low=0.5))
    both(
        call, numbers((5,), low=0.5), numbers((3, 5), 1, low=0.5)
    )  # the result does not fit: an error


def test_in_place_keeps_the_dtype():
    for t in (tg, torch):
        x = t.ones(3)
        x += t.ones(3).double()
        assert dtype_name(x) == "float32"
        n = t.tensor([1, 2])
        with pytest.raises(RuntimeError):
            n += 0.5
        with pytest.raises(RuntimeError):
            n /= 2


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
