"""Rows for elements placed by index or mask, for logic and for bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tests.ops.table import Row, Shape


def _table() -> Iterator[Row]:
    def row(name: str, call: Callable[..., Any], *shapes: Shape, **options: Any) -> Row:
        return Row(name, call, list(shapes), **options)

    yield row("index_put", lambda t, x, y: t.index_put(x, (t.tensor([2, 0]),), y), (3, 5), (2, 5))
    yield row(
        "index_put pairs",
        lambda t, x, y: x.index_put((t.tensor([2, 0, 1]), t.tensor([[0], [4]])), y),
        (3, 5), (2, 3),
    )  # fmt: skip
    yield row(
        "index_put added",
        lambda t, x, y: x.index_put((t.tensor([2, 2, -3]),), y, accumulate=True),
        (3, 5), (5,),
    )  # fmt: skip
    yield row(
        "index_put by mask", lambda t, x, y: x.index_put((x.detach() > 0,), y, True), (3, 5), (1,),
        lacks={"empty": "PyTorch refuses a 0-d mask here, though x[mask] takes it"},
    )  # fmt: skip
    yield row(
        "masked_scatter", lambda t, x, y: t.masked_scatter(x, x.detach() > 0, y), (3, 5), (5, 3)
    )
    yield row(
        "masked_scatter rows",
        lambda t, x, y: x.masked_scatter(t.tensor([True, False, True, True, False]), y),
        (3, 5), (11,),
    )  # fmt: skip
    yield row("logic", _logic, (3, 5), (5,))
    yield row("bits", _bits, (3, 5), (5,))


def _logic(t: Any, x: Any, y: Any) -> Any:
    a, b = x > 0, y.round()
    return [
        t.logical_and(a, b), t.logical_or(a, b), t.logical_xor(a, b), t.logical_not(b),
        a.logical_and(a), a & a, a | ~a, a ^ a,
    ]  # fmt: skip


def _bits(t: Any, x: Any, y: Any) -> Any:
    """Of whole numbers, whatever dtype x has."""
    a, b = (x * 7).long(), (y * 5).long()
    return [
        t.bitwise_and(a, b), t.bitwise_or(a, b), t.bitwise_xor(a, b), t.bitwise_not(a),
        a & 6, 6 | a, a ^ 3, ~b, a << 2, a >> 1,
        t.bitwise_left_shift(b, a.abs()), t.bitwise_right_shift(a, b.abs()),
    ]  # fmt: skip


ROWS = list(_table())
