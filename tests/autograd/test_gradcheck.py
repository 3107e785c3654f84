"""gradcheck passes what is right and names what is wrong."""

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.autograd import GradcheckError, gradcheck, gradgradcheck
from tensorgrad.op import table


def leaf(*shape, seed=0):
    return tg.tensor(np.random.default_rng(seed).uniform(0.5, 2, shape), requires_grad=True)


def _half_hidden(g, x):
    """3 x^2, half of it out of sight of a second derivative."""
    return g * 3 * (x * x.detach() if isinstance(x, tg.Tensor) else x * x)


@pytest.fixture
def planted():
    """Ops with one wrong derivative each; they leave the table afterwards."""
    before = set(table)
    yield {
        "rule": tg.elementwise(
            "planted",
            lambda xp, x, y, /: x * y * y,
            dx=lambda g, y: g * y * y,
            dy=lambda g, x, y: g * x * y,
        ),
        "second": tg.elementwise("planted_second", lambda xp, x, /: x**3, dx=_half_hidden),
    }
    for name in set(table) - before:
        del table[name]


def test_right_functions_pass():
    x, y = leaf(3, 5), leaf(5, seed=1)
    assert gradcheck(lambda x, y: (x * y).log().sum(0) / y, (x, y))
    assert gradcheck(lambda x: x.softmax(1), (x,), check_forward_ad=True)
    assert gradgradcheck(lambda x, y: (x / y).exp(), (x, y))


def test_a_wrong_rule_is_found_and_named(planted):
    x, y = leaf(3), leaf(3, seed=1)
    with pytest.raises(GradcheckError, match=r"(?s)input 1"):
        gradcheck(planted["rule"], (x, y))
    assert not gradcheck(planted["rule"], (x, y), raise_exception=False)
    assert gradcheck(planted["rule"], (x, y.detach()))  # the other rule is right


def test_a_wrong_second_derivative_is_found(planted):
    x = leaf(3)
    assert gradcheck(planted["second"], (x,))
    with pytest.raises(GradcheckError):
        gradgradcheck(planted["second"], (x,))


def test_single_precision_is_pointed_out():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    with pytest.warns(UserWarning, match="float32"):
        gradcheck(lambda x: x.exp(), (x,), raise_exception=False)
