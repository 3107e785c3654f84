"""Anomaly mode: the op, the shapes and the user's own line where a NaN or an infinity was born."""

import numpy as np
import pytest

import tensorgrad as tg


def leaf(*values):
    return tg.tensor(np.array(values), requires_grad=True)


def test_a_nan_born_in_forward_is_named_with_its_line():
    x = leaf(1.0, -1.0)
    with tg.autograd.detect_anomaly(), pytest.raises(RuntimeError) as caught:
        y = x * 2
        y.log()  # here it is born
    message = str(caught.value)
    assert "log" in message
    assert "(2,)" in message
    assert "test_anomaly.py" in message
    assert "y.log()  # here it is born" in message


def test_infinities_too():
    with tg.autograd.detect_anomaly(), pytest.raises(RuntimeError, match="div"):
        leaf(1.0) / leaf(0.0)


def test_what_comes_in_not_finite_is_not_blamed_on_the_op():
    x = leaf(1.0, np.inf)
    with tg.autograd.detect_anomaly():
        assert (x * 2).tolist() == [2.0, np.inf]


def test_a_gradient_that_is_not_finite_names_the_forward_line():
    x = leaf(0.0, 1.0)
    with tg.autograd.detect_anomaly():
        y = x.sqrt()  # its slope at 0 is infinite
        with pytest.raises(RuntimeError) as caught:
            y.sum().backward()
    message = str(caught.value)
    assert "sqrt" in message
    assert "y = x.sqrt()  # its slope at 0 is infinite" in message


def test_off_again_afterwards():
    before = tg.mode.careful
    with tg.autograd.detect_anomaly():
        assert tg.autograd.is_anomaly_enabled()
    assert not tg.autograd.is_anomaly_enabled()
    assert tg.mode.careful == before
    assert np.isnan(leaf(-1.0).log().item())
    tg.autograd.set_detect_anomaly(True)
    try:
        with pytest.raises(RuntimeError, match="log"):
            leaf(-1.0).log()
    finally:
        tg.autograd.set_detect_anomaly(False)


def test_the_numbers_are_the_same():
    x = leaf(0.3, 0.7)
    (x.exp() * x).sum().backward()
    want, x.grad = x.grad.tolist(), None
    with tg.autograd.detect_anomaly():
        (x.exp() * x).sum().backward()
    assert x.grad.tolist() == want
