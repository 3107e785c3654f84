"""linalg against PyTorch and against what the results must fulfil; singular matrices; errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tensorgrad as tg
from tensorgrad.autograd import gradcheck, gradgradcheck
from tests.ops.answers import same_answer, same_error
from tests.ops.compare import SHAPES, both, few, leaves, numbers, run

inf, nan = math.inf, math.nan


def bad_batch(t):
    return t.stack([t.eye(2), t.ones(2, 2), -t.eye(2)])


SAME = {
    "inv of nothing": lambda t: [t.linalg.inv(t.ones(0, 3, 3)), t.linalg.inv(t.ones(2, 0, 0))],
    "det of nothing": lambda t: [t.linalg.det(t.ones(0, 3, 3)), t.linalg.det(t.ones(2, 0, 0))],
    "slogdet": lambda t: [*t.linalg.slogdet(-t.eye(3)), *t.linalg.slogdet(t.ones(2, 2))],
    "slogdet beyond floats": lambda t: t.linalg.slogdet(1e-30 * t.eye(5)),
    "solve vectors": lambda t: t.linalg.solve(2 * t.eye(2).expand(3, 2, 2), t.ones(3, 2)),
    "solve one vector": lambda t: t.linalg.solve(2 * t.eye(2).expand(3, 2, 2), t.ones(2)),
    "solve nothing": lambda t: t.linalg.solve(t.eye(2), t.ones(2, 0)),
    "cholesky reads half": lambda t: [
        t.linalg.cholesky(t.tensor([[4.0, nan], [2, 3]])),
        t.linalg.cholesky(t.tensor([[4.0, 2], [nan, 3]]), upper=True),
    ],
    "vector_norm dtype": lambda t: t.linalg.vector_norm(t.ones(2), dtype=t.float64),
    "vector_norm ()": lambda t: t.linalg.vector_norm(t.ones(2, 3), 2, ()),
    "vector_norm of nothing": lambda t: t.linalg.vector_norm(t.ones(0, 3), 2, 0),
    "vector_norm of no layers": lambda t: t.linalg.vector_norm(t.ones(0, 3), -2, 1),
    "vector_norm halves": lambda t: t.linalg.vector_norm(t.full((3,), 300.0).half()),
    "matrix_norm of nothing": lambda t: [
        t.linalg.matrix_norm(t.ones(2, 0), ord) for ord in ("fro", "nuc", 1, 2, inf)
    ],
    "norm one dim": lambda t: t.linalg.norm(t.ones(2, 3), 1, (1,)),
    "norm of a cube": lambda t: t.linalg.norm(t.ones(2, 2, 2)),
    "norm of a number": lambda t: t.linalg.norm(t.tensor(2.0)),
    "norm keepdim": lambda t: t.linalg.norm(t.ones(2, 3), -1, keepdim=True),
    "norm fro dims": lambda t: t.norm(t.ones(2, 3, 4), "fro", (0, 1)),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME)
def test_same_answers(case):
    same_answer(SAME[case])


WRONG = {
    "inv singular": lambda t: t.linalg.inv(t.ones(2, 2)),
    "inv batch": lambda t: t.linalg.inv(bad_batch(t)),
    "inv size": lambda t: t.linalg.inv(t.ones(2, 3)),
    "inv rank": lambda t: t.linalg.inv(t.ones(2)),
    "inv ints": lambda t: t.linalg.inv(t.eye(2).long()),
    "inv half": lambda t: t.linalg.inv(t.eye(2).half()),
    "det ints": lambda t: t.linalg.det(t.eye(2).long()),
    "slogdet size": lambda t: t.linalg.slogdet(t.ones(2, 3)),
    "svdvals rank": lambda t: t.linalg.svdvals(t.ones(3)),
    "cholesky indefinite": lambda t: t.linalg.cholesky(-t.eye(2)),
    "cholesky batch": lambda t: t.linalg.cholesky(bad_batch(t)),
    "cholesky NaN": lambda t: t.linalg.cholesky(t.full((2, 2), nan)),
    "cholesky size": lambda t: t.linalg.cholesky(t.ones(2, 3)),
    "solve singular": lambda t: t.linalg.solve(t.ones(2, 2), t.ones(2)),
    "solve batch": lambda t: t.linalg.solve(bad_batch(t), t.ones(2)),
    "solve size": lambda t: t.linalg.solve(t.eye(2), t.ones(3)),
    "solve dtype": lambda t: t.linalg.solve(t.eye(2), t.ones(2).double()),
    "solve batches": lambda t: t.linalg.solve(t.eye(2).expand(3, 2, 2), t.ones(5, 2, 1)),
    "solve left": lambda t: t.linalg.solve(t.eye(2), t.ones(2), left=False),
    "solve number": lambda t: t.linalg.solve(t.eye(2), t.tensor(1.0)),
    "vector_norm str": lambda t: t.linalg.vector_norm(t.ones(2), "fro"),
    "vector_norm ints": lambda t: t.linalg.vector_norm(t.ones(2).long()),
    "vector_norm ints, dtype": lambda t: t.linalg.vector_norm(t.ones(2).long(), dtype=t.float32),
    "vector_norm narrow": lambda t: t.linalg.vector_norm(t.ones(2).double(), dtype=t.float32),
    "vector_norm nothing": lambda t: t.linalg.vector_norm(t.ones(0), inf),
    "vector_norm nothing, -2": lambda t: t.linalg.vector_norm(t.ones(0), -2),
    "vector_norm twice": lambda t: t.linalg.vector_norm(t.ones(2, 2), 2, (0, 0)),
    "vector_norm dim": lambda t: t.linalg.vector_norm(t.ones(2, 2), 2, 5),
    "matrix_norm rank": lambda t: t.linalg.matrix_norm(t.ones(2)),
    "matrix_norm ord": lambda t: t.linalg.matrix_norm(t.ones(2, 2), 3),
    "matrix_norm str": lambda t: t.linalg.matrix_norm(t.ones(2, 2), "x"),
    "matrix_norm one dim": lambda t: t.linalg.matrix_norm(t.ones(2, 2), 1, (0,)),
    "matrix_norm same": lambda t: t.linalg.matrix_norm(t.ones(2, 2), 1, (0, 0)),
    "matrix_norm int": lambda t: t.linalg.matrix_norm(t.ones(2, 2), 1, 0),
    "norm cube": lambda t: t.linalg.norm(t.ones(2, 2, 2), 2),
    "norm dims": lambda t: t.linalg.norm(t.ones(2, 2, 2), None, (0, 1, 2)),
    "norm str": lambda t: t.linalg.norm(t.ones(2), "fro"),
    "norm number": lambda t: t.linalg.norm(t.tensor(2.0), 1),
}


@pytest.mark.parametrize("case", WRONG)
def test_same_errors(case):
    name = case.split()[0]
    name = {"vector_norm twice": "linalg.vector_norm"}.get(case, f"linalg.{name}")
    same_error(WRONG[case], name)


def test_the_error_names_the_matrix_of_the_batch():
    with pytest.raises(tg.linalg.LinAlgError, match=r"matrix \(1,\)"):
        tg.linalg.inv(bad_batch(tg))
    with pytest.raises(RuntimeError, match="positive-definite"):
        tg.linalg.cholesky(-tg.eye(3))


BATCHES = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3, min_side=0)


@given(BATCHES, st.integers(1, 5), st.integers(0, 3), st.booleans())
@few
def test_solutions_of_batches(batches, n, columns, left):
    a, b = batches.input_shapes
    matrices = numbers((*a, n, n)) + 5 * np.eye(n)
    right = numbers((*b, n, columns) if left else (*b, columns, n), 1)
    assume(right.shape != matrices.shape[:-1])  # these are vectors
    both(lambda t, a, b: t.linalg.solve(a, b, left=left), matrices, right)
    (out, *_), _ = run(tg, lambda t, a, b: t.linalg.solve(a, b, left=left), [matrices, right])
    product = matrices @ out.detach().array if left else out.detach().array @ matrices
    np.testing.assert_allclose(product, np.broadcast_to(right, product.shape), atol=1e-12)


@given(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3), st.integers(0, 5))
@few
def test_factors_of_batches(batch, n):
    x = numbers((*batch, n, n))
    definite = x @ np.swapaxes(x, -1, -2) + np.eye(n)
    for upper in (False, True):
        both(lambda t, x, u=upper: t.linalg.cholesky(x, upper=u), definite)
    both(lambda t, x: t.linalg.inv(x), definite)
    both(lambda t, x: t.linalg.det(x), definite)
    both(lambda t, x: t.linalg.slogdet(x).logabsdet, definite)
    lower = tg.linalg.cholesky(tg.from_numpy(definite)).array
    np.testing.assert_allclose(lower @ np.swapaxes(lower, -1, -2), definite, atol=1e-12)


@given(SHAPES, st.data())
@few
def test_norms_over_any_dims(shape, data):
    rank = len(shape)
    dim = st.integers(-rank - 1, rank)
    several = st.lists(st.integers(-max(rank, 1), max(rank - 1, 0)), max_size=3).map(tuple)
    dims = data.draw(st.one_of(st.none(), dim, several))
    pair = (data.draw(dim), data.draw(dim))
    keepdim = data.draw(st.booleans())
    p = data.draw(st.sampled_from([0, 0.5, 1, 1.5, 2, 3, -1, inf, -inf]))
    ord = data.draw(st.sampled_from(["fro", 1, -1, inf, -inf]))
    x = numbers(shape)
    both(lambda t, x: t.linalg.vector_norm(x, p, dims, keepdim), x)
    assume(dims is None or isinstance(dims, int) or len(dims) < 3)
    if 0 not in shape:  # of nothing PyTorch's result has no history
        both(lambda t, x: t.linalg.matrix_norm(x, ord, pair, keepdim), x)
        both(lambda t, x: t.linalg.norm(x, p, dims, keepdim), x)


EDGES = {
    "zeros": [[0.0, 0, 0], [0, 0, 0]],
    "some zeros": [[0.0, 1, -2], [0, 0, 3]],
    "ties": [[2.0, -2, 2], [1, 1, 1]],
    "infinite": [[inf, 1, 2], [-inf, inf, 0]],
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("p", [0, 0.5, 1, 1.5, 2, 2.5, 3, -1, -2, inf, -inf])
def test_norms_at_edges(p, edge):
    x = np.array(EDGES[edge])
    both(lambda t, x: t.linalg.vector_norm(x, p, 1), x)
    both(lambda t, x: t.norm(x, p), x)
    if edge != "infinite":
        both(lambda t, x: t.dist(x, x.detach() * 1, p), x)


@pytest.mark.parametrize("ord", ["fro", "nuc", 1, -1, 2, -2, inf, -inf])
def test_matrix_norms_at_edges(ord):
    for x in ([[0.0, 0], [0, 0]], [[1.0, 2], [2, 4]], [[2.0, -2], [1, 1]]):
        both(lambda t, x: t.linalg.matrix_norm(x, ord), np.array(x))


def test_norms_neither_overflow_nor_vanish_in_their_slopes():
    x = tg.tensor([1e-20, 2e-20], dtype=tg.float32, requires_grad=True)
    tg.linalg.vector_norm(x, 1.5).backward()
    ratio = np.array([1, 2]) / (1 + 2**1.5) ** (2 / 3)
    np.testing.assert_allclose(x.grad.array, ratio**0.5, rtol=1e-5)


SINGULAR = {
    "rank 0": np.zeros((2, 2)),
    "rank 1": np.array([[1.0, 2], [2, 4]]),
    "nearly": np.arange(1.0, 10).reshape(3, 3),
    "one zero row": np.diag([1.0, 0, 2]),
    "two zero rows": np.diag([1.0, 0, 0]),
    "a batch": np.array([[[1.0, 2], [2, 4]], [[1, 2], [2, 3]]]),
}


@pytest.mark.parametrize("name", SINGULAR)
def test_the_slope_of_a_determinant_is_its_cofactors(name):
    """Minors, each a determinant, with signs: also where there is no inverse."""
    a = SINGULAR[name]
    x = tg.from_numpy(a.copy()).requires_grad_()
    tg.linalg.det(x).sum().backward()
    n = a.shape[-1]
    minors = np.empty_like(a)
    for i in range(n):
        for j in range(n):
            rest = np.delete(np.delete(a, i, -2), j, -1)
            minors[..., i, j] = (-1) ** (i + j) * np.linalg.det(rest)
    np.testing.assert_allclose(x.grad.array, minors, atol=1e-12)


def test_slogdet_of_a_batch_with_a_singular_matrix():
    """The regular matrices have their gradient all the same."""
    x = tg.stack([2 * tg.eye(2), tg.ones(2, 2)]).requires_grad_()
    tg.linalg.slogdet(x).logabsdet.sum().backward()
    assert x.grad[0].tolist() == [[0.5, 0], [0, 0.5]]
    assert not tg.isfinite(x.grad[1]).any()


def test_every_order_by_differences():
    """Central differences, forward mode and second order."""
    (x,) = leaves([numbers((2, 3, 3)) + 4 * np.eye(3)], tg)
    (y,) = leaves([numbers((3, 2), 1)], tg)
    (z,) = leaves([numbers((4, 3), 2)], tg)
    for call, *inputs in (
        (tg.linalg.inv, x), (tg.linalg.det, x), (lambda x: tg.linalg.slogdet(x).logabsdet, x),
        (tg.linalg.solve, x, y), (lambda x: tg.linalg.cholesky(x @ x.mT), x),
        (tg.linalg.svdvals, z), (lambda x: tg.linalg.matrix_norm(x, "nuc"), z),
        (lambda x: tg.linalg.vector_norm(x, 1.5), z),
    ):  # fmt: skip
        assert gradcheck(call, inputs, check_forward_ad=True)
        assert gradgradcheck(call, inputs)


def test_singular_vectors_of_tall_and_wide_matrices():
    """The packed factors multiply to the matrix, and their slopes to its own."""
    from tensorgrad.ops.linalg import _svd
    from tensorgrad.ops.shape import split

    def product(x):
        u, s, v = split(_svd(x), (x.shape[-2], 1, x.shape[-1]), -2)
        return (u * s) @ v.mT

    for shape in ((5, 3), (3, 5), (2, 4, 4)):
        (x,) = leaves([numbers(shape)], tg)
        np.testing.assert_allclose(product(x).detach().array, x.detach().array, atol=1e-12)
        assert gradcheck(product, [x], check_forward_ad=True)


def test_float32_stays_float32():
    for t in (tg, torch):
        x = 3 * t.eye(3) + t.ones(3, 3)
        found = [t.linalg.inv(x), t.linalg.det(x), *t.linalg.slogdet(x), t.linalg.svdvals(x)]
        found += [t.linalg.cholesky(x), t.linalg.solve(x, t.ones(3)), t.linalg.norm(x, 2)]
        assert {str(v.dtype).removeprefix("torch.") for v in found} == {"float32"}
