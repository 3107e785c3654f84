"""Lesson one against PyTorch in float64, micrograd's published numbers, and the notes' defects."""

import gc
import math
import operator
import random
import re
import subprocess
import sys
import threading
import weakref
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from tensorgrad import scalar
from tensorgrad.scalar import MLP, Layer, Neuron, Value, demo, no_grad

NUMBERS = st.floats(-3, 3).map(lambda x: round(x, 3))


def leaf(x: Any) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64, requires_grad=True)


def slopes_by_torch(f: Any, *numbers: float) -> tuple[float, list[float]]:
    xs = [leaf(x) for x in numbers]
    out = f(*xs)
    grads = torch.autograd.grad(out, xs, allow_unused=True)
    return out.item(), [0.0 if g is None else g.item() for g in grads]


def slopes_by_value(f: Any, *numbers: float) -> tuple[float, list[float]]:
    xs = [Value(x) for x in numbers]
    out = f(*xs)
    out.backward()
    return out.data, [x.grad for x in xs]


def assert_like_torch(
    f: Any, *numbers: float, rel: float = 1e-12, absolute: float = 1e-300
) -> None:
    value, grads = slopes_by_value(f, *numbers)
    expected, expected_grads = slopes_by_torch(f, *numbers)
    assert value == pytest.approx(expected, rel=rel, abs=absolute)
    assert grads == pytest.approx(expected_grads, rel=rel, abs=absolute)


# ---- one operation at a time


@pytest.mark.parametrize(
    "f",
    [
        operator.neg,
        lambda x: x.exp(),
        lambda x: x.relu(),
        lambda x: x**2,
        lambda x: x**3.0,
    ],
)
@given(x=st.floats(-700, 700))
def test_unary_operations(f: Any, x: float):
    assert_like_torch(f, x)


@given(x=st.floats(-800, 800))
def test_saturating_operations(x: float):
    # 1 - tanh(x)^2 and s (1 - s) cancel in the tails: right to the last place of 1, no further
    assert_like_torch(lambda x: x.tanh(), x, absolute=1e-15)
    assert_like_torch(lambda x: x.sigmoid(), x, absolute=1e-15)


@given(x=st.floats(1e-200, 1e300))
def test_log_and_powers_of_positive_numbers(x: float):
    assert_like_torch(lambda x: x.log(), x)
    assert_like_torch(lambda x: x**0.5, x)
    assert_like_torch(lambda x: x**-0.3, x)


@pytest.mark.parametrize("f", [operator.add, operator.sub, operator.mul, operator.truediv])
@given(x=st.floats(-1e9, 1e9), y=st.floats(1e-9, 1e9))
def test_binary_operations(f: Any, x: float, y: float):
    assert_like_torch(f, x, y)
    assert_like_torch(lambda x: f(x, y), x)
    assert_like_torch(lambda x: f(x, -y), x)


@given(x=st.floats(1e-3, 1e3), y=st.floats(-30, 30))
def test_power_with_a_value_as_exponent(x: float, y: float):
    assert_like_torch(operator.pow, x, y, rel=1e-11)


@pytest.mark.parametrize("x", [-2.0, -0.5, 0.0])
@pytest.mark.parametrize("y", [0.0, 1.0, 3.0])
def test_power_of_what_is_not_positive_with_a_value_as_exponent(x: float, y: float):
    value, grads = slopes_by_value(operator.pow, x, y)
    expected, expected_grads = slopes_by_torch(operator.pow, x, y)
    assert value == expected
    assert grads == pytest.approx(expected_grads, rel=1e-15, nan_ok=True)


@pytest.mark.parametrize("f", [operator.add, operator.sub, operator.mul, operator.truediv])
@pytest.mark.parametrize("number", [7, -2.5])
def test_reflected_operations(f: Any, number: float):  # seeds: B2.1
    assert_like_torch(lambda x: f(number, x), 1.7)
    assert_like_torch(lambda x: f(number, f(x, number)), -1.7)


def test_reflected_power():  # seeds: B2.1
    assert_like_torch(lambda x: 3**x, 1.7)
    assert_like_torch(lambda x: 0.5**x, -2)
    assert_like_torch(lambda x: 0**x, 2)


@pytest.mark.parametrize("x", [1000.0, -1000.0, 1e308, -1e308, math.inf])
def test_tanh_and_sigmoid_never_overflow(x: float):  # seeds: B2.2
    assert_like_torch(lambda x: x.tanh(), x)
    assert_like_torch(lambda x: x.sigmoid(), x)
    assert abs(Value(x).tanh().data) == 1.0


@pytest.mark.parametrize("x", [0.0, -1.3])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 0.0, 1.0, 5.0])
def test_the_slope_of_whole_powers_where_x_is_not_positive(x: float, n: float):  # seeds: B2.7
    assert_like_torch(lambda x: x**n, x)


def test_the_slope_of_other_powers_at_zero():  # seeds: B2.7
    assert slopes_by_value(lambda x: x**0.5, 0.0) == (0.0, [math.inf])
    assert slopes_by_value(lambda x: x**1.5, 0.0) == (0.0, [0.0])
    with pytest.raises(ZeroDivisionError, match=r"\*\*-1 has no finite real result at 0\.0"):
        Value(0.0) ** -1


def test_a_slope_may_overflow_where_the_power_does_not():  # seeds: B2.7
    assert_like_torch(lambda x: x**-1, 1e-200)
    assert_like_torch(lambda x: x**-1, -1e-200)


# ---- whole expressions

LEAVES = st.sampled_from("abc") | NUMBERS
UNARY = {
    "neg": operator.neg,
    "exp": lambda x: x.tanh().exp(),
    "log": lambda x: (x * x + 0.5).log(),
    "tanh": lambda x: x.tanh(),
    "relu": lambda x: x.relu(),
    "sigmoid": lambda x: x.sigmoid(),
    "square": lambda x: x**2,
    "reciprocal": lambda x: (x**2 + 0.5) ** -1,
    "one": lambda x: x**0,
}
BINARY = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda x, y: x / (y * y + 0.5),
    "**": lambda x, y: (x * x + 0.5) ** y.tanh(),
}
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.tuples(st.sampled_from(sorted(UNARY)), inner)
        | st.tuples(st.sampled_from(sorted(BINARY)), inner, inner)
    ),
    max_leaves=13,
)


def evaluate(tree: Any, named: dict[str, Any], wrap: Any) -> Any:
    """The expression over what `named` and `wrap` deal in; + - * also meet plain numbers."""
    if isinstance(tree, str):
        return named[tree]
    if isinstance(tree, float):
        return tree
    name, *parts = tree
    xs = [evaluate(part, named, wrap) for part in parts]
    if name not in "+-*" or all(isinstance(x, float) for x in xs):
        xs = [wrap(x) if isinstance(x, float) else x for x in xs]
    if name == "relu" and isinstance(xs[0], Value):
        assume(abs(xs[0].data) > 1e-9)  # at the kink, one rounding error decides the slope
    return UNARY[name](*xs) if name in UNARY else BINARY[name](*xs)


@given(tree=TREES, numbers=st.tuples(NUMBERS, NUMBERS, NUMBERS))
def test_random_expressions(tree: Any, numbers: tuple[float, float, float]):
    values = {name: Value(x) for name, x in zip("abc", numbers, strict=True)}
    tensors = {name: leaf(x) for name, x in zip("abc", numbers, strict=True)}
    out = evaluate(tree, values, Value) + values["a"] * values["b"] / 3 - values["c"]
    expected = evaluate(tree, tensors, leaf) + tensors["a"] * tensors["b"] / 3 - tensors["c"]
    assume(abs(out.data) < 1e6)
    out.backward()
    expected.backward()
    assert out.data == pytest.approx(expected.item(), rel=1e-9, abs=1e-9)
    for name in "abc":
        assert values[name].grad == pytest.approx(tensors[name].grad.item(), rel=1e-9, abs=1e-9)


def readme(a: Any, b: Any) -> Any:
    """The expression of micrograd's README."""
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + (b + a).relu()
    d += 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    return g


def test_the_expression_of_micrograds_readme():
    g, (da, db) = slopes_by_value(readme, -4.0, 2.0)
    assert (f"{g:.4f}", f"{da:.4f}", f"{db:.4f}") == ("24.7041", "138.8338", "645.5773")


# ---- the graph


def test_a_chain_of_100_000_operations():  # seeds: B2.3
    x = Value(0.5)
    y = x
    for _ in range(50_000):
        y = y * 0.999999 + x
    y.backward()
    r = 0.999999**50_000
    assert x.grad == pytest.approx(r + (1 - r) / (1 - 0.999999), rel=1e-9)
    y.zero_grad()
    assert x.grad == 0
    del y  # freeing 100,000 nested values must not exhaust the stack either


def test_a_second_backward_adds_only_to_leaves():  # seeds: B2.4
    a, b = Value(-4.0), Value(2.0)
    middle = a * b
    g = readme(a, b) + middle.tanh() * middle
    g.backward()
    first = a.grad, b.grad, middle.grad
    g.backward()
    assert (a.grad, b.grad) == (2 * first[0], 2 * first[1])
    assert (middle.grad, g.grad) == (first[2], 1.0)


def test_grads_left_over_from_another_result_take_no_part():  # seeds: B2.4
    a = Value(3.0)
    square = a * a
    (square * 5).backward()
    assert (a.grad, square.grad) == (30.0, 5.0)
    square.exp().backward()
    assert square.grad == math.exp(9)
    assert a.grad == pytest.approx(30 + 6 * math.exp(9))


def test_backward_of_a_leaf():
    a = Value(3.0)
    a.backward()
    a.backward()
    assert a.grad == 2


def test_an_update_between_forward_and_backward_does_no_harm():
    a = Value(3.0)
    y = a * a
    a.data = 100.0
    y.backward()
    assert a.grad == 6


def test_operands_keep_order_and_repetition():  # seeds: B2.5
    a, b = Value(2.0), Value(3.0)
    assert (a - b).parents == (a, b)
    assert (b - a).parents == (b, a)
    assert (a + a).parents == (a, a)
    left, right = (7 / a).parents
    assert (left.data, right) == (7.0, a)
    assert (a**2).parents == (a,)
    assert (a**b).parents == (a, b)
    assert slopes_by_value(lambda a: a + a, 2.0) == (4.0, [2.0])
    assert slopes_by_value(lambda a: a * a * a, 2.0) == (8.0, [12.0])


def test_the_same_sums_in_every_run():  # seeds: B2.5
    def grad() -> str:
        rng = random.Random(1337)
        x = Value(1.0)
        total = Value(0.0)
        for _ in range(97):
            total = total + x * (rng.uniform(-1, 1) * 10 ** rng.randint(-8, 8))
        total.backward()
        return x.grad.hex()

    litter, grads = [], set()
    for k in range(11):  # sets of objects iterate by address, and the litter moves those
        litter.append([Value(i) for i in range(k * 7)])
        grads.add(grad())
    assert len(grads) == 1


def test_a_graph_is_freed_by_reference_count():  # seeds: B2.6
    gc.collect()
    gc.disable()
    try:
        a = Value(-4.0)
        g = readme(a, Value(2.0))
        g.backward()
        watched = [weakref.ref(v) for v in g._history() if v is not a]
        assert len(watched) > 20
        del g
        assert [ref() for ref in watched if ref() is not None] == []
        net = MLP(3, [5, 2])
        loss = net([1.0, 2.0, 3.0])[0] ** 2
        loss.backward()
        del net, loss
        assert gc.collect() == 0
    finally:
        gc.enable()


# ---- no_grad, detach, zero_grad, repr


def test_no_grad_remembers_nothing():  # seeds: B2.8
    a = Value(2.0)
    with no_grad():
        y = a.exp() * 3
        with no_grad():
            pass
        assert (a + a).parents == ()
    assert (y.data, y.parents, y.op) == (math.exp(2) * 3, (), "")
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert (a + a).parents == (a, a)

    @no_grad()
    def double(x: Value) -> Value:
        return x + x

    assert double(a).parents == double(a).parents == ()


def test_no_grad_is_per_thread():  # seeds: B2.8
    a, found = Value(2.0), []
    with no_grad():
        thread = threading.Thread(target=lambda: found.append((a + a).parents))
        thread.start()
        thread.join()
    assert found == [(a, a)]


def test_detach_stops_the_gradient():  # seeds: B2.8
    a = Value(3.0, "a")
    y = a * (a * a).detach()
    y.backward()
    assert a.grad == 9.0
    assert (a.detach().label, a.detach() is a) == ("a", False)


def test_zero_grad_reaches_all_that_took_part():  # seeds: B2.8
    a = Value(3.0)
    square = a * a
    y = square + 1
    y.backward()
    y.zero_grad()
    assert (a.grad, square.grad, y.grad) == (0, 0, 0)
    y.backward()
    assert a.grad == 6


def test_repr_shows_the_gradient():  # seeds: B2.8
    a = Value(3, "a")
    y = a * 2
    y.backward()
    assert repr(a) == "Value(data=3.0, grad=2.0, label='a')"
    assert str(y) == "Value(data=6.0, grad=1.0)"


def test_equality_is_identity():
    a = Value(3.0)
    assert a == a
    assert a != Value(3.0)
    assert len({a, Value(3.0)}) == 2


# ---- bad input


@pytest.mark.parametrize("stranger", ["3", None, [1.0], 1j, b"3"])
def test_strangers_are_refused(stranger: Any):
    sentence = f"a Value holds one real number, not a {type(stranger).__name__}"
    for attempt in (
        lambda: Value(stranger),
        lambda: Value(1) + stranger,
        lambda: Value(1) / stranger,
        lambda: Value(1) ** stranger,
    ):
        with pytest.raises(TypeError, match=re.escape(sentence)):
            attempt()


@pytest.mark.parametrize("stranger", ["3", None, [1.0], 1j, b"3"])
def test_strangers_on_the_left_are_refused(stranger: Any):
    for f in (operator.sub, operator.truediv, operator.pow):
        with pytest.raises(TypeError):
            f(stranger, Value(1))


def test_no_order():
    with pytest.raises(TypeError):
        _ = Value(1) < Value(2)


@pytest.mark.parametrize(
    ("attempt", "kind", "sentence"),
    [
        (lambda: 1 / Value(0), ZeroDivisionError, "/ has no finite real result at 1.0 and 0.0"),
        (lambda: Value(-1).log(), ValueError, "log has no finite real result at -1.0"),
        (lambda: Value(0).log(), ValueError, "log has no finite real result at 0.0"),
        (lambda: Value(-8) ** 0.5, ValueError, "**0.5 has no finite real result at -8.0"),
        (lambda: Value(-8) ** Value(0.5), ValueError, "** has no finite real result at -8.0 and"),
        (lambda: Value(1000).exp(), OverflowError, "exp has no finite real result at 1000.0"),
        (lambda: Value(10.0) ** 400, OverflowError, "**400 has no finite real result at 10.0"),
        (lambda: Neuron(2)([1.0]), ValueError, "a Neuron with 2 inputs was given 1"),
        (lambda: MLP(3, [4, 1])([1.0] * 5), ValueError, "a Neuron with 3 inputs was given 5"),
        (lambda: Neuron(2, "tan"), ValueError, "no activation 'tan'; there are tanh, relu"),
    ],
)
def test_errors_are_sentences(attempt: Any, kind: type[Exception], sentence: str):
    with pytest.raises(kind, match=re.escape(sentence)):
        attempt()


# ---- nets


def test_parameters():
    assert len(MLP(3, [4, 4, 1]).parameters()) == 41
    net = MLP(3, [5, 2])
    assert len(net.parameters()) == 3 * 5 + 5 + 5 * 2 + 2
    assert all(-1 <= p.data <= 1 and p.grad == 0 for p in net.parameters())
    assert [p.label for p in Neuron(2).parameters()] == ["w0", "w1", "b"]


def test_the_seed_decides_the_net():
    def numbers(**options: int) -> list[float]:
        return [p.data for p in MLP(3, [5, 2], **options).parameters()]

    assert numbers(seed=7) == numbers(seed=7)
    assert numbers() == numbers()
    assert numbers(seed=7) != numbers(seed=8)
    first, second = Neuron(3), Neuron(3)
    assert [p.data for p in first.parameters()] != [p.data for p in second.parameters()]


def test_the_output_is_linear_and_always_a_list():  # seeds: B2.9
    for nout in (1, 2):
        out = MLP(3, [5, nout], seed=3)([0.1, 0.2, 0.3])
        assert type(out) is list and len(out) == nout
        assert type(Layer(3, nout)([0.1, 0.2, 0.3])) is list
    net = MLP(1, [1], seed=3)
    w, b = net.parameters()
    (y,) = net([50.0])
    assert y.data == w.data * 50 + b.data
    (y,) = MLP(1, [1], output="tanh", seed=3)([50.0])
    assert y.data == math.tanh(w.data * 50 + b.data)


def copy_to_torch(net: MLP) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [
        (
            leaf([[w.data for w in n.w] for n in layer.neurons]),
            leaf([n.b.data for n in layer.neurons]),
        )
        for layer in net.layers
    ]


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "linear"])
def test_a_net_against_torch(activation: str):
    net = MLP(3, [5, 2], activation=activation, seed=11)
    layers = copy_to_torch(net)
    x = [0.7, -1.1, 0.2]
    h = torch.tensor(x, dtype=torch.float64)
    for i, (w, b) in enumerate(layers):
        h = w @ h + b
        if i == 0 and activation != "linear":
            h = getattr(torch, activation)(h)
    out = net(x)
    assert [y.data for y in out] == pytest.approx(h.tolist(), rel=1e-12)
    (out[0] * 2 - out[1] ** 2).backward()
    (h[0] * 2 - h[1] ** 2).backward()
    expected = [
        g for w, b in layers for row, bias in zip(w.grad, b.grad, strict=True)
        for g in [*row.tolist(), bias.item()]
    ]  # fmt: skip
    assert [p.grad for p in net.parameters()] == pytest.approx(expected, rel=1e-12, abs=1e-14)
    net.zero_grad()
    assert {p.grad for p in net.parameters()} == {0.0}


def demo_by_torch(decay: bool) -> list[float]:
    net = MLP(3, [4, 4, 1], output="tanh" if decay else "linear", seed=42)
    ps = [p for pair in copy_to_torch(net) for p in pair]
    x = torch.tensor([[2, 3, -1], [3, -1, 0.5], [0.5, 1, 1], [1, 1, -1]], dtype=torch.float64)
    y = torch.tensor([1.0, -1, -1, 1], dtype=torch.float64)
    losses = []
    for k in range(20):
        h = (x @ ps[0].T + ps[1]).tanh()
        h = (h @ ps[2].T + ps[3]).tanh() @ ps[4].T + ps[5]
        loss = torch.nn.functional.mse_loss((h.tanh() if decay else h)[:, 0], y)
        losses.append(loss.item())
        for p, g in zip(ps, torch.autograd.grad(loss, ps), strict=True):
            p.data -= (1.0 - 0.9 * k / 100 if decay else 0.1) * g
    return losses


@pytest.mark.parametrize("decay", [False, True])
def test_the_demo(decay: bool, capsys: pytest.CaptureFixture[str]):  # seeds: B2.9
    last = demo(decay)
    printed = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert printed == pytest.approx(demo_by_torch(decay), abs=1e-6)
    assert last.data == pytest.approx(printed[-1], abs=1e-6)
    assert len(printed) == 20 and printed[-1] < 0.05 < printed[0]


def test_the_demo_as_a_command():  # seeds: B2.9
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "tensorgrad.scalar"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stderr == ""
    assert len(run.stdout.splitlines()) == 20


def test_the_demo_draws(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["scalar", "--draw", str(tmp_path / "loss.dot")])
    scalar.main()
    text = (tmp_path / "loss.dot").read_text(encoding="utf-8")
    assert text.startswith("digraph {") and text.count("{ w0 |") == 9
