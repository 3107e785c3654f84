"""The same dim twice is an error; the same tensor twice is not, whatever its layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tensorgrad as tg
from tests.ops.compare import both, few, gradients, leaves, numbers, outcome, tensors
from tests.ops.test_drawn import LAYOUTS

DIMS = {
    "sum": lambda t, x, dims: x.sum(dims),
    "mean": lambda t, x, dims: x.mean(dims, keepdim=True),
    "var": lambda t, x, dims: t.var(x, dims),
    "std": lambda t, x, dims: t.std(x, dims),
    "amax": lambda t, x, dims: x.amax(dims),
    "amin": lambda t, x, dims: x.amin(dims),
    "logsumexp": lambda t, x, dims: x.logsumexp(dims),
    "norm": lambda t, x, dims: x.norm(2, dims),
    "any": lambda t, x, dims: (x > 0).any(dims),
    "all": lambda t, x, dims: (x > 0).all(dims),
    "nansum": lambda t, x, dims: x.nansum(dims),
    "nanmean": lambda t, x, dims: x.nanmean(dims),
    "flip": lambda t, x, dims: x.flip(dims),
    "permute": lambda t, x, dims: x.permute(*dims),
    "movedim": lambda t, x, dims: x.movedim(dims, dims[::-1]),
    "squeeze": lambda t, x, dims: x[:1, :, :1].squeeze(dims),
    "count_nonzero": lambda t, x, dims: x.count_nonzero(dims),
    "vector_norm": lambda t, x, dims: t.linalg.vector_norm(x, dim=dims),
    "rot90": lambda t, x, dims: x.rot90(1, dims),
    "tensordot": lambda t, x, dims: t.tensordot(x, x, (dims, dims)),
    "transpose": lambda t, x, dims: x.transpose(dims[0], dims[1]),
    "diagonal": lambda t, x, dims: x.diagonal(0, dims[0], dims[1]),
}


@pytest.mark.parametrize("name", DIMS)
@given(dims=st.lists(st.integers(-3, 2), min_size=2, max_size=3).map(tuple))
@few
def test_dims_given_twice(name, dims):
    """From the front and from the end are the same dim, too."""
    both(lambda t, x: DIMS[name](t, x, dims), numbers((2, 3, 5)))


TWICE = {
    "add": lambda t, x: x + x,
    "sub": lambda t, x: x - x,
    "mul": lambda t, x: x * x * x,
    "div": lambda t, x: x / x,
    "pow": lambda t, x: (x * x + 1) ** x,
    "maximum": lambda t, x: t.maximum(x, x),
    "minimum": lambda t, x: t.minimum(x, x),
    "where": lambda t, x: t.where(x > 0, x, x),
    "lerp": lambda t, x: t.lerp(x, x, x),
    "addcmul": lambda t, x: t.addcmul(x, x, x),
    "clamp": lambda t, x: t.clamp(x, x - 1, x + 1),
    "hypot": lambda t, x: t.hypot(x, x),
    "atan2": lambda t, x: t.atan2(x, x),
    "logaddexp": lambda t, x: t.logaddexp(x, x),
    "matmul": lambda t, x: x @ x,
    "matmul turned": lambda t, x: x @ x.T,
    "addmm": lambda t, x: t.addmm(x, x, x),
    "outer": lambda t, x: t.outer(x[0], x[0]),
    "dot": lambda t, x: t.dot(x[1], x[1]),
    "cat": lambda t, x: t.cat([x, x], 1),
    "stack": lambda t, x: t.stack([x, x, x]),
    "einsum": lambda t, x: t.einsum("ij,jk,ki->i", x, x, x),
    "gather": lambda t, x: x.gather(1, x.detach().abs().long()),
    "index": lambda t, x: x[x.detach() > 0],
    "scatter": lambda t, x: x.scatter(0, t.tensor([[1, 0, 2]]), x[:1]),
    "index_add": lambda t, x: x.index_add(0, t.tensor([1, 1, 0]), x),
    "masked_scatter": lambda t, x: x.masked_scatter(x.detach() > 0, x),
    "linear": lambda t, x: t.nn.functional.linear(x, x, x[0]),
    "conv1d": lambda t, x: t.nn.functional.conv1d(x[None], x[None].mT, padding=1),
    "layer_norm": lambda t, x: t.nn.functional.layer_norm(x, (3,), x[0], x[0]),
    "attention": lambda t, x: t.nn.functional.scaled_dot_product_attention(x, x, x),
    "mse_loss": lambda t, x: t.nn.functional.mse_loss(x, x * x),
    "in place": lambda t, x: (x * 1).mul_(x).add_(x),
    "in place by itself": lambda t, x: _by_itself(x * 1),
    "set item": lambda t, x: _set_to_itself(x * 1),
    "set item across": lambda t, x: _set_across(x * 1),
}


def _by_itself(z):
    return z.mul_(z).add_(z)


def _set_to_itself(z):
    z[1] = z[0]
    z[:, 0] = z[:, 2]
    return z


def _set_across(z):
    """Memory read while it is written."""
    z[1:] = z[:-1] * 1
    z.copy_(z.T.clone())
    return z


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", TWICE)
def test_the_same_tensor_twice(name, layout):
    array = numbers((3, 3), low=-2.9, high=2.9)

    def answer(t):
        if t is torch:
            (x,) = leaves([array], t)
        else:
            x = tg.from_numpy(LAYOUTS[layout](array)).requires_grad_()
        result = tensors(TWICE[name](t, x))
        return [*result, *gradients(t, [y for y in result if y.requires_grad], [x])]

    mine, theirs = outcome(lambda: answer(tg)), outcome(lambda: answer(torch))
    if isinstance(theirs, type):
        assert isinstance(mine, type)
        return
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(
            a.detach().numpy(), b.detach().numpy(), rtol=1e-9, atol=1e-12, err_msg=name
        )
