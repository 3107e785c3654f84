"""In-place forms equal the others: value, gradient, views, and the errors of misuse."""

from __future__ import annotations

import pytest
import torch

import tensorgrad as tg
from tests.ops.compare import (
    assert_same,
    both,
    dtype_name,
    numbers,
    to_torch,
)

IN_PLACE = {
    "add_": (2.5,), "sub_": (2.5,), "mul_": (2.5,), "div_": (2.5,), "neg_": (), "square_": (),
    "reciprocal_": (), "abs_": (), "sign_": (), "floor_": (), "ceil_": (), "round_": (),
    "trunc_": (), "remainder_": (0.7,), "pow_": (3,), "sqrt_": (), "rsqrt_": (), "exp_": (),
    "exp2_": (), "expm1_": (), "log_": (), "log2_": (), "log10_": (), "log1p_": (), "sin_": (),
    "cos_": (), "tan_": (), "tanh_": (), "sigmoid_": (), "erf_": (),
    "relu_": (), "clamp_": (0.5, 1.5), "fill_": (2.5,), "zero_": (),
    "masked_fill_": ("mask", 2.5), "copy_": ("tensor",),
}  # fmt: skip
RANDOM = {
    "uniform_", "normal_", "random_", "bernoulli_", "exponential_", "log_normal_", "cauchy_",
    "geometric_",
}  # fmt: skip
NOT_IN_PLACE = {"requires_grad_"}


def test_every_in_place_method_is_in_this_list():
    found = {name for name in dir(tg.Tensor) if name.endswith("_") and not name.startswith("_")}
    assert found - RANDOM - NOT_IN_PLACE == set(IN_PLACE)


def arguments(t, name, x):
    known = {"mask": x > 1, "tensor": x * 2}
    return [known.get(a, a) if isinstance(a, str) else a for a in IN_PLACE[name]]


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_equals_out_of_place(name):
    """Value and gradient as in PyTorch; the tensor itself is returned, its memory stays."""

    def call(t, x):
        y = x * 1.5
        args = arguments(t, name, x.detach())
        z = getattr(y, name)(*args)
        assert z is y
        return z * x

    both(call, numbers((3, 5), low=0.2))
    plain = tg.from_numpy(numbers((3, 5), low=0.2))
    memory, args = plain.array, arguments(tg, name, plain.clone())
    before = plain.clone()
    getattr(plain, name)(*args)
    assert plain.array is memory and not plain.requires_grad
    if name not in ("fill_", "zero_", "copy_"):
        assert_same([plain], [to_torch(getattr(before, name[:-1])(*args).array)])


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_on_a_view_reaches_the_base(name):
    def call(t, x):
        y = x * 1.5
        part = y[1:, ::2]
        getattr(part, name)(*arguments(t, name, x.detach()[1:, ::2]))
        return y * x

    both(call, numbers((3, 5), low=0.2))


@pytest.mark.parametrize("name", [*IN_PLACE, "+=", "setitem"])
def test_leaves_that_require_grad_refuse(name):
    for t in (tg, torch):
        x = t.ones(3, requires_grad=True)
        with pytest.raises(RuntimeError, match="leaf"):
            if name == "+=":
                x += 1
            elif name == "setitem":
                x[0] = 1
            else:
                getattr(x, name)(*arguments(t, name, x.detach()))
        with t.no_grad():
            x += 1


@pytest.mark.parametrize("name", IN_PLACE)
def test_backward_notices_damage(name):
    """A kept array that was changed since raises, in both frameworks for the same ops."""
    for t in (tg, torch):
        x = t.full((3,), 1.5, requires_grad=True)
        y = x * 1
        z = y * y  # keeps y
        getattr(y, name)(*arguments(t, name, y.detach().clone()))
        with pytest.raises(RuntimeError, match=r"in.?place"):
            z.sum().backward()


@pytest.mark.parametrize("augmented", ["+=", "-=", "*=", "/=", "**="])
def test_augmented_assignment(augmented):
    def call(t, x, y):
        z = x * 1
        if augmented == "+=":
            z += y
        elif augmented == "-=":
            z -= y
        elif augmented == "*=":
            z *= y
        elif augmented == "/=":
            z /= y
        else:
            z **= y
        return z

    both(call, numbers((3, 5), low=0.5), numbers((5,), 1, low=0.5))
    both(
        call, numbers((5,), low=0.5), numbers((3, 5), 1, low=0.5)
    )  # the result does not fit: an error


def test_in_place_keeps_the_dtype():
    for t in (tg, torch):
        x = t.ones(3)
        x += t.ones(3).double()
        assert dtype_name(x) == "float32"
        n = t.tensor([1, 2])
        with pytest.raises(RuntimeError):
            n += 0.5
        with pytest.raises(RuntimeError):
            n /= 2
