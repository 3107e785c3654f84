"""Anomaly mode names the op, the shapes and the user's line where a NaN or inf was born."""

import gc
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import autograd, mode, node
from tensorgrad.autograd import detect_anomaly, set_detect_anomaly

HERE = __file__


def line_of(text):
    """'file:number: `source`' of the only line in this file that ends with `# text`."""
    lines = Path(HERE).read_text(encoding="utf-8").splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if line.endswith(f"# {text}")]
    return f"forward line {HERE}:{number}: `{lines[number - 1].strip()}`"


def failure(function):
    with pytest.raises(RuntimeError) as caught:
        function()
    assert not mode.thread.watchers and not mode.thread.anomaly
    return str(caught.value)


def test_an_inf_is_traced_to_its_line():
    def run():
        x = tg.tensor([[1.0, 2.0], [0.0, 3.0]])
        with detect_anomaly():
            y = x * 2
            z = tg.log(y)  # a log of zero
            return z + 1

    assert failure(run) == (
        "anomaly: log of (2, 2) made 1 inf in its result of shape (2, 2), the first at (1, 0); "
        + line_of("a log of zero")
    )


def test_a_nan_is_traced_through_the_library():
    """The frame is the user's, however deep in the library the op is called."""

    def run():
        x = tg.tensor([[1.0, float("inf")]])
        with detect_anomaly():
            F.layer_norm(x, (2,))  # a norm of infinity

    message = failure(run)
    assert "made 2 nan" in message or "made 1 nan" in message
    assert message.endswith(line_of("a norm of infinity"))


def test_what_was_there_before_is_nobodys_fault():
    x = tg.tensor([1.0, float("inf"), float("nan")])
    with detect_anomaly():
        y = x * 2 + 1
        hidden = tg.tensor([0.5, 1.0]).masked_fill(tg.tensor([True, False]), -float("inf"))
        p = tg.softmax(hidden, -1)
        q = tg.where(tg.tensor([True, False]), tg.ones(2), float("inf")) * 2
    assert p.tolist() == [0.0, 1.0] and y[1].item() == float("inf") and q[1].item() == float("inf")


def test_a_gradient_that_is_not_finite_names_the_forward_line():
    def run():
        with detect_anomaly():
            x = tg.tensor([4.0, 0.0], requires_grad=True)
            y = tg.sqrt(x)  # a root of zero
            z = y * 3
            z.sum().backward()

    assert failure(run) == (
        "anomaly: sqrt of shape (2,): the gradient for input 0 of shape (2,) is not finite; "
        + line_of("a root of zero")
    )


def test_the_classic_of_where():
    """Masked after the fact: the gradient of the branch not taken is 0 * inf."""

    def run():
        with detect_anomaly():
            x = tg.tensor([0.0, 1.0], requires_grad=True)
            safe = tg.where(x > 0, tg.sqrt(x), 0.0)  # a masked root
            safe.sum().backward()

    message = failure(run)
    assert message.startswith("anomaly: sqrt of shape (2,)")
    assert message.endswith(line_of("a masked root"))


def test_forward_outside_and_backward_inside():
    def run():
        x = tg.tensor([0.0], requires_grad=True)
        y = tg.sqrt(x)
        with detect_anomaly():
            y.sum().backward()

    assert "run forward, too, under autograd.detect_anomaly() to see its line" in failure(run)


def test_a_gradient_that_arrives_broken():
    def run():
        x = tg.ones(2, requires_grad=True)
        with detect_anomaly():
            (x * 2).backward(tg.tensor([1.0, float("nan")]))

    message = failure(run)
    assert "mul of shape (2,)" in message and "already the gradient that arrived" in message


def test_functions_are_watched_too():
    class Half(autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return tg.from_numpy(np.full(x.shape, np.nan))

        @staticmethod
        def backward(ctx, g):
            return g * float("inf")

    def run():
        with detect_anomaly():
            Half.apply(tg.ones(3))  # a broken half

    assert failure(run) == (
        "anomaly: Half of (3,) made 3 nan in its result of shape (3,), the first at (0,); "
        + line_of("a broken half")
    )
    Half.forward = staticmethod(lambda ctx, x: x * 2.0)

    def back():
        with detect_anomaly():
            y = Half.apply(tg.ones(3, requires_grad=True))  # a broken way back
            y.sum().backward()

    message = failure(back)
    assert message.startswith("anomaly: Half of shape (3,): the gradient for input 0")
    assert message.endswith(line_of("a broken way back"))


def test_changes_in_place_are_watched():
    def run():
        x = tg.ones(3)
        with detect_anomaly():
            x.mul_(1e30)
            x.mul_(1e30)  # an overflow

    message = failure(run)
    assert message.startswith("anomaly: mul of (3,) made 3 inf")
    assert message.endswith(line_of("an overflow"))


def test_damage_names_the_line_of_the_op():
    def run():
        x = tg.ones(3, requires_grad=True)
        with detect_anomaly(check_nan=False):
            y = tg.exp(x)  # an exp whose result is changed
            y.add_(1.0)
        y.sum().backward()

    message = failure(run)
    assert message.startswith("backward: exp keeps 'out'")
    assert message.endswith(line_of("an exp whose result is changed"))


def test_without_check_nan_nothing_raises():
    with detect_anomaly(check_nan=False):
        assert autograd.is_anomaly_enabled() and not autograd.is_anomaly_check_nan_enabled()
        x = tg.zeros(2, requires_grad=True)
        tg.sqrt(x).log().sum().backward()


def test_recorded_backward_and_second_derivatives():
    def run():
        with detect_anomaly():
            x = tg.tensor([0.0], dtype=tg.float64, requires_grad=True)
            y = x**1.5
            (g,) = autograd.grad(y.sum(), x, create_graph=True)  # a slope with a vertical slope
            g.sum().backward()

    message = failure(run)
    assert line_of("a slope with a vertical slope") in message


def test_models_of_the_library_count_as_the_users():
    from tensorgrad.anomaly import _ours

    assert _ours("tensorgrad.nn.functional") and _ours("tensorgrad")
    assert (
        not _ours("tensorgrad.models.gpt")
        and not _ours("tensorgrad_addons")
        and not _ours("__main__")
    )


def test_switches():
    before = mode.careful
    assert not autograd.is_anomaly_enabled()
    with set_detect_anomaly(True):
        assert autograd.is_anomaly_enabled() and autograd.is_anomaly_check_nan_enabled()
        with detect_anomaly(), detect_anomaly(check_nan=False):
            assert autograd.is_anomaly_enabled() and not autograd.is_anomaly_check_nan_enabled()
        with set_detect_anomaly(False):
            assert not autograd.is_anomaly_enabled()
        assert autograd.is_anomaly_check_nan_enabled()
    assert not autograd.is_anomaly_enabled() and mode.careful == before
    set_detect_anomaly(True)
    assert autograd.is_anomaly_enabled() and mode.careful == before + 2
    set_detect_anomaly(False)
    assert not autograd.is_anomaly_enabled() and mode.careful == before


def test_it_is_a_matter_of_one_thread():
    seen = []

    def elsewhere():
        seen.append(autograd.is_anomaly_enabled())
        seen.append(tg.log(tg.zeros(2)).tolist())

    with detect_anomaly():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert seen == [False, [-float("inf")] * 2]


def test_results_are_the_same_and_nothing_stays_behind():
    def run(lib, w):
        y = lib.tanh(w @ w.T)
        a, b = y.split([2, 3], 1)
        (a.exp().sum() + (b * b).sum()).backward()
        return w.grad

    array = np.random.default_rng(0).normal(size=(5, 5))
    expected = run(torch, torch.tensor(array, requires_grad=True))
    was = node.watched
    with detect_anomaly():
        found = run(tg, tg.tensor(array, requires_grad=True))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-12)
    assert node.watched == was  # later backward passes look for no hooks
    gc.collect()
