"""Rows for special functions, scans, statistics, tensors joined and taken apart, random choices.

Each is read by every property of test_properties.py, like those of table.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tests.ops.table import POSITIVE, REAL, TIES, UNIT, Row, Shape

PROBABILITY = (0.05, 0.95)
ABOVE_ONE = (1.1, 4)
NO_HISTORY = {"empty": "PyTorch's norm of nothing is a zero without a gradient"}
MATRICES: dict[str, Any] = {
    "half": 0, "lacks": {"stretched": "such matrices are singular, or have equal singular values"}
}  # fmt: skip
IN_MEMORY_ORDER = dict.fromkeys(
    ("strided", "stretched"), "numbers are drawn in the order of memory"
)


def _table() -> Iterator[Row]:
    def row(name: str, call: Callable[..., Any], *shapes: Shape, **options: Any) -> Row:
        return Row(name, call, list(shapes), **options)

    # elementwise
    yield row("atanh", lambda t, x: t.atanh(x), (3, 5), domain=UNIT)
    yield row("atan2", lambda t, x, y: t.atan2(x, y), (3, 5), (5,))
    yield row("hypot", lambda t, x, y: t.hypot(x, y), (3, 5), (5,))
    yield row("fmax", lambda t, x, y: t.fmax(x, y), (3, 5), (5,))
    yield row("fmin", lambda t, x, y: t.fmin(x, y), (3, 5), (5,))
    yield row("true_divide", lambda t, x, y: t.true_divide(x, y), (3, 5), (5,), domain=POSITIVE)
    yield row("erfc", lambda t, x: t.erfc(x), (3, 5))
    yield row("erfinv", lambda t, x: t.erfinv(x), (3, 5), domain=UNIT)
    yield row("lgamma", lambda t, x: t.lgamma(x), (3, 5), domain=ABOVE_ONE)
    yield row("digamma", lambda t, x: t.digamma(x), (3, 5), domain=ABOVE_ONE)
    yield row("polygamma", lambda t, x: t.polygamma(2, x), (3, 5), domain=ABOVE_ONE)
    yield row("logit", lambda t, x: t.logit(x), (3, 5), domain=PROBABILITY)
    yield row("logit eps", lambda t, x: x.logit(0.2), (3, 5), domain=PROBABILITY, half=0)
    yield row("sinc", lambda t, x: t.sinc(x), (3, 5))
    yield row("xlogy", lambda t, x, y: t.xlogy(x, y), (3, 5), (5,), domain=[REAL, POSITIVE])
    yield row("xlogy number", lambda t, x: t.xlogy(2.5, x) + x.xlogy(3), (3, 5), domain=POSITIVE)

    # products
    yield row(
        "addbmm", lambda t, x, y, z: t.addbmm(x, y, z, beta=0.5, alpha=2),
        (3, 7), (2, 3, 5), (2, 5, 7),
    )  # fmt: skip
    yield row("addmv", lambda t, x, y, z: t.addmv(x, y, z, beta=0.5), (3,), (3, 5), (5,))
    yield row("addr", lambda t, x, y, z: x.addr(y, z, alpha=2), (3, 5), (3,), (5,))
    yield row("inner", lambda t, x, y: t.inner(x, y), (2, 3, 5), (7, 5))
    yield row("vdot", lambda t, x, y: t.vdot(x, y), (5,), (5,))
    yield row("kron", lambda t, x, y: t.kron(x, y), (3, 5), (2, 7))
    yield row("kron of ranks", lambda t, x, y: t.kron(x, y), (5,), (2, 3))
    yield row("trace", lambda t, x: t.trace(x), (3, 5))
    yield row("tensordot", lambda t, x, y: t.tensordot(x, y, 2), (2, 3, 5), (3, 5, 7))
    yield row(
        "tensordot dims", lambda t, x, y: t.tensordot(x, y, dims=([0, -1], [2, 0])),
        (2, 3, 5), (5, 7, 2),
    )  # fmt: skip
    yield row("dist", lambda t, x, y: t.dist(x, y, 3), (3, 5), (5,))

    # matrices
    yield row("linalg.inv", lambda t, x: t.linalg.inv(_well(t, x)), (2, 5, 5), **MATRICES)
    yield row("linalg.det", lambda t, x: t.linalg.det(_well(t, x)), (2, 5, 5), **MATRICES)
    yield row("linalg.slogdet", lambda t, x: _slogdet(t, _well(t, x)), (5, 5), **MATRICES)
    yield row(
        "linalg.solve", lambda t, x, y: t.linalg.solve(_well(t, x), y), (3, 5, 5), (3, 5, 2),
        **MATRICES,
    )  # fmt: skip
    yield row(
        "linalg.solve vector", lambda t, x, y: t.linalg.solve(_well(t, x), y), (2, 5, 5), (5,),
        **MATRICES,
    )  # fmt: skip
    yield row(
        "linalg.solve right", lambda t, x, y: t.linalg.solve(_well(t, x), y, left=False),
        (5, 5), (2, 3, 5), **MATRICES,
    )  # fmt: skip
    yield row(
        "linalg.cholesky", lambda t, x: t.linalg.cholesky(_definite(t, x)), (2, 5, 5), **MATRICES
    )
    yield row(
        "linalg.cholesky upper", lambda t, x: t.linalg.cholesky(_definite(t, x), upper=True),
        (5, 5), **MATRICES,
    )  # fmt: skip
    yield row("linalg.svdvals", lambda t, x: t.linalg.svdvals(x), (2, 3, 5), **MATRICES)
    for p in (0, 0.5, 1, 1.5, 2, 3, -2, float("inf"), -float("inf")):
        yield row(
            f"linalg.vector_norm {p}", lambda t, x, p=p: t.linalg.vector_norm(x, p, 1), (3, 5, 7)
        )
    for p in ("fro", "nuc", 1, -1, 2, -2, float("inf"), -float("inf")):
        yield row(
            f"linalg.matrix_norm {p}",
            lambda t, x, p=p: t.linalg.matrix_norm(x, p, (0, 2), keepdim=True), (3, 5, 7),
            half=8 if p == "fro" else 0,
            lacks={**MATRICES["lacks"], **NO_HISTORY} if p in ("nuc", 2, -2) else NO_HISTORY,
        )  # fmt: skip
    yield row("linalg.norm", lambda t, x: t.linalg.norm(x), (3, 5, 7))
    yield row("linalg.norm of matrix", lambda t, x: t.linalg.norm(x, 1), (5, 7), lacks=NO_HISTORY)
    yield row("norm 0.5", lambda t, x: t.norm(x, 0.5, 1), (3, 5))
    yield row("norm nuc", lambda t, x: x.norm("nuc"), (3, 5), **MATRICES)

    # along a dim
    yield row("cummax", lambda t, x: t.cummax(x, 1), (3, 5, 7))
    yield row("cummin", lambda t, x: x.cummin(-1), (3, 7))
    yield row("logcumsumexp", lambda t, x: t.logcumsumexp(x, 1), (3, 7))
    yield row("diff", lambda t, x: t.diff(x), (3, 7))
    yield row(
        "diff twice", lambda t, x, y, z: x.diff(2, 0, y, z), (3, 5), (1, 5), (2, 5)
    )  # fmt: skip
    yield row("median", lambda t, x: t.median(x), (3, 5))
    yield row("median dim", lambda t, x: t.median(x, 1, keepdim=True), (3, 5, 2), lacks=TIES)
    yield row("nanmedian", lambda t, x: t.nanmedian(_gaps(t, x)), (3, 5))
    yield row("nanmedian dim", lambda t, x: _gaps(t, x).nanmedian(0), (7, 3), lacks=TIES)
    yield row("nansum", lambda t, x: t.nansum(_gaps(t, x), 1), (3, 5))
    yield row("nanmean", lambda t, x: t.nanmean(_gaps(t, x), (0, 2), keepdim=True), (3, 5, 2))
    yield row("quantile", lambda t, x: t.quantile(x, 0.3), (3, 5), half=0)
    yield row(
        "quantile dim",
        lambda t, x, q: t.quantile(x, q, 1, keepdim=True), (3, 5, 2), (7,),
        domain=[REAL, PROBABILITY], half=0,
    )  # fmt: skip
    yield row(
        "quantile midpoint", lambda t, x: x.quantile(0.3, 0, interpolation="midpoint"), (7, 3),
        half=0,
    )  # fmt: skip
    yield row(
        "quantile nearest", lambda t, x: x.quantile(0.3, 0, interpolation="nearest"), (7, 3), half=0
    )
    yield row("nanquantile", lambda t, x: t.nanquantile(_gaps(t, x), 0.4, 1), (3, 7), half=0)

    # joined, turned, taken apart
    yield row("hstack", lambda t, x, y: t.hstack([x, y]), (3, 5), (3, 2))
    yield row("hstack vectors", lambda t, x, y: t.hstack((x, y)), (3,), (5,))
    yield row("vstack", lambda t, x, y: t.vstack([x, y]), (3, 5), (5,))
    yield row("dstack", lambda t, x, y: t.dstack([x, y]), (3, 5), (3, 5, 2))
    yield row("atleast", lambda t, x: [t.atleast_1d(x), t.atleast_2d(x), t.atleast_3d(x)], (5,))
    yield row("meshgrid", lambda t, x, y: t.stack(t.meshgrid(x, y, indexing="ij")), (3,), (5,))
    yield row(
        "meshgrid xy",
        lambda t, x, y, z: t.stack(t.meshgrid([x, y, z], indexing="xy")),
        (3,),
        (5,),
        (2,),
    )
    yield row("rot90", lambda t, x: t.rot90(x, 1, (0, 2)), (3, 5, 7))
    yield row("rot90 back", lambda t, x: x.rot90(-1), (3, 5))
    yield row("rot90 twice", lambda t, x: x.rot90(2), (3, 5))
    yield row("swapaxes", lambda t, x: t.swapaxes(x, 0, 2) + x.swapdims(0, -1), (3, 5, 7))
    yield row("tensor_split", lambda t, x: t.tensor_split(x, 3, 1), (3, 7))
    yield row("tensor_split at", lambda t, x: x.tensor_split((1, 4, 2), 1), (3, 7))
    yield row("expand_as", lambda t, x, y: x.expand_as(y) * y, (5,), (3, 5))
    yield row("reshape_as", lambda t, x, y: x.reshape_as(y) * y, (3, 5), (5, 3))
    yield row("view_as", lambda t, x, y: (x + 0).view_as(y), (3, 5), (5, 3))
    yield row("split_with_sizes", lambda t, x: x.split_with_sizes([1, 2, 2], 1), (3, 5))

    # parts
    yield row("take", lambda t, x: t.take(x, t.tensor([[0, -1], [3, 3]])), (3, 5))
    yield row("unfold dim", lambda t, x: x.unfold(1, 3, 2), (3, 7, 2))
    yield row("select_scatter", lambda t, x, y: t.select_scatter(x, y, 1, -2), (3, 5), (3,))
    yield row("slice_scatter", lambda t, x, y: t.slice_scatter(x, y, 1, 1, 6, 2), (3, 7), (3, 3))
    yield row("diagonal_scatter", lambda t, x, y: t.diagonal_scatter(x, y, -1), (5, 3), (3,))
    yield row(
        "searchsorted",
        lambda t, x, y: t.searchsorted(
            x.detach().sort().values.contiguous(), y.detach().contiguous(), right=True
        ),
        (3, 5), (3, 7),
    )  # fmt: skip
    yield row(
        "searchsorted vector",
        lambda t, x, y: t.searchsorted(
            x.detach().contiguous(), y.detach().contiguous(), sorter=x.argsort(), out_int32=True
        ),
        (5,), (3, 7),
    )  # fmt: skip

    # whole numbers and truth
    yield row("allclose", lambda t, x: t.tensor([t.allclose(x, x), t.allclose(x, x + 1)]), (3, 5))
    yield row(
        "bincount", lambda t, x: t.bincount(t.tensor([0, 3, 3, 1, 0]), x.detach(), 7), (5,), half=0
    )
    yield row(
        "unique",
        lambda t, x: t.unique(x.detach().round(), return_inverse=True, return_counts=True), (3, 5),
    )  # fmt: skip

    # random choices: the same seed makes the same
    yield row(
        "bernoulli", lambda t, x: t.bernoulli(_seeded(t, x.detach().double())), (3, 5),
        domain=PROBABILITY, half=0,
    )  # fmt: skip
    yield row(
        "multinomial", lambda t, x: t.multinomial(_seeded(t, x.detach().double()), 3), (5, 7),
        domain=PROBABILITY, half=0, lacks=IN_MEMORY_ORDER,
    )  # fmt: skip
    yield row(
        "dropout", lambda t, x: t.nn.functional.dropout(_seeded(t, x), 0.3), (3, 5),
        lacks=IN_MEMORY_ORDER,
    )  # fmt: skip


def _slogdet(t: Any, x: Any) -> Any:
    """PyTorch's sign requires a gradient, which is zero."""
    sign, logabsdet = t.linalg.slogdet(x)
    return [sign.detach(), logabsdet]


def _well(t: Any, x: Any) -> Any:
    """Matrices far from singular."""
    return x + 7 * t.eye(x.shape[-1]).to(x)


def _definite(t: Any, x: Any) -> Any:
    """Positive-definite matrices; x on either side of the diagonal has a gradient of its own."""
    return x @ x.mT + t.eye(x.shape[-1]).to(x)


def _gaps(t: Any, x: Any) -> Any:
    """x with NaN in every fourth place."""
    return x.masked_fill((t.arange(x.numel()) % 4 == 1).reshape(x.shape).to(x.device), float("nan"))


def _seeded(t: Any, x: Any) -> Any:
    t.manual_seed(3)
    return x


ROWS = list(_table())
