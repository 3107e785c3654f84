"""What a graph keeps: the records beside the arrays themselves, the bytes beside what is freed."""

import gc
import tracemalloc
import weakref

import numpy as np

import tensorgrad as tg
from tensorgrad.autograd import Function, detect_anomaly, saved, walk
from tensorgrad.draw import draw
from tensorgrad.utils.checkpoint import checkpoint


def leaf(*shape):
    array = np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)
    return tg.tensor(array, requires_grad=True)


def facts(records):
    return [(r.op, r.name, r.rules, r.shape, r.bytes, r.shared) for r in records]


def test_only_what_rules_ask_for_is_kept():
    x, w, b = leaf(13, 3), leaf(3, 7), leaf(7)
    x.requires_grad_(False)
    y = tg.tanh(x @ w + b)
    records = saved(y.sum(), {"w": w, "b": b})
    assert [(r.op, r.name, r.shared) for r in records][1:] == [("tanh", "out", "")]
    assert records[0].rules == ("dy",) and records[0].shape == (13, 3)  # w's gradient wants x
    assert records.total == 13 * 3 * 4 + 13 * 7 * 4
    assert {r.dtype for r in records} == {tg.float32}
    assert records[1].out == (13, 7)


def test_memory_that_is_there_anyhow_is_not_counted():
    w = leaf(11, 5)
    h = tg.exp(w)
    y = h * w
    z = (h * h).sum() + y.sum()
    assert facts(saved(z, {"weight": w})) == [
        ("exp", "out", ("dx",), (11, 5), 220, ""),
        ("mul", "y", ("dx",), (11, 5), 220, "weight"),
        ("mul", "x", ("dy",), (11, 5), 220, "row 0"),
        ("mul", "y", ("dx", "dy"), (11, 5), 220, "row 0"),
    ]
    records = saved(z)
    assert records[1].shared == "leaf (11, 5)"
    assert records.total == 220 and records.by_op() == {"exp": 220}


def test_a_view_keeps_the_whole_buffer():
    h = leaf(100, 7) * 2.0
    y = tg.sin(h[:3])
    (record,) = saved(y)
    assert (record.bytes, record.buffer) == (3 * 7 * 4, 100 * 7 * 4)
    assert saved(y).total == record.buffer
    assert "84 of 2,800" in str(saved(y))


def test_the_table():
    x = leaf(3, 5)
    text = str(saved(tg.exp(x * 2.0).sum()))
    assert text.splitlines() == [
        "   op   out     keeps  for  shape   dtype    bytes  shared with",
        "0  exp  (3, 5)  out    dx   (3, 5)  float32     60",
        "60 bytes kept besides the leaves",
    ]


def test_sequences_parameters_functions_and_formulas():
    x = leaf(5, 3)
    index = tg.tensor([0, 2])
    y = x[index]
    (record,) = saved(y)
    assert record.name.startswith("index") and record.dtype == tg.int64 and record.bytes == 16

    class Cube(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x, x * x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            return g * 3 * ctx.saved_tensors[1]

    assert facts(saved(Cube.apply(x))) == [
        ("Cube", "saved[0]", ("backward",), (5, 3), 60, "leaf (5, 3)"),
        ("Cube", "saved[1]", ("backward",), (5, 3), 60, ""),
    ]
    loss = tg.nn.functional.cross_entropy(x * 1.0, tg.tensor([0, 1, 2, 0, 1]))
    names = {(r.op, r.name) for r in saved(loss)}
    assert ("cross_entropy", "lse") in names and ("cross_entropy", "logits") in names
    assert any("formula" in r.rules for r in saved(loss))


def test_a_checkpoint_keeps_its_arguments():
    w, x = leaf(5, 5), leaf(3, 5)

    def block(x):
        return tg.tanh(tg.tanh(x @ w) @ w)

    inside = saved(block(x * 1.0)).total
    (record,) = saved(checkpoint(block, x * 1.0))
    assert (record.op, record.name, record.rules) == ("checkpoint", "args[0]", ("backward",))
    assert saved(checkpoint(block, x * 1.0)).total == 60 < inside


def test_what_was_freed():
    x = leaf(3, 5)
    y = tg.exp(x).sum()
    y.backward()
    records = saved(y)
    assert list(records) == [] and records.freed == 1 and records.total == 0
    assert str(records).endswith("1 nodes were freed by an earlier backward")


def test_records_keep_nothing_alive():
    y = tg.exp(leaf(3, 5))
    array = weakref.ref(y.array)
    records = saved(y)
    del y
    assert array() is None and records.total == 60


def test_tensors_without_history():
    assert list(saved(tg.ones(3))) == [] and walk(tg.ones(3)) == []
    x = leaf(3)
    assert list(saved(x)) == [] and walk(x) == [x.node]


def test_lines_of_the_user():
    x = leaf(3)
    with detect_anomaly():
        y = tg.exp(x)
    (record,) = saved(y)
    assert record.line.endswith("`y = tg.exp(x)`") and "test_saved.py" in record.line


def test_walk_is_parents_first_and_knows_no_depth():
    x = leaf(3)
    y = x
    for _ in range(20_000):
        y = y + 1.0
    nodes = walk(y)
    assert len(nodes) == 20_001 and nodes[0] is x.node and nodes[-1] is y.node
    place = {node: i for i, node in enumerate(nodes)}
    assert all(place[p] < place[n] for n in nodes for p in n.parents if p is not None)


def test_the_total_is_what_freeing_the_graph_frees():
    x = leaf(64, 1000)
    h = tg.exp(x * 2.0)
    y = (tg.tanh(h) * h)[:, :500].sum()
    del h
    expected = saved(y).total
    gc.collect()
    tracemalloc.start()
    try:
        # numpy reports its buffers to tracemalloc; what was there before does not count
        z = (tg.tanh(h := tg.exp(x * 2.0)) * h)[:, :500].sum()
        del h
        held = tracemalloc.get_traced_memory()[0]
        assert abs(held - saved(z).total) < 20_000
        del z
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert expected == 2 * 64 * 1000 * 4 and left < 20_000
    assert y.requires_grad


def test_drawings_tell_the_same_bytes():
    x = leaf(7, 11)
    graph = draw(x * x)
    (op,) = [v for v in graph.vertices if v.kind == "op"]
    assert op.fields == ("mul", "keeps 308 B") and op.tooltip == "y: (7, 11) float32, 308 bytes"
