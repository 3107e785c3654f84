"""In-place forms equal the others: value, gradient, views, and the errors of misuse."""

from __future__ import annotations

import operator

import pytest
import torch

import tensorgrad as tg
from tests.ops.compare import (
    assert_same,
    both,
    dtype_name,
    numbers,
    outcome,
    run,
    to_torch,
)


def index(t, x):
    """Places along dim 0, the last first."""
    return t.arange(x.shape[0] - 1, -1, -1)


def places(t, x):
    return index(t, x).reshape(-1, 1).expand(x.shape) if x.ndim > 1 else index(t, x)


def twice(t, x):
    return (x * 2,)


def two(t, x):
    return x * 2, x * 3


IN_PLACE = {
    "add_": (2.5,), "sub_": (2.5,), "mul_": (2.5,), "div_": (2.5,), "neg_": (), "square_": (),
    "reciprocal_": (), "abs_": (), "sign_": (), "floor_": (), "ceil_": (), "round_": (),
    "trunc_": (), "remainder_": (0.7,), "pow_": (3,), "sqrt_": (), "rsqrt_": (), "exp_": (),
    "exp2_": (), "expm1_": (), "log_": (), "log2_": (), "log10_": (), "log1p_": (), "sin_": (),
    "cos_": (), "tan_": (), "tanh_": (), "sigmoid_": (), "erf_": (), "relu_": (),
    "clamp_": (0.5, 1.5), "fill_": (2.5,), "zero_": (),
    "masked_fill_": lambda t, x: (x > 1, 2.5), "copy_": twice,
    "absolute_": (), "negative_": (), "subtract_": twice, "multiply_": twice, "divide_": twice,
    "true_divide_": (2.5,), "clip_": (None, 1.5), "clamp_min_": (0.7,), "clamp_max_": (0.7,),
    "acos_": (), "arccos_": (), "acosh_": (), "arccosh_": (), "asin_": (), "arcsin_": (),
    "asinh_": (), "arcsinh_": (), "atan_": (), "arctan_": (), "atanh_": (), "arctanh_": (),
    "sinh_": (), "cosh_": (), "sinc_": (), "erfc_": (), "erfinv_": (), "digamma_": (),
    "lgamma_": (), "logit_": (0.1,), "deg2rad_": (), "rad2deg_": (), "fix_": (), "frac_": (),
    "sgn_": (), "i0_": (), "mvlgamma_": (1,), "polygamma_": (1,), "atan2_": twice,
    "arctan2_": twice, "copysign_": (-1.5,), "hypot_": twice, "xlogy_": twice, "fmod_": (0.7,),
    "floor_divide_": (0.7,), "float_power_": (2.0,), "heaviside_": twice, "igamma_": twice,
    "igammac_": twice, "ldexp_": twice, "nextafter_": twice, "gcd_": twice, "lcm_": twice,
    "lerp_": lambda t, x: (x * 2, 0.3),
    "addcmul_": two, "addcdiv_": two,
    "eq_": twice, "ne_": (1.5,), "lt_": twice, "le_": (1.5,), "gt_": twice, "ge_": (1.5,),
    "less_": twice, "less_equal_": (1.5,), "greater_": twice, "greater_equal_": (1.5,),
    "not_equal_": twice,
    "logical_and_": twice, "logical_or_": twice, "logical_xor_": twice, "logical_not_": (),
    "bitwise_and_": twice, "bitwise_or_": twice, "bitwise_xor_": twice, "bitwise_not_": (),
    "bitwise_left_shift_": twice, "bitwise_right_shift_": twice,
    "nan_to_num_": (), "cumsum_": (0,), "cumprod_": (0,), "tril_": (), "triu_": (1,),
    "addmm_": lambda t, x: (x[:, :1], x[:1]), "addr_": lambda t, x: (x[:, 0], x[0]),
    "addmv_": lambda t, x: (x[:, None], x[:1]),
    "addbmm_": lambda t, x: (x[None, :, :1], x[None, :1]),
    "baddbmm_": lambda t, x: (x[:, :, :1], x[:, :1]),
    "index_add_": lambda t, x: (0, index(t, x), x * 2),
    "index_copy_": lambda t, x: (0, index(t, x), x * 2),
    "index_fill_": lambda t, x: (0, index(t, x)[:1], 2.5),
    "index_put_": lambda t, x: ((index(t, x),), x * 2, True),
    "masked_scatter_": lambda t, x: (x > 0.4, x * 2),
    "scatter_": lambda t, x: (0, places(t, x), x * 2),
    "scatter_add_": lambda t, x: (0, places(t, x), x * 2),
    "scatter_reduce_": lambda t, x: (0, places(t, x), x * 2, "sum"),
    "renorm_": (2, 0, 1.0),
}  # fmt: skip
UNIT = {"acos_", "arccos_", "asin_", "arcsin_", "atanh_", "arctanh_", "erfinv_", "logit_"}
OWN_GRADIENT = {
    "logical_and_", "logical_or_", "logical_xor_", "logical_not_", "floor_divide_", "acosh_",
    "arccosh_", "asinh_", "arcsinh_", "atanh_", "arctanh_",
}  # fmt: skip
"""PyTorch lets the gradient from before pass unchanged, or has none."""
SHAPE = {"addmv_": (3,), "baddbmm_": (2, 3, 5)}
IN_PLACE = {name: args for name, args in IN_PLACE.items() if hasattr(tg.Tensor, name)}
RESHAPING = {
    "squeeze_": (1,), "unsqueeze_": (-2,), "t_": (), "transpose_": (0, -1), "swapaxes_": (1, 0),
    "swapdims_": (0, 1),
}  # fmt: skip
RANDOM = {
    "uniform_", "normal_", "random_", "bernoulli_", "exponential_", "log_normal_", "cauchy_",
    "geometric_",
}  # fmt: skip
OTHERS = {"requires_grad_", "detach_"}


def test_every_in_place_method_is_in_this_list():
    found = {name for name in dir(tg.Tensor) if name.endswith("_") and not name.startswith("_")}
    assert found - RANDOM - OTHERS == set(IN_PLACE) | set(RESHAPING)


def test_every_method_has_the_in_place_form_that_pytorch_has():
    """Of __and__ that is __iand__; sparse tensors and Python 2 have no part in it."""
    theirs = dir(torch.Tensor)
    words = {name for name in theirs if name.endswith("_") and not name.startswith("_")}
    found = {name for name in words if hasattr(tg.Tensor, name[:-1])}
    found |= {name for name in theirs if name.startswith("__i") and "__" + name[3:] in theirs}
    found -= {"__idiv__"}
    assert [name for name in sorted(found) if not hasattr(tg.Tensor, name)] == []


def arguments(t, name, x):
    args = IN_PLACE[name]
    return args(t, x) if callable(args) else args


def sample(name):
    return numbers(SHAPE.get(name, (3, 5)), low=0.2, high=0.6 if name in UNIT else 3.0)


def part_of(x):
    return x[1:, ::2] if x.ndim == 2 else x[1:]


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_equals_out_of_place(name):
    """Value and gradient as in PyTorch; the tensor itself is returned, its memory stays."""

    def call(t, x, live=False):
        y = x * 1.5 if name not in OWN_GRADIENT else x.detach() * 1.5
        args = arguments(t, name, x if live else x.detach())
        z = getattr(y, name)(*args)
        assert z is y
        return z * x

    both(call, sample(name))
    if name not in OWN_GRADIENT:
        both(lambda t, x: call(t, x, True), sample(name))
    plain = tg.from_numpy(sample(name))
    memory, args = plain.array, arguments(tg, name, plain.clone())
    before = plain.clone()
    try:
        getattr(plain, name)(*args)
    except RuntimeError:
        assert "bitwise" in name or name in ("gcd_", "lcm_")
        return
    assert plain.array is memory and not plain.requires_grad
    if name not in ("fill_", "zero_", "copy_"):
        out = getattr(before, name[:-1])(*args)
        assert_same([plain], [to_torch(out.to(tg.float64).array)])


INTEGERS = [
    name for name in IN_PLACE
    if "bitwise" in name or "logical" in name or name in (
        "add_", "sub_", "mul_", "eq_", "floor_divide_", "fmod_", "div_", "exp_", "tril_", "cumsum_",
        "abs_", "clamp_", "copy_", "scatter_", "index_add_", "lerp_", "index_put_", "pow_", "sum_",
    )
]  # fmt: skip


@pytest.mark.parametrize("name", INTEGERS)
def test_in_place_on_integers(name):
    def call(t):
        x = t.tensor([[3, -1, 2, 0, 7], [1, 5, -4, 2, 6]])
        return getattr(x, name)(*arguments(t, name, x.clone().clamp(0, 3)))

    mine, theirs = (outcome(lambda t=t: call(t)) for t in (tg, torch))
    if isinstance(theirs, type):
        assert issubclass(theirs, mine)
    else:
        assert_same([mine], [theirs])


@pytest.mark.parametrize("name", sorted(set(IN_PLACE) - {"fill_", "zero_", "copy_"}))
def test_in_place_has_the_gradient_of_the_op(name):
    def call(t, x, form):
        y = x * 1.5
        return getattr(y, form)(*arguments(tg, name, x)) * x

    if "bitwise" in name or name in ("gcd_", "lcm_"):
        pytest.skip("for integers")
    made, plain = (
        run(tg, lambda t, x, form=form: call(t, x, form), [sample(name)])
        for form in (name, name[:-1])
    )
    assert_same(made[0], plain[0])
    assert_same(made[1], plain[1])


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_on_a_view_reaches_the_base(name):
    def call(t, x):
        y = x * 1.5
        part = part_of(y) if name not in OWN_GRADIENT else part_of(y.detach())
        getattr(part, name)(*arguments(t, name, part_of(x)))
        return y * x

    both(call, sample(name))


@pytest.mark.parametrize("name", [*IN_PLACE, *RESHAPING, "+=", "setitem"])
def test_leaves_that_require_grad_refuse(name):
    for t in (tg, torch) if name not in OWN_GRADIENT else (tg,):
        x = t.ones(SHAPE.get(name, (3, 5)), requires_grad=True)
        with pytest.raises(RuntimeError, match="leaf"):
            if name == "+=":
                x += 1
            elif name == "setitem":
                x[0] = 1
            elif name in RESHAPING:
                getattr(x, name)(*RESHAPING[name])
            else:
                getattr(x, name)(*arguments(t, name, x.detach()))
        with t.no_grad():
            x += 1


@pytest.mark.parametrize("name", IN_PLACE)
def test_backward_notices_damage(name):
    """A kept array that was changed since raises, in both frameworks for the same ops."""
    for t in (tg, torch):
        x = t.full(SHAPE.get(name, (3, 5)), 0.9 if name in UNIT else 1.5, requires_grad=True)
        y = x * 1
        z = y * y  # keeps y
        try:
            getattr(y, name)(*arguments(t, name, y.detach().clone()))
        except (RuntimeError, NotImplementedError):
            assert "bitwise" in name or name in ("gcd_", "lcm_")
            return
        with pytest.raises(RuntimeError, match=r"in.?place"):
            z.sum().backward()


AUGMENTED = {
    "+=": operator.iadd, "-=": operator.isub, "*=": operator.imul, "/=": operator.itruediv,
    "//=": operator.ifloordiv, "%=": operator.imod, "**=": operator.ipow, "@=": operator.imatmul,
    "&=": operator.iand, "|=": operator.ior, "^=": operator.ixor, "<<=": operator.ilshift,
    ">>=": operator.irshift,
}  # fmt: skip


@pytest.mark.parametrize("augmented", AUGMENTED)
def test_augmented_assignment(augmented):
    def call(t, x, y):
        return AUGMENTED[augmented](x * 1, y)

    if augmented == "//=":
        pytest.skip("PyTorch has no gradient of floor_divide")
    both(call, numbers((3, 5), low=0.5), numbers((5,), 1, low=0.5))
    both(
        call, numbers((5,), low=0.5), numbers((3, 5), 1, low=0.5)
    )  # the result does not fit: an error


@pytest.mark.parametrize("augmented", ["//=", "%=", "&=", "|=", "^=", "<<=", ">>=", "+="])
def test_augmented_assignment_to_integers(augmented):
    found = []
    for t in (tg, torch):
        x = z = t.tensor([13, -7, 5])
        for y in (t.tensor([2, 3, 1]), 3):
            z = AUGMENTED[augmented](z, y)
        assert z is x
        found.append(x.tolist())
    assert found[0] == found[1]


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


# ---- the shape changed in place


@pytest.mark.parametrize("name", RESHAPING)
def test_shapes_change_in_place(name):
    """The memory stays; value and gradient are those of the view, the base may be written."""

    def call(t, x):
        y = x * 2
        view = y[:]
        z = getattr(view, name)(*RESHAPING[name])
        assert z is view and z.shape == getattr(y, name[:-1])(*RESHAPING[name]).shape
        y[0] = 0.5
        view *= 3
        w = x * 1
        getattr(w, name)(*RESHAPING[name])
        return view * view, y * 2, w**2

    both(call, numbers((3, 1)))
    plain = tg.from_numpy(numbers((3, 1)))
    memory = plain.array
    getattr(plain, name)(*RESHAPING[name])
    plain.zero_()
    assert not memory.any()


def test_a_shape_that_no_longer_fits_the_history_is_refused():
    x = tg.ones(3, 1, requires_grad=True)
    y = x * 2
    with tg.no_grad():
        with pytest.raises(RuntimeError, match="no longer fit its history"):
            y.t_()
        x.sum()
        x.t_()
    assert x.shape == (1, 3)
    (x * 2).sum().backward()
    assert x.grad.tolist() == [[2, 2, 2]]
    with tg.no_grad():
        x.squeeze_(0)
    assert x.grad.shape == x.shape == (3,)


def test_retain_grad_goes_with_the_tensor():
    x = tg.ones(2, 3, requires_grad=True)
    y = x * 2
    y.retain_grad()
    y.t_()
    (y * 3).sum().backward()
    assert y.grad.shape == (3, 2)


def test_detach_in_place():
    for t in (tg, torch):
        x = t.ones(3, requires_grad=True)
        y = x * 2
        assert y.detach_() is y and not y.requires_grad and y.is_leaf
        with pytest.raises(RuntimeError, match="view"):
            (x * 2)[1:].detach_()


def test_a_chain_of_changes_through_views():
    """Shapes, elements and memory change by turns; every view sees what the base sees."""

    def call(t, x):
        base = x * 2
        flat, row = base.view(6), base[1]
        row.unsqueeze_(0)
        row.mul_(base[0].clone())
        flat[1:3].sin_()
        base.index_add_(0, t.tensor([0]), row * 1)
        base.t_()
        flat.masked_scatter_(flat.detach() > 1, x.reshape(6) * 3)
        row.squeeze_().clamp_min_(0.5)
        base.index_put_((t.tensor([2, 2]), t.tensor([0, 1])), x[:, 0], accumulate=True)
        return base * base, flat, row

    both(call, numbers((2, 3)))
