"""Lesson one: micrograd's Value, mended.  Reverse-mode differentiation of numbers, and a small net.

The rest of tensorgrad is this with arrays.  `python -m tensorgrad.scalar` trains the net."""

from __future__ import annotations

import argparse
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Real
from typing import Any

_recording = ContextVar("recording", default=True)  # a context variable: each thread has its own
_births = itertools.count()


def _op(name: str, rule: Callable[..., Any]) -> Callable[..., Value]:
    """The operation whose rule maps numbers to (result, d result / d number for each of them)."""

    def apply(*operands: Value | float) -> Value:
        xs = tuple(x if isinstance(x, Value) else Value(x) for x in operands)
        try:
            data, *slopes = rule(*(x.data for x in xs))
        except (ValueError, ZeroDivisionError, OverflowError) as error:
            at = " and ".join(str(x.data) for x in xs)
            raise type(error)(f"{name} has no finite real result at {at}: {error}") from None
        out = Value(data)
        if _recording.get():
            out.op, out.parents, out.slopes = name, xs, tuple(slopes)
        return out

    return apply


def _pair(name: str, rule: Callable[..., Any]) -> tuple[Callable[..., Value], Callable[..., Value]]:
    """Operation and reflected form (a number on the left), made together: neither is forgotten."""
    op = _op(name, rule)
    return op, lambda right, left: op(left, right)


def _power(x: float, y: float) -> tuple[float, float, float]:
    """x^y, y x^(y-1), x^y log x.  At x = 0 the first slope is 0 if y = 0, infinite if 0 < y < 1."""
    if x < 0 and y % 1:
        raise ValueError("a negative number to a fractional power is complex")
    out = x**y
    if x == 0 and y < 1:
        dx = math.inf if y else 0.0
    else:
        dx = y * x ** (y - 1) if y >= 1 else y * out / x  # neither overflows unless x^y does
    return out, dx, out * math.log(x) if x > 0 else 0.0 if x == 0 else math.nan


def _sigmoid(x: float) -> tuple[float, float]:
    """1 / (1 + e^-x), written with e^-|x|, which cannot overflow."""
    e = math.exp(-abs(x))
    return (1.0 if x >= 0 else e) / (1 + e), e / (1 + e) ** 2


class Value:
    """A number that remembers how it was made: op(*parents).

    After loss.backward(), grad = d loss / d data.  In leaves (made by no operation) it adds up over
    calls, as in PyTorch; in the values between it shows the latest call.
    """

    __slots__ = ("__weakref__", "born", "data", "grad", "label", "op", "parents", "slopes")
    data: float
    grad: float
    label: str
    op: str
    parents: tuple[Value, ...]  # in order; a + a has a twice
    slopes: tuple[float, ...]  # d data / d parents[i], as it was when this value was made
    born: int

    def __init__(self, data: float, label: str = "") -> None:
        if not isinstance(data, Real):
            raise TypeError(f"a Value holds one real number, not a {type(data).__name__}")
        self.data, self.grad, self.label = float(data), 0.0, label
        self.op, self.parents, self.slopes, self.born = "", (), (), next(_births)

    __add__, __radd__ = _pair("+", lambda x, y: (x + y, 1.0, 1.0))
    __sub__, __rsub__ = _pair("-", lambda x, y: (x - y, 1.0, -1.0))
    __mul__, __rmul__ = _pair("*", lambda x, y: (x * y, y, x))
    __truediv__, __rtruediv__ = _pair("/", lambda x, y: (x / y, 1 / y, -x / y / y))
    _pow, __rpow__ = _pair("**", _power)
    __neg__ = _op("neg", lambda x: (-x, -1.0))
    exp = _op("exp", lambda x: (out := math.exp(x), out))
    log = _op("log", lambda x: (math.log(x), 1 / x))
    tanh = _op("tanh", lambda x: (out := math.tanh(x), 1 - out * out))
    relu = _op("relu", lambda x: (max(x, 0.0), float(x > 0)))
    sigmoid = _op("sigmoid", _sigmoid)

    def __pow__(self, y: Value | float) -> Value:
        if not isinstance(y, Real):
            return self._pow(y)
        n = float(y)  # a fixed exponent is no operand: nobody wants its gradient
        return _op(f"**{n:g}", lambda x: _power(x, n)[:2])(self)

    def backward(self) -> None:
        """d self / d parent = the sum, over its uses, of d self / d use times the use's slope."""
        grads = {self: 1.0}  # of this call: nothing left over from an earlier one takes part
        for value in self._history():
            grad = grads[value]
            value.grad = grad if value.parents else value.grad + grad
            for parent, slope in zip(value.parents, value.slopes, strict=True):
                grads[parent] = grads.get(parent, 0.0) + grad * slope

    def _history(self) -> list[Value]:
        """All that this value was made from, newest first: what uses a value is younger than it."""
        found, todo = {self}, [self]
        while todo:
            new = set(todo.pop().parents) - found
            found |= new
            todo += new
        return sorted(found, key=lambda value: value.born, reverse=True)

    def zero_grad(self) -> None:
        """grad = 0 here and in all that this value was made from."""
        for value in self._history():
            value.grad = 0.0

    def detach(self) -> Value:
        """The same number as a new leaf."""
        return Value(self.data, self.label)

    def __repr__(self) -> str:
        label = f", label={self.label!r}" if self.label else ""
        return f"Value(data={self.data}, grad={self.grad}{label})"


@contextmanager
def no_grad() -> Iterator[None]:
    """What is computed inside remembers nothing.  Context manager and decorator; per thread."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


ACTIVATIONS = {"tanh": Value.tanh, "relu": Value.relu, "sigmoid": Value.sigmoid}
ACTIVATIONS["linear"] = lambda x: x
_rng = random.Random(1337)


class Module:
    def parameters(self) -> list[Value]:
        return []

    def zero_grad(self) -> None:
        for p in self.parameters():
            p.grad = 0.0


class Neuron(Module):
    """activation(b + sum of w_i x_i), w and b drawn from U(-1, 1).  Returns a Value."""

    def __init__(self, nin: int, activation: str = "tanh", rng: random.Random = _rng) -> None:
        if activation not in ACTIVATIONS:
            raise ValueError(f"no activation {activation!r}; there are {', '.join(ACTIVATIONS)}")
        self.w = [Value(rng.uniform(-1, 1), f"w{i}") for i in range(nin)]
        self.b = Value(rng.uniform(-1, 1), "b")
        self.activation = ACTIVATIONS[activation]

    def __call__(self, x: Sequence[Value | float]) -> Value:
        if len(x) != len(self.w):
            raise ValueError(f"a Neuron with {len(self.w)} inputs was given {len(x)}")
        return self.activation(sum((w * xi for w, xi in zip(self.w, x, strict=True)), self.b))

    def parameters(self) -> list[Value]:
        return [*self.w, self.b]


class Layer(Module):
    """nout neurons over the same inputs.  Returns a list of nout Values, also where nout is 1."""

    def __init__(self, nin: int, nout: int, *activation_and_rng: Any) -> None:
        self.neurons = [Neuron(nin, *activation_and_rng) for _ in range(nout)]

    def __call__(self, x: Sequence[Value | float]) -> list[Value]:
        return [neuron(x) for neuron in self.neurons]

    def parameters(self) -> list[Value]:
        return [p for neuron in self.neurons for p in neuron.parameters()]


class MLP(Module):
    """Layers of nouts[0], nouts[1], ... neurons, the last linear unless `output` says otherwise.

    Returns the last layer's list.  Equal seeds give equal nets.
    """

    def __init__(
        self, nin: int, nouts: Sequence[int], activation: str = "tanh", output: str = "linear",
        seed: int = 1337,
    ) -> None:  # fmt: skip
        rng, kinds = random.Random(seed), [activation] * (len(nouts) - 1) + [output]
        sizes = zip([nin, *nouts], nouts, kinds, strict=False)
        self.layers = [Layer(m, n, kind, rng) for m, n, kind in sizes]

    def __call__(self, x: Any) -> list[Value]:
        for layer in self.layers:
            x = layer(x)
        return list(x)

    def parameters(self) -> list[Value]:
        return [p for layer in self.layers for p in layer.parameters()]


def demo(decay: bool = False, steps: int = 20) -> Value:
    """Learn four samples by gradient descent on the mean squared error; print each step's loss.

    The rate is 0.1; with `decay` 1 - 0.9 step / 100, too fast for a net whose output is unbounded.
    Returns the last step's loss.
    """
    xs = [[2.0, 3.0, -1.0], [3.0, -1.0, 0.5], [0.5, 1.0, 1.0], [1.0, 1.0, -1.0]]
    ys = [1.0, -1.0, -1.0, 1.0]
    net = MLP(3, [4, 4, 1], output="tanh" if decay else "linear", seed=42)
    for step in range(steps):
        errors = [net(x)[0] - y for x, y in zip(xs, ys, strict=True)]
        loss = sum((error**2 for error in errors), Value(0)) / len(errors)
        net.zero_grad()
        loss.backward()
        rate = 1.0 - 0.9 * step / 100 if decay else 0.1
        for p in net.parameters():
            p.data -= rate * p.grad  # the gradient points to where the loss grows
        print(f"step {step:2}  loss {loss.data:.6f}")
    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a net of 41 parameters on four samples.")
    parser.add_argument("--decay", action="store_true", help="a falling rate and a tanh output")
    parser.add_argument("--draw", metavar="FILE", help="draw the loss: .svg, .png, .pdf or .dot")
    args = parser.parse_args()
    loss = demo(args.decay)
    if args.draw:
        from tensorgrad.draw import draw

        draw(loss, args.draw)


if __name__ == "__main__":
    main()
