"""What a graph keeps: which op, for which rule, how many bytes, shared with whom."""

import numpy as np

import tensorgrad as tg
from tensorgrad.autograd import saved


def leaf(*shape):
    return tg.tensor(np.random.default_rng(0).standard_normal(shape), requires_grad=True)


def test_the_bill():
    x, w = leaf(3, 5), leaf(5)
    bill = saved((x.exp() * w).sum())
    rows = {(r.op, r.name, r.rules): r for r in bill}
    assert set(rows) == {("exp", "out", ("dx",)), ("mul", "y", ("dx",)), ("mul", "x", ("dy",))}
    assert rows["exp", "out", ("dx",)].bytes == 3 * 5 * 8
    assert rows["mul", "x", ("dy",)].shared  # exp's result, counted there
    assert rows["mul", "y", ("dx",)].shared  # a leaf, alive anyhow
    assert bill.total == 3 * 5 * 8
    assert bill.by_op() == {"exp": 120}


def test_what_needs_no_gradient_keeps_nothing():
    x, w = leaf(3, 5), leaf(5)
    bill = saved((x.detach().exp() * w).sum())
    assert [(r.op, r.name) for r in bill] == [("mul", "x")]
    assert saved((x + w).sum()).total == 0


def test_a_view_keeps_the_whole_buffer():
    y = leaf(7, 5) * 2
    bill = saved(y[0].exp() + y[1] * y[2])
    products = [r for r in bill if r.op == "mul" and r.shape == (5,)]
    assert {r.bytes for r in products} == {40}
    assert {r.buffer for r in products} == {280}


def test_the_table_can_be_read():
    text = str(saved((leaf(3, 5).exp() * 2).sum()))
    assert "exp" in text
    assert "out" in text
    assert "120" in text


def test_freed_graphs_say_so():
    loss = leaf(3).exp().sum()
    loss.backward()
    bill = saved(loss)
    assert bill.freed == 1
    assert list(bill) == []
