"""gradcheck believes right derivatives and names what is wrong with the others."""

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad.autograd import Function, GradcheckError, gradcheck, gradgradcheck


def leaf(*shape, low=0.5, high=2.0):
    array = np.random.default_rng(sum(shape)).uniform(low, high, shape)
    return tg.tensor(array, requires_grad=True)


RIGHT = {
    "product": (lambda x, y: x @ y, [(3, 5), (5, 2)]),
    "several outputs": (lambda x, y: (x * y, {"sum": (x + y).sum()}), [(3,), (3,)]),
    "a number": (lambda x: tg.exp(x).log() * 3.0, [()]),
    "an empty tensor": (lambda x: x * 2.0, [(0, 3)]),
    "views": (lambda x: x.T[1:].reshape(-1).unsqueeze(0), [(3, 5)]),
    "parts": (lambda x: tg.cat(x.split([1, 4], 1)[::-1], 1) * x, [(2, 5)]),
    "a fused op": (lambda x: tg.nn.functional.layer_norm(x, (5,)), [(3, 5)]),
    "integers beside": (lambda x: (x.sin(), tg.argmax(x)), [(5,)]),
    "an input that is not used": (lambda x, y: x.sin(), [(3,), (2,)]),
    "linear": (lambda x: x.sum(0), [(3, 5)]),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_derivatives_pass(name):
    function, shapes = RIGHT[name]
    inputs = [leaf(*s) for s in shapes]
    before = [x.detach().numpy().copy() for x in inputs]
    assert gradcheck(function, inputs, check_forward_ad=True)
    assert gradgradcheck(function, inputs)
    for x, old in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(x.detach().numpy(), old)
        assert x.grad is None


def wrong(backward, jvp=None):
    """A Function whose value is 2 x + y^2 and whose derivatives are what is given."""

    class Wrong(Function):
        @staticmethod
        def forward(ctx, x, y):
            ctx.save_for_backward(x, y)
            return x * 2.0 + y * y

    Wrong.backward = staticmethod(backward)
    if jvp is not None:
        Wrong.jvp = staticmethod(jvp)
    return Wrong.apply


def right(ctx, g):
    return g * 2.0, g * 2.0 * ctx.saved_tensors[1]


def test_a_wrong_backward_is_named_with_input_and_entry():
    def backward(ctx, g):
        dx, dy = right(ctx, g)
        mask = tg.ones(3, dtype=tg.float64)
        mask[1] = 1.5
        return dx, dy * mask

    inputs = leaf(3), leaf(3)
    with pytest.raises(GradcheckError) as caught:
        gradcheck(wrong(backward), inputs)
    y = inputs[1].detach().numpy()[1]
    assert str(caught.value) == (
        f"gradcheck: backward of Wrong: d output 0[1] / d input 1[1] is {3 * y:.9g}, by central "
        f"differences {2 * y:.9g} (1 of 9 entries differ)"
    )
    assert gradcheck(wrong(backward), inputs, raise_exception=False) is False


def test_a_wrong_forward_mode_is_named():
    apply = wrong(right, lambda ctx, tx, ty: tx * 2.0)
    assert gradcheck(apply, (leaf(3), leaf(3)))
    with pytest.raises(
        GradcheckError, match=r"forward mode of Wrong: d output 0\[\d\] / d input 1"
    ):
        gradcheck(apply, (leaf(3), leaf(3)), check_forward_ad=True)
    assert gradcheck(apply, (leaf(3), leaf(3).detach()), check_forward_ad=True)


def test_a_wrong_second_derivative():
    def backward(ctx, g):
        return g * 2.0, g * 2.0 * ctx.saved_tensors[1].detach()

    inputs = leaf(3), leaf(3)
    assert gradcheck(wrong(backward), inputs)
    with pytest.raises(
        GradcheckError, match=r"d output 1\[\d\] / d input 1\[\d\] is 0, by central"
    ):
        gradgradcheck(wrong(backward), inputs)


def test_a_backward_that_is_not_reproducible():
    calls = iter(range(100))

    def backward(ctx, g):
        return g * (2.0 + 1e-9 * next(calls)), right(ctx, g)[1]

    inputs = leaf(3), leaf(3)
    with pytest.raises(
        GradcheckError, match="Wrong: two passes give different gradients of input 0"
    ):
        gradcheck(wrong(backward), inputs)
    calls = iter(range(100))
    assert gradcheck(wrong(backward), inputs, nondet_tol=1e-6)


def test_a_lost_history():
    with pytest.raises(GradcheckError, match=r"backward of a tensor without history: .* is 0, by"):
        gradcheck(lambda x: x.detach() * 2.0, leaf(3))


def test_nan_is_no_derivative():
    def backward(ctx, g):
        return g * float("nan"), right(ctx, g)[1]

    with pytest.raises(GradcheckError, match="is nan, by central differences"):
        gradcheck(wrong(backward), (leaf(3), leaf(3)))


def test_unfit_inputs():
    with pytest.raises(ValueError, match="at least one input must be a tensor that requires grad"):
        gradcheck(tg.sin, tg.ones(3))
    with pytest.warns(UserWarning, match="input 0 is float32; central differences need float64"):
        gradcheck(tg.sin, tg.ones(3, requires_grad=True), eps=1e-2, atol=1e-2)
    expanded = leaf(1, 3).expand(5, 3)
    with pytest.raises(ValueError, match="elements of input 0 share memory"):
        gradcheck(tg.sin, expanded)
    with pytest.raises(ValueError, match="the function returned no floating-point tensor"):
        gradcheck(lambda x: tg.argmax(x), leaf(3))


def test_a_module_and_its_parameters():
    """The function closes over the tensors that are varied."""
    tg.manual_seed(0)
    w, b = leaf(5, 3), leaf(5)
    x = tg.tensor(np.random.default_rng(1).normal(size=(7, 3)))
    assert gradcheck(lambda *_: tg.nn.functional.linear(x, w, b).tanh().mean(), (w, b))
