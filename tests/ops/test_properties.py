"""What must hold for every op: each test is one property over all rows of the table."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tensorgrad.backend import is_array
from tensorgrad.fit import fit
from tensorgrad.func import jvp, vjp
from tensorgrad.op import PICK
from tests.ops.compare import (
    assert_same,
    dtype_name,
    floats,
    gradients,
    is_float,
    leaves,
    nodes_of,
    outcome,
    run,
    seeds,
    tensors,
    to_numpy,
)
from tests.ops.table import ROWS, Row
from tests.ops.table_conv import ROWS as CONV_ROWS
from tests.ops.table_more import ROWS as MORE_ROWS
from tests.ops.table_nn import ROWS as NN_ROWS
from tests.ops.table_places import ROWS as PLACES_ROWS

ROWS = [*ROWS, *MORE_ROWS, *PLACES_ROWS, *NN_ROWS, *CONV_ROWS]

rows = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])


def test_names_of_rows_are_distinct():
    assert len({row.name for row in ROWS}) == len(ROWS)


@rows
def test_value_and_gradient_equal_pytorch(row: Row):
    mine, theirs = (run(t, row.call, row.inputs()) for t in (tg, torch))
    assert_same(mine[0], theirs[0], what="value")
    assert_same(mine[1], theirs[1], what="gradient")


@rows
def test_second_derivative_equals_pytorch(row: Row):
    row.skip("second")

    def second(t):
        xs = leaves(row.inputs(), t)
        outs = floats(row.call(t, *xs))
        gs = [g.requires_grad_() for g in seeds(outs, t)]
        first = gradients(t, outs, xs, grad_outputs=gs, create_graph=True)
        first = [(g * w).sum() for g, w in zip(first, seeds(first, t), strict=True)]
        first = [g for g in first if g.requires_grad]
        ones = [t.ones_like(g) for g in first]
        if not first:
            return [t.zeros_like(x) for x in (*xs, *gs)]
        return gradients(t, first, [*xs, *gs], grad_outputs=ones)

    assert_same(second(tg), second(torch))


def along(row: Row):
    """The row as a function of its inputs with differentiable outputs only, and a direction."""
    arrays = row.inputs()
    if not floats(row.call(tg, *leaves(arrays, tg))):
        return None
    draw = np.random.default_rng(3)
    xs = leaves(arrays, tg, False)
    directions = leaves([draw.uniform(-1, 1, a.shape) for a in arrays], tg, False)

    def function(*inputs):
        return tuple(x for x in tensors(row.call(tg, *inputs)) if is_float(x))

    return function, tuple(xs), tuple(directions)


def inner(xs, ys) -> float:
    return sum(float((to_numpy(x) * to_numpy(y)).sum()) for x, y in zip(xs, ys, strict=True))


@rows
def test_forward_mode_is_the_transpose_of_reverse(row: Row):
    """<J t, g> = <t, J^T g>"""
    row.skip("forward")
    if (case := along(row)) is None:
        pytest.skip("no derivative")
    function, xs, directions = case
    out, tangents = jvp(function, xs, directions)
    value, pull = vjp(function, *xs)
    gs = tuple(seeds(out, tg))
    parts = pull(gs)
    parts = parts if len(xs) > 1 else (parts,)
    assert_same(out, tensors(row_floats(row, xs)), what="value under jvp")
    assert_same(value, out, what="value under vjp")
    assert [t.shape for t in tangents] == [o.shape for o in out]
    assert inner(tangents, gs) == pytest.approx(inner(directions, parts), rel=1e-9, abs=1e-9)


def row_floats(row: Row, xs):
    return [x for x in tensors(row.call(tg, *xs)) if is_float(x)]


@rows
def test_forward_mode_nests(row: Row):
    """d/ds d/dt f(x + s u + t v) is symmetric, and is what two reverse passes give."""
    row.skip("forward")
    if (case := along(row)) is None:
        pytest.skip("no derivative")
    function, xs, directions = case

    def slope(*inputs):
        return jvp(function, inputs, directions)[1]

    _, curve = jvp(slope, xs, directions)

    live = [x.detach().requires_grad_() for x in xs]
    outs = [x for x in function(*live) if x.requires_grad]
    gs = seeds(curve, tg)
    chosen = [g for g, o in zip(gs, function(*live), strict=True) if o.requires_grad]
    first = gradients(tg, outs, live, grad_outputs=chosen, create_graph=True)
    total = [(p * d).sum() for p, d in zip(first, directions, strict=True)]
    total = [p for p in total if p.requires_grad]
    parts = (
        gradients(tg, total, live, grad_outputs=[tg.ones_like(p) for p in total]) if total else None
    )
    expected = inner(directions, parts) if parts else 0.0
    assert inner(curve, gs) == pytest.approx(expected, rel=1e-8, abs=1e-8)


@rows
def test_recorded_backward_equals_plain_backward(row: Row):
    def first(record):
        xs = leaves(row.inputs(), tg)
        outs = floats(row.call(tg, *xs))
        return gradients(tg, outs, xs, create_graph=record)

    assert_same(first(True), first(False), rtol=1e-12)


@rows
def test_dtypes_stay(row: Row):
    """Value and gradient have the dtypes PyTorch gives them, and are right within them."""
    for dtype in ("float32", "float16", "bfloat16") if row.half else ("float32",):
        check_dtype(row, dtype)


def check_dtype(row: Row, dtype: str):
    arrays = [a.astype(tg.bfloat16 if dtype == "bfloat16" else dtype) for a in row.inputs()]
    mine = run(tg, row.call, arrays)
    theirs = outcome(lambda: run(torch, row.call, arrays))
    if isinstance(theirs, type):
        assert theirs is RuntimeError or theirs is NotImplementedError
        theirs = ([], [])
    for a, b in zip([*mine[0], *mine[1]], [*theirs[0], *theirs[1]], strict=False):
        assert dtype_name(a) == dtype_name(b)
    assert all(dtype_name(g) == dtype for g in mine[1])
    exact = run(tg, row.call, [a.astype(np.float64) for a in arrays])
    eps = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype]
    room = eps * max(row.half, 8)
    for a, b in zip([*mine[0], *mine[1]], [*exact[0], *exact[1]], strict=True):
        x, y = (to_numpy(v).astype(np.float64) for v in (a, b))
        np.testing.assert_allclose(x, y, rtol=room, atol=room * max(1.0, abs(y).max(initial=0)))


@rows
def test_inputs_are_left_as_they_were(row: Row):
    """Read-only inputs and gradients do; what an op writes to it must have made."""
    arrays = row.inputs()
    xs = [tg.from_numpy(a.copy()) for a in arrays]
    for x in xs:
        x.array.flags.writeable = False
        x.requires_grad_()
    outs = floats(row.call(tg, *xs))
    gs = seeds(outs, tg)
    before = [g.array.copy() for g in gs]
    for g in gs:
        g.array.flags.writeable = False
    for record in (False, True):
        gradients(tg, outs, xs, grad_outputs=gs, create_graph=record, retain_graph=True)
    for x, a in zip(xs, arrays, strict=True):
        np.testing.assert_array_equal(x.array, a)
    for g, b in zip(gs, before, strict=True):
        np.testing.assert_array_equal(g.array, b)


LAYOUTS = {
    "transposed": lambda a: np.asfortranarray(a),
    "stepped": lambda a: np.repeat(a, 2, -1)[..., ::2] if a.ndim else a,
    "reversed": lambda a: np.ascontiguousarray(a[::-1])[::-1] if a.ndim else a,
    "read-only": lambda a: np.broadcast_to(a, (2, *a.shape))[1],
}


@rows
def test_strided_inputs(row: Row):
    row.skip("strided")
    arrays = row.inputs()
    expected = run(tg, row.call, arrays)
    for name, layout in LAYOUTS.items():
        xs = [tg.from_numpy(layout(a)).requires_grad_() for a in arrays]
        result = tensors(row.call(tg, *xs))
        assert_same(result, expected[0], what=name)
        grads = gradients(tg, floats(result), xs)
        assert_same(grads, expected[1], what=name)
        assert all(g.array.flags.c_contiguous for g in grads if g.array.any())


@rows
def test_stretched_inputs(row: Row):
    """Elements that share memory, by stride 0."""
    row.skip("stretched")

    def stretched(t):
        xs = [a[:1] if a.ndim else a for a in row.inputs()]
        xs = leaves(xs, t)
        wide = [x.expand(s) for x, s in zip(xs, row.shapes, strict=True)]
        result = tensors(row.call(t, *wide))
        return result, gradients(t, floats(result), xs)

    mine, theirs = (outcome(lambda t=t: stretched(t)) for t in (tg, torch))
    if isinstance(theirs, type):
        assert mine is theirs
        return
    assert_same(mine[0], theirs[0], what="value")
    assert_same(mine[1], theirs[1], what="gradient")


@pytest.mark.filterwarnings("ignore:.*degrees of freedom", "ignore:.*deprecated on 0-D tensors")
@rows
def test_empty_and_0d_inputs(row: Row):
    """Each size replaced by 0 in turn, then all shapes by (): PyTorch's answer, or its error."""
    row.skip("empty")
    sizes = sorted({n for shape in row.shapes for n in shape})
    cases = [[tuple(0 if n == size else n for n in s) for s in row.shapes] for size in sizes]
    for shapes in [*cases, [()] * len(row.shapes)]:
        mine, theirs = (
            outcome(lambda t=t, shapes=shapes: run(t, row.call, row.inputs(shapes)))
            for t in (tg, torch)
        )
        if isinstance(theirs, type) or isinstance(mine, type):
            either = (RuntimeError, IndexError)  # which of the two is an accident
            assert mine is theirs or (mine in either and theirs in either), (
                f"{shapes}: {mine}, in PyTorch {theirs}"
            )
        else:
            assert_same(mine[0], theirs[0], what=f"value for {shapes}")
            assert_same(mine[1], theirs[1], what=f"gradient for {shapes}")


# ---- what nodes keep


def arrays_in(value) -> list:
    """The arrays in one kept value: itself, or the members of a tuple."""
    values = value if isinstance(value, (tuple, list)) else (value,)
    return [v for v in values if is_array(v)]


def backward_by_hand(outs, gs, leaf_nodes):
    """Plain reverse mode in its shortest form, looking at every part on the way."""
    waiting = {}
    for out, g in zip(outs, gs, strict=True):
        waiting[out.node] = waiting.get(out.node, 0) + g.array
    for node in nodes_of(outs):
        op, g = node.op, waiting.get(node)
        if op is None or g is None:
            continue
        if op is PICK:
            trunk = node.parents[0]
            waiting.setdefault(trunk, [None] * len(trunk.shape))[node.kept] = g
            continue
        if op.joint is not None:
            parts = op.joint(g, *node.kept[0])
        else:
            pairs = zip(op.rules, node.kept, node.parents, strict=False)
            parts = [None if p is None else rule(g, *kept) for rule, kept, p in pairs]
        came = next(x for x in (g if isinstance(g, list) else [g]) if x is not None)
        for part, parent in zip(parts, node.parents, strict=True):
            if parent is None or part is None:
                continue
            if op.name not in ("cast", "transfer"):
                assert part.dtype == came.dtype, (
                    f"{op.name}: a part of {part.dtype} for {came.dtype}"
                )
            np.broadcast_shapes(part.shape, parent.shape)  # raises where it does not fit
            part = fit(part, parent.shape)
            waiting[parent] = waiting[parent] + part if parent in waiting else part
    return [waiting.get(node) for node in leaf_nodes]


@rows
def test_nodes_keep_what_their_rules_ask_for(row: Row):
    """What is kept was asked for, parts have the gradient's dtype, nothing else stays alive."""
    dtype = "float32"
    xs = leaves([a.astype(dtype) for a in row.inputs()], tg)
    inner_xs = [x * 1 for x in xs]  # not leaves: nobody but the graph holds their arrays
    outs = floats(row.call(tg, *inner_xs))
    if not outs:
        pytest.skip("no derivative")
    gs = seeds(outs, tg)
    own = {x.node for x in inner_xs}
    for node in nodes_of(outs):
        if node.op is None or node.op is PICK or node in own:
            continue
        op = node.op
        kept = node.kept[: len(op.asks)]
        assert len(node.kept) == len(op.asks) + op.replays
        for asks, values, parent in zip(op.asks, kept, node.parents, strict=False):
            assert (values is None) == (parent is None and op.joint is None), op.name
            assert values is None or len(values) == len(asks), op.name
    by_hand = backward_by_hand(outs, gs, [x.node for x in xs])
    engine = gradients(tg, outs, xs, grad_outputs=gs, retain_graph=True)
    for a, b in zip(by_hand, engine, strict=True):
        np.testing.assert_array_equal(a if a is not None else np.zeros_like(b.array), b.array)

    alive = [weakref.ref(x.array) for x in inner_xs]
    del inner_xs, gs, engine, by_hand
    holds = {id(root(v)) for n in nodes_of(outs) if n not in own for v in kept_arrays(n)}
    holds |= {id(root(x.array)) for x in outs}
    for ref in alive:
        assert ref() is None or id(root(ref())) in holds, (
            "an input stays alive that no rule asked for"
        )


def root(array):
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def kept_arrays(node) -> list:
    if node.op is None or node.op is PICK:
        return []
    groups = [g for g in node.kept if g is not None]
    found = [a for group in groups for value in group for a in arrays_in(value)]
    return found


@rows
def test_an_input_without_gradient_costs_nothing(row: Row):
    """One input at a time requires a gradient: it gets the same, the others none."""
    together = run(tg, row.call, row.inputs())[1]
    for i in range(len(row.shapes)):
        xs = leaves(row.inputs(), tg, False)
        xs[i].requires_grad_()
        outs = floats(row.call(tg, *xs))
        for node in nodes_of(outs):
            if node.op not in (None, PICK) and node.op.joint is None:
                for parent, kept in zip(node.parents, node.kept, strict=False):
                    assert parent is not None or kept is None
        for out, g in zip(outs, seeds(outs, tg), strict=True):
            out.backward(g, retain_graph=True)
        if outs:
            assert [x.grad is not None for x in xs] == [j == i for j in range(len(xs))]
            assert_same([xs[i].grad], [together[i]], rtol=1e-12)


@rows
def test_nothing_is_left_for_the_garbage_collector(row: Row):
    xs = leaves(row.inputs(), tg)
    gc.disable()
    gc.freeze()  # what is there already need not be looked through
    try:
        outs = floats(row.call(tg, *xs))
        gradients(tg, outs, xs)
        del outs
        assert gc.collect() == 0
    finally:
        gc.unfreeze()
        gc.enable()


@pytest.mark.gpu
@rows
def test_cupy_equals_numpy(row: Row):
    import cupy

    def on(device):
        xs = [x.to(device).requires_grad_() for x in leaves(row.inputs(), tg, False)]
        result = tensors(row.call(tg, *xs))
        gs = [g.to(device) for g in seeds(floats(result), tg)]
        return result, gradients(tg, floats(result), xs, grad_outputs=gs)

    mine, theirs = on("cuda"), on("cpu")
    for a, b in zip([*mine[0], *mine[1]], [*theirs[0], *theirs[1]], strict=True):
        assert isinstance(a.array, cupy.ndarray) and a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a.array.get(), b.array, rtol=1e-9, atol=1e-12)
