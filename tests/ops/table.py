"""The table of tests: one row per op, read by every property of test_properties.py.

A row is the same call in both frameworks, `t` being tensorgrad or torch, and the shapes it takes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

Shape = tuple[int, ...]
Interval = tuple[float, float]

REAL: Interval = (-3, 3)
POSITIVE: Interval = (0.2, 3)
UNIT: Interval = (-0.95, 0.95)

TIES = {"stretched": "which of equal elements is taken is open"}
IN_PLACE = {"forward": "a traced value cannot be changed in place"}
NO_TRANSPOSE = {"forward": "padding_idx takes a gradient away that the value depends on"}
DEPRECATED = {"empty": "PyTorch lets 0-d tensors pass, with a warning that this will end"}
ONCE = {"second": "PyTorch's own is differentiated only once; nested forward mode is the test"}
NOT_A_VIEW = {"strided": "such memory cannot be viewed in this shape"}


@dataclass(frozen=True)
class Row:
    """One op, or one way of calling it.  The inputs are float tensors; constants stand in the call.

    domain: the interval inputs are drawn from, or one per input.  Drawn values are all distinct.
    half: how many roundings of a 16-bit float the result may be off; 0 where it has no meaning.
    lacks: the properties (by their tests' names) that this row cannot have, and why.
    """

    name: str
    call: Callable[..., Any]
    shapes: list[Shape]
    domain: Interval | list[Interval] = REAL
    half: float = 8
    lacks: dict[str, str] = field(default_factory=dict)

    def skip(self, prop: str) -> None:
        if prop in self.lacks:
            pytest.skip(self.lacks[prop])

    def inputs(self, shapes: list[Shape] | None = None) -> list[np.ndarray]:
        """The same numbers in every run: the places of a grid, shaken, in random order."""
        draw = np.random.default_rng(zlib.crc32(self.name.encode()))
        shapes = self.shapes if shapes is None else shapes
        domains = self.domain if isinstance(self.domain, list) else [self.domain] * len(shapes)
        arrays = []
        for shape, (low, high) in zip(shapes, domains, strict=True):
            n = int(np.prod(shape))
            places = draw.permutation(n) + 0.5 + draw.uniform(-0.3, 0.3, n)
            arrays.append((low + (high - low) * places / max(n, 1)).reshape(shape))
        return arrays


def _table() -> Iterator[Row]:
    def row(name: str, call: Callable[..., Any], *shapes: Shape, **options: Any) -> Row:
        return Row(name, call, list(shapes), **options)

    # arithmetic
    yield row("add", lambda t, x, y: x + y, (3, 5, 7), (5, 1))
    yield row("add number", lambda t, x: 2 + x + 0.5, (3, 5))
    yield row("add alpha", lambda t, x, y: t.add(x, y, alpha=3), (3, 5), (5,))
    yield row("add to itself", lambda t, x: x + x, (3, 5))
    yield row("sub", lambda t, x, y: x - y, (3, 1, 7), (5, 7))
    yield row("rsub", lambda t, x: 2 - x, (3, 5))
    yield row("sub alpha", lambda t, x, y: x.sub(y, alpha=0.5), (3, 5), (3, 5))
    yield row("mul", lambda t, x, y: x * y, (3, 5), (7, 3, 1))
    yield row("mul number", lambda t, x: 3 * x * 0.5, (3, 5))
    yield row("mul by itself", lambda t, x: x * x, (3, 5))
    yield row("div", lambda t, x, y: x / y, (3, 5), (7, 3, 1), domain=[REAL, POSITIVE])
    yield row("rdiv", lambda t, x: 2 / x, (3, 5), domain=POSITIVE)
    yield row("div by itself", lambda t, x: x / x, (3, 5), domain=POSITIVE)
    yield row("div trunc", lambda t, x, y: t.div(x, y, rounding_mode="trunc"), (3, 5), (5,))
    yield row("div floor", lambda t, x, y: t.div(x, y, rounding_mode="floor"), (3, 5), (5,))
    yield row("neg", lambda t, x: -x, (3, 5))
    yield row("square", lambda t, x: t.square(x), (3, 5))
    yield row("reciprocal", lambda t, x: t.reciprocal(x), (3, 5), domain=POSITIVE)
    yield row("abs", lambda t, x: abs(x), (3, 5))
    yield row("sign", lambda t, x: t.sign(x), (3, 5))
    yield row("floor", lambda t, x: t.floor(x), (3, 5))
    yield row("ceil", lambda t, x: t.ceil(x), (3, 5))
    yield row("round", lambda t, x: t.round(x), (3, 5))
    yield row("round decimals", lambda t, x: t.round(x, decimals=1), (3, 5), half=0)
    yield row("trunc", lambda t, x: t.trunc(x), (3, 5))
    yield row("frac", lambda t, x: t.frac(x), (3, 5))
    yield row("remainder", lambda t, x, y: x % y, (3, 5), (5,), half=0)
    yield row("remainder number", lambda t, x: x % 0.7, (3, 5), half=0)
    yield row("fmod", lambda t, x, y: t.fmod(x, y), (3, 5), (5,), half=0)
    yield row("fmod number", lambda t, x: t.fmod(x, 0.7), (3, 5), half=0)
    yield row("lerp", lambda t, x, y, w: t.lerp(x, y, w), (3, 5), (3, 5), (3, 1))
    yield row("lerp number", lambda t, x, y: t.lerp(x, y, 0.3), (3, 5), (3, 5))
    yield row("addcmul", lambda t, x, y, z: t.addcmul(x, y, z, value=0.5), (3, 5), (3, 1), (5,))
    yield row(
        "addcdiv", lambda t, x, y, z: t.addcdiv(x, y, z, value=0.5), (3, 5), (3, 1), (5,),
        domain=[REAL, REAL, POSITIVE],
    )  # fmt: skip

    # powers, exponentials, logarithms
    yield row("pow", lambda t, x, y: x**y, (3, 5), (5,), domain=[POSITIVE, REAL])
    yield row("pow number", lambda t, x: x**3, (3, 5))
    yield row("pow fraction", lambda t, x: x**-1.5, (3, 5), domain=POSITIVE)
    yield row("pow of number", lambda t, x: 2**x, (3, 5))
    yield row("sqrt", lambda t, x: t.sqrt(x), (3, 5), domain=POSITIVE)
    yield row("rsqrt", lambda t, x: t.rsqrt(x), (3, 5), domain=POSITIVE)
    yield row("exp", lambda t, x: t.exp(x), (3, 5))
    yield row("exp2", lambda t, x: t.exp2(x), (3, 5))
    yield row("expm1", lambda t, x: t.expm1(x), (3, 5))
    yield row("log", lambda t, x: t.log(x), (3, 5), domain=POSITIVE)
    yield row("log2", lambda t, x: t.log2(x), (3, 5), domain=POSITIVE)
    yield row("log10", lambda t, x: t.log10(x), (3, 5), domain=POSITIVE)
    yield row("log1p", lambda t, x: t.log1p(x), (3, 5), domain=POSITIVE)
    yield row("logaddexp", lambda t, x, y: t.logaddexp(x, y), (3, 5), (5,))

    # waves and sigmoids
    yield row("sin", lambda t, x: t.sin(x), (3, 5))
    yield row("cos", lambda t, x: t.cos(x), (3, 5))
    yield row("tan", lambda t, x: t.tan(x), (3, 5), domain=UNIT)
    yield row("tanh", lambda t, x: t.tanh(x), (3, 5))
    yield row("asin", lambda t, x: t.asin(x), (3, 5), domain=UNIT)
    yield row("acos", lambda t, x: t.acos(x), (3, 5), domain=UNIT)
    yield row("atan", lambda t, x: t.atan(x), (3, 5))
    yield row("sinh", lambda t, x: t.sinh(x), (3, 5))
    yield row("cosh", lambda t, x: t.cosh(x), (3, 5))
    yield row("asinh", lambda t, x: t.asinh(x), (3, 5))
    yield row("acosh", lambda t, x: t.acosh(x), (3, 5), domain=(1.1, 3))
    yield row("sigmoid", lambda t, x: t.sigmoid(x), (3, 5))
    yield row("erf", lambda t, x: t.erf(x), (3, 5))
    yield row("relu", lambda t, x: t.relu(x), (3, 5))

    # choices
    yield row("maximum", lambda t, x, y: t.maximum(x, y), (3, 5), (5,))
    yield row("minimum", lambda t, x, y: t.minimum(x, y), (3, 5), (5,))
    yield row("max of two", lambda t, x, y: t.max(x, y), (3, 5), (5,))
    yield row("min of two", lambda t, x, y: t.min(x, y), (3, 5), (5,))
    yield row("clamp", lambda t, x: t.clamp(x, -1, 1.5), (3, 5))
    yield row("clamp below", lambda t, x: x.clamp(min=-1), (3, 5))
    yield row("clamp above", lambda t, x: x.clamp(max=1), (3, 5))
    yield row("clamp crossed", lambda t, x: x.clamp(1, -1), (3, 5))
    yield row("clamp tensors", lambda t, x, y, z: t.clamp(x, y, z), (3, 5), (5,), (3, 1))
    yield row("clamp_min", lambda t, x: t.clamp_min(x, 0.5), (3, 5))
    yield row("clamp_max", lambda t, x: t.clamp_max(x, 0.5), (3, 5))
    yield row("where", lambda t, x, y: t.where(x > 0, x, y), (3, 5), (5,))
    yield row("where numbers", lambda t, x: t.where(x > 0, x, 2.0) + t.where(x < 1, 0, x), (3, 5))
    yield row("where method", lambda t, x, y: x.where(y > 0, y), (3, 5), (5,))
    yield row("masked_fill", lambda t, x, y: x.masked_fill(y > 0, 2.5), (7, 3, 5), (3, 5))
    yield row("masked_fill 0-d", lambda t, x: x.masked_fill(x > 0, x.detach().sum() * 0), (3, 5))
    yield row(
        "nan_to_num", lambda t, x: t.nan_to_num(1 / x.floor(), 0.5, 7.0, -7.0), (3, 5), half=0
    )

    # no derivative
    yield row(
        "comparisons", lambda t, x, y: [x < y, x <= y, x > y, x >= y, x == y, x != y], (3, 5), (5,)
    )
    yield row(
        "numbers", lambda t, x: [t.isnan(x), t.isinf(x), t.isfinite(x), x.isclose(x + 1)], (3, 5)
    )
    yield row("floor_divide", lambda t, x, y: x.detach() // y.detach(), (3, 5), (5,), half=0)
    yield row("argmax", lambda t, x: [x.argmax(), x.argmax(1), x.argmin(0, keepdim=True)], (3, 5))
    yield row("any, all", lambda t, x: [(x > 0).any(1), (x > -2).all(0), (x > 0).any()], (3, 5))
    yield row("count_nonzero", lambda t, x: [(x > 0).count_nonzero(1), x.count_nonzero()], (3, 5))
    yield row("nonzero", lambda t, x: [t.nonzero(x > 0), *t.nonzero(x > 1, as_tuple=True)], (3, 5))

    # reductions
    yield row("sum", lambda t, x: x.sum(), (3, 5, 7))
    yield row("sum dim", lambda t, x: x.sum(1), (3, 5, 7))
    yield row("sum dims", lambda t, x: x.sum((0, -1), keepdim=True), (3, 5, 7))
    yield row("mean", lambda t, x: t.mean(x), (3, 5, 7))
    yield row("mean dims", lambda t, x: t.mean(x, (0, 2)), (3, 5, 7))
    yield row("var", lambda t, x: t.var(x, 1), (3, 5, 7))
    yield row("var correction", lambda t, x: x.var((0, 2), correction=2, keepdim=True), (3, 5, 7))
    yield row("std", lambda t, x: t.std(x, 1, keepdim=True), (3, 5, 7))
    yield row("std biased", lambda t, x: x.std(unbiased=False), (3, 5, 7))
    yield row("var_mean", lambda t, x: t.var_mean(x, 1), (3, 5, 7))
    yield row("std_mean", lambda t, x: t.std_mean(x, (0, 1), correction=0), (3, 5, 7))
    yield row("prod", lambda t, x: x.prod(), (3, 5))
    yield row("prod dim", lambda t, x: t.prod(x, 1, keepdim=True), (3, 5, 7))
    yield row("prod zeros", lambda t, x: (x - x[:, :1].detach()).prod(1), (3, 5))
    yield row("amax", lambda t, x: t.amax(x, (0, 2)), (3, 5, 7))
    yield row("amax ties", lambda t, x: t.amax(x.clamp(max=0.5), 1, keepdim=True), (3, 5, 7))
    yield row("amin", lambda t, x: x.amin(), (3, 5, 7))
    yield row("max", lambda t, x: x.max(), (3, 5))
    yield row("min", lambda t, x: t.min(x), (3, 5))
    yield row("max dim", lambda t, x: t.max(x, 1), (3, 5, 7), lacks=TIES)
    yield row("min dim", lambda t, x: x.min(dim=0, keepdim=True), (3, 5, 7), lacks=TIES)
    yield row("cumsum", lambda t, x: t.cumsum(x, 1), (3, 5, 7))
    yield row("cumprod", lambda t, x: t.cumprod(x, 1), (3, 5, 7), domain=POSITIVE)
    yield row("cumprod zeros", lambda t, x: (x - x[:, 1:2].detach()).cumprod(1), (3, 5))
    yield row("norm", lambda t, x: x.norm(), (3, 5))
    yield row("norm dim", lambda t, x: t.norm(x, dim=1, keepdim=True), (3, 5))
    yield row("norm 1", lambda t, x: t.norm(x, 1, dim=(0, 1)), (3, 5))
    yield row("norm 3", lambda t, x: t.norm(x, 3.0, 0), (3, 5))
    yield row("norm inf", lambda t, x: t.norm(x, float("inf"), -1), (3, 5))
    yield row("logsumexp", lambda t, x: t.logsumexp(x, 1), (3, 5, 7))
    yield row("logsumexp dims", lambda t, x: x.logsumexp((0, 2), keepdim=True), (3, 5, 7))

    # order
    yield row("sort", lambda t, x: t.sort(x, 1), (3, 7), lacks=TIES)
    yield row("sort descending", lambda t, x: x.sort(0, descending=True), (5, 3), lacks=TIES)
    yield row("argsort", lambda t, x: t.argsort(x, 1, descending=True), (3, 7), lacks=TIES)
    yield row("topk", lambda t, x: t.topk(x, 3, 1), (5, 7), lacks=TIES)
    yield row("topk smallest", lambda t, x: x.topk(2, dim=0, largest=False), (5, 7), lacks=TIES)

    # shape
    yield row("reshape", lambda t, x: x.reshape(-1, 7), (3, 5, 7))
    yield row("view", lambda t, x: x.view(15, 7), (3, 5, 7), lacks=NOT_A_VIEW)
    yield row("flatten", lambda t, x: t.flatten(x, 1), (3, 5, 7))
    yield row("unflatten", lambda t, x: x.unflatten(1, (2, -1)), (3, 14))
    yield row("ravel", lambda t, x: t.ravel(x), (3, 5))
    yield row("transpose", lambda t, x: t.transpose(x, 0, -1), (3, 5, 7))
    yield row("permute", lambda t, x: x.permute(2, 0, 1), (3, 5, 7))
    yield row("movedim", lambda t, x: t.movedim(x, 0, -1), (3, 5, 7))
    yield row("t, T", lambda t, x: x.t() + x.T, (3, 5))
    yield row("mT", lambda t, x: x.mT, (2, 3, 5), lacks=DEPRECATED)
    yield row("squeeze", lambda t, x: x.squeeze(1) + t.squeeze(x), (3, 1, 5))
    yield row("unsqueeze", lambda t, x: x.unsqueeze(1), (3, 5))
    yield row("expand", lambda t, x: x.expand(7, -1, 5), (3, 1))
    yield row("broadcast_to", lambda t, x: t.broadcast_to(x, (7, 3, 5)), (3, 1))
    yield row("flip", lambda t, x: t.flip(x, (0, 2)), (3, 5, 7))
    yield row("roll", lambda t, x: t.roll(x, (2, -1), (0, 1)) + t.roll(x, 3), (5, 7))
    yield row("tril", lambda t, x: t.tril(x, -1), (2, 3, 5))
    yield row("triu", lambda t, x: x.triu(1), (2, 3, 5))
    yield row("cat", lambda t, x, y: t.cat([x, y, x], 1), (3, 5), (3, 2))
    yield row("cat last", lambda t, x, y: t.cat([x, y], -1), (3, 5), (3, 2))
    yield row("stack", lambda t, x, y: t.stack((x, y), -1), (3, 5), (3, 5))
    yield row("split", lambda t, x: t.split(x, 2, 1), (3, 5))
    yield row("split sizes", lambda t, x: x.split([1, 2, 0, 2], -1)[::2], (3, 5))
    yield row("chunk", lambda t, x: t.chunk(x, 3, 0), (7, 3))
    yield row("unbind", lambda t, x: t.unbind(x, 1), (3, 5))
    yield row("unbind one", lambda t, x: t.unbind(x, 0)[1], (3, 5))
    yield row("repeat", lambda t, x: x.repeat(2, 1, 3), (3, 5))
    yield row("tile", lambda t, x: t.tile(x, (2,)), (3, 5))
    yield row("repeat_interleave", lambda t, x: t.repeat_interleave(x, 3, 1), (3, 5))
    yield row("repeat_interleave flat", lambda t, x: x.repeat_interleave(2), (3, 5))
    yield row(
        "repeat_interleave each",
        lambda t, x: x.repeat_interleave(t.tensor([2, 0, 3]), dim=0),
        (3, 5),
    )
    yield row("diag", lambda t, x: t.diag(x, 1), (5,))
    yield row("diag of matrix", lambda t, x: x.diag(-1), (5, 3))
    yield row("diagonal", lambda t, x: t.diagonal(x, 1, 0, 2), (3, 5, 7))
    yield row("diag_embed", lambda t, x: t.diag_embed(x, -1), (3, 5))
    yield row("clone", lambda t, x: x.clone() + x.contiguous(), (3, 5))
    yield row("double", lambda t, x: x.double(), (3, 5), half=0)
    yield row("to", lambda t, x: x.to(t.float64), (3, 5), half=0)

    # taking and placing
    yield row("index int", lambda t, x: x[1], (3, 5))
    yield row("index slice", lambda t, x: x[1:, ::2], (3, 5))
    yield row("index None, ...", lambda t, x: x[None, ..., -1], (3, 5))
    yield row("index tensor", lambda t, x: x[t.tensor([[2, 0], [0, -1]])], (3, 5))
    yield row(
        "index tensors", lambda t, x: x[:, t.tensor([[1], [4]]), t.tensor([0, 2, 0])], (2, 5, 3)
    )
    yield row("index apart", lambda t, x: x[t.tensor([1, 0]), :, t.tensor([0, 2])], (2, 5, 3))
    yield row("index mask", lambda t, x: x[x > 0], (3, 5))
    yield row(
        "index rows by mask", lambda t, x: x[:, t.tensor([True, False, True, True, False])], (3, 5)
    )
    yield row("gather", lambda t, x: t.gather(x, 1, t.tensor([[0, 0, 2], [1, 1, 4]])), (3, 5))
    yield row("take_along_dim", lambda t, x: t.take_along_dim(x, t.tensor([[0, 0, 2]]), 1), (3, 5))
    yield row("narrow", lambda t, x: t.narrow(x, 1, 1, 3), (3, 5))
    yield row("select", lambda t, x: x.select(1, -2), (3, 5))
    yield row("index_select", lambda t, x: t.index_select(x, 1, t.tensor([0, 3, 0])), (3, 5))
    yield row(
        "masked_select", lambda t, x: t.masked_select(x, t.tensor([True, False, True])), (5, 3)
    )
    yield row(
        "scatter", lambda t, x, y: t.scatter(x, 1, t.tensor([[0, 2], [4, 1]]), y), (3, 5), (2, 2)
    )
    yield row("scatter number", lambda t, x: x.scatter(0, t.tensor([[0, 2], [2, 1]]), 2.5), (3, 5))
    yield row(
        "scatter_add",
        lambda t, x, y: x.scatter_add(1, t.tensor([[0, 0, 4], [3, 3, 3]]), y),
        (3, 5),
        (2, 3),
    )
    yield row(
        "index_add", lambda t, x, y: t.index_add(x, 0, t.tensor([2, 0, 2]), y), (5, 7), (3, 7)
    )
    yield row(
        "index_copy", lambda t, x, y: t.index_copy(x, 0, t.tensor([2, 0, 4]), y), (5, 7), (3, 7)
    )
    yield row("index_fill", lambda t, x: t.index_fill(x, 1, t.tensor([2, 0, 4]), 1.5), (3, 5))
    yield row("set item", _set_items, (3, 5), (5,), lacks=IN_PLACE)
    yield row(
        "embedding", lambda t, x: t.nn.functional.embedding(t.tensor([[0, 2], [2, 1]]), x), (3, 5)
    )
    yield row(
        "embedding padding",
        lambda t, x: t.nn.functional.embedding(t.tensor([0, 2, 2]), x, padding_idx=2),
        (3, 5), lacks=NO_TRANSPOSE,
    )  # fmt: skip

    # products
    yield row("matmul", lambda t, x, y: x @ y, (3, 5), (5, 7))
    yield row("matmul batch", lambda t, x, y: x @ y, (2, 1, 3, 5), (7, 5, 3))
    yield row("matmul folded", lambda t, x, y: x @ y, (2, 3, 5), (5, 7))
    yield row("matmul vectors", lambda t, x, y: t.matmul(x, y), (5,), (5,))
    yield row("matmul left vector", lambda t, x, y: x @ y, (5,), (2, 5, 3))
    yield row("matmul right vector", lambda t, x, y: x @ y, (2, 3, 5), (5,))
    yield row("matmul with itself", lambda t, x: x @ x.mT, (3, 5))
    yield row("mm", lambda t, x, y: t.mm(x, y), (3, 5), (5, 7))
    yield row("bmm", lambda t, x, y: t.bmm(x, y), (2, 3, 5), (2, 5, 7))
    yield row("mv", lambda t, x, y: t.mv(x, y), (3, 5), (5,))
    yield row("dot", lambda t, x, y: t.dot(x, y), (5,), (5,))
    yield row("outer", lambda t, x, y: t.outer(x, y), (3,), (5,))
    yield row("addmm", lambda t, x, y, z: t.addmm(x, y, z, beta=0.5, alpha=2), (7,), (3, 5), (5, 7))
    yield row(
        "baddbmm", lambda t, x, y, z: x.baddbmm(y, z, beta=0.5), (2, 3, 7), (2, 3, 5), (2, 5, 7)
    )
    yield row("einsum", lambda t, x, y: t.einsum("bij,bjk->bik", x, y), (2, 3, 5), (2, 5, 7))
    yield row("einsum sums", lambda t, x, y: t.einsum("ijk,jl->li", x, y), (2, 3, 5), (3, 7))
    yield row("einsum implicit", lambda t, x, y: t.einsum("ba,ac", x, y), (3, 5), (5, 7))
    yield row("einsum diagonal", lambda t, x: t.einsum("ii->i", x) + t.einsum("ii", x), (5, 5))
    yield row("einsum dots", lambda t, x, y: t.einsum("...ij,kj->k...i", x, y), (2, 3, 5), (7, 5))
    yield row(
        "einsum three", lambda t, x, y, z: t.einsum("ij,jk,k->i", x, y, z), (3, 5), (5, 7), (7,)
    )
    yield row("linear", lambda t, x, w, b: t.nn.functional.linear(x, w, b), (2, 3, 5), (7, 5), (7,))
    yield row("linear unbiased", lambda t, x, w: t.nn.functional.linear(x, w), (2, 3, 5), (7, 5))
    yield row(
        "linear vector", lambda t, x, w, b: t.nn.functional.linear(x, w, b), (5,), (7, 5), (7,)
    )

    # fused: softmax and losses, normalisation, attention
    yield row("softmax", lambda t, x: t.softmax(x, 1), (3, 5, 7))
    yield row("softmax last", lambda t, x: x.softmax(-1), (3, 5))
    yield row("log_softmax", lambda t, x: t.log_softmax(x, -1), (3, 5))
    yield row("gelu", lambda t, x: t.nn.functional.gelu(x), (3, 5))
    yield row("gelu tanh", lambda t, x: t.nn.functional.gelu(x, approximate="tanh"), (3, 5))
    yield row(
        "layer_norm",
        lambda t, x, w, b: t.nn.functional.layer_norm(x, (7,), w, b),
        (3, 5, 7),
        (7,),
        (7,),
    )
    yield row("layer_norm bare", lambda t, x: t.nn.functional.layer_norm(x, (5, 7)), (3, 5, 7))
    yield row(
        "cross_entropy", lambda t, x: t.nn.functional.cross_entropy(x, t.tensor([4, 0, 2])), (3, 5)
    )
    yield row(
        "cross_entropy ignoring",
        lambda t, x: t.nn.functional.cross_entropy(x, t.tensor([4, -100, 2]), reduction="none"),
        (3, 5),
    )  # fmt: skip
    yield row("nll_loss", lambda t, x: t.nn.functional.nll_loss(x, t.tensor([4, 0, 2])), (3, 5))
    yield row("mse_loss", lambda t, x, y: t.nn.functional.mse_loss(x, y), (3, 5), (3, 5))
    yield row(
        "attention", lambda t, q, k, v: t.nn.functional.scaled_dot_product_attention(q, k, v),
        (2, 3, 5, 7), (2, 3, 11, 7), (2, 3, 11, 13),
    )  # fmt: skip
    yield row(
        "attention causal",
        lambda t, q, k, v: t.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
        (2, 3, 5, 7), (2, 3, 5, 7), (2, 3, 5, 7), lacks=ONCE,
    )  # fmt: skip


def _set_items(t: Any, x: Any, y: Any) -> Any:
    z = x.clone()
    z[1] = y
    z[:, 2:4] = z[:, :2] * 2
    z[t.tensor([0, 2]), 4] = 0.5
    return z


ROWS = list(_table())
