"""dtypes mix as in PyTorch: tensors, 0-d tensors and Python numbers, op by op."""

from __future__ import annotations

import itertools
import operator

import numpy as np
import pytest
import torch

import tensorgrad as tg
from tests.ops.compare import (
    DTYPES,
    dtype_name,
    outcome,
    to_numpy,
)


def of(t, dtype, shape, values=(1, 2, 3)):
    """Small whole numbers of a dtype, 0-d tensors included."""
    x = t.tensor(values if shape else values[-1], dtype=getattr(t, dtype))
    return x.reshape(shape)


OPERATORS = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
    "//": operator.floordiv, "%": operator.mod, "**": operator.pow, "<": operator.lt,
    "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
    "&": operator.and_, "|": operator.or_, "^": operator.xor, "<<": operator.lshift,
    ">>": operator.rshift,
}  # fmt: skip
FUNCTIONS = [
    "fmod", "maximum", "minimum", "fmax", "fmin", "logaddexp", "logaddexp2", "atan2", "hypot",
    "xlogy", "copysign", "float_power", "heaviside", "gcd", "lcm", "nextafter", "true_divide",
    "logical_and", "logical_or", "logical_xor", "add", "sub", "mul", "div", "remainder",
    "floor_divide", "pow", "eq", "lt", "ldexp", "clamp_min", "clamp_max", "dot",
]  # fmt: skip
BINARY = {
    **{sign: (lambda t, x, y, f=f: f(x, y)) for sign, f in OPERATORS.items()},
    **{
        name: (lambda t, x, y, name=name: getattr(t, name)(x, y))
        for name in FUNCTIONS
        if hasattr(tg, name)
    },
    "where": lambda t, x, y: t.where(t.tensor([True, False, True]), x, y),
    "cat": lambda t, x, y: t.cat([x.reshape(-1), y.reshape(-1)]),
    "add alpha": lambda t, x, y: t.add(x, y, alpha=2),
    "div floor": lambda t, x, y: t.div(x, y, rounding_mode="floor"),
    "div trunc": lambda t, x, y: t.div(x, y, rounding_mode="trunc"),
    "clamp": lambda t, x, y: t.clamp(x, y),
    "addcmul": lambda t, x, y: t.addcmul(x, x, y),
    "lerp": lambda t, x, y: t.lerp(x, y, 0.5),
}


def same(call, what):
    """Dtype and values, or the class of the error.

    What PyTorch has no kernel for, or takes no number for, may be answered here.
    """
    mine, theirs = outcome(lambda: call(tg)), outcome(lambda: call(torch))
    if theirs in (NotImplementedError, TypeError):
        return
    if isinstance(theirs, type):
        ok = isinstance(mine, type) and issubclass(theirs, mine)
        assert ok, f"{what}: mine {mine}, PyTorch's {theirs}"
    else:
        assert not isinstance(mine, type), f"{what}: mine {mine}, PyTorch's {theirs}"
        assert dtype_name(mine) == dtype_name(theirs), what
        room = ROOM.get(dtype_name(mine), 0)
        np.testing.assert_allclose(
            to_numpy(mine).astype(np.float64), to_numpy(theirs).astype(np.float64), room,
            err_msg=what,
        )  # fmt: skip


ROOM = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 1e-6, "float64": 1e-12}
"""Two roundings of each dtype."""


# On bools PyTorch has no division with rest; here they count as 0 and 1.
def undefined(name, *dtypes):
    rest = ("//", "%", "**", "floor_divide", "remainder", "pow", "fmod", "div floor", "div trunc")
    return name in rest and all(d in ("bool", bool) for d in dtypes)


@pytest.mark.parametrize("name", BINARY)
def test_promotion_of_tensors(name):
    """All pairs of dtypes; a 0-d tensor only decides by its category."""
    call = BINARY[name]
    for a, b in itertools.product(DTYPES, DTYPES):
        for shapes in ([(3,), (3,)], [(3,), ()], [(), (3,)], [(), ()]):
            if undefined(name, a, b):
                continue
            same(
                lambda t, s=shapes, a=a, b=b: call(t, of(t, a, s[0]), of(t, b, s[1], (2, 3, 1))),
                f"{a}{shapes[0]} {name} {b}{shapes[1]}",
            )


@pytest.mark.parametrize("name", BINARY)
def test_promotion_with_python_numbers(name):
    """A number only decides by its category, from either side."""
    call = BINARY[name]
    for dtype, shape, n in itertools.product(DTYPES, [(3,), ()], [True, 2, 2.5]):
        if undefined(name, dtype, type(n)) or name in ("cat", "dot"):
            continue
        same(lambda t, d=dtype, s=shape, n=n: call(t, of(t, d, s), n), f"{dtype}{shape} {name} {n}")
        if name in OPERATORS:
            same(
                lambda t, d=dtype, s=shape, n=n: call(t, n, of(t, d, s)),
                f"{n} {name} {dtype}{shape}",
            )


IN_PLACE = {
    **{
        f"{name}_": (lambda t, x, y, name=name: getattr(x, name + "_")(y))
        for name in FUNCTIONS
        if hasattr(tg.Tensor, name + "_")
    },
    "copy_": lambda t, x, y: x.copy_(y),
    "setitem": lambda t, x, y: _set(x, y),
    "addcmul_": lambda t, x, y: x.addcmul_(x.clone(), y),
    "masked_fill_": lambda t, x, y: x.masked_fill_(x > 1, y),
    "fill_": lambda t, x, y: x.fill_(y),
}


def _set(x, y):
    x[...] = y
    return x


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_the_tensor_keeps_its_dtype(name):
    """A result of a higher category is refused, any other is cast."""
    call = IN_PLACE[name]
    for a, b in itertools.product(DTYPES, [*DTYPES, True, 2, 2.5]):
        for shape in ((3,), ()):
            if undefined(name.rstrip("_"), a, b if isinstance(b, str) else type(b)):
                continue
            same(
                lambda t, s=shape, a=a, b=b: call(
                    t, of(t, a, (3,)), of(t, b, s, (2, 3, 1)) if isinstance(b, str) else b
                ),
                f"{a} {name} {b}{shape}",
            )


UNARY = {
    **dict.fromkeys(
        (
            "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "cos", "cosh",
            "digamma", "erf", "erfc", "exp", "exp2", "expm1", "floor", "frac", "lgamma", "log",
            "log10", "log1p", "log2", "logit", "neg", "reciprocal", "relu", "round", "rsqrt",
            "sigmoid", "sign", "sin", "sinc", "sinh", "sqrt", "square", "tan", "tanh", "trunc",
            "bitwise_not", "isnan", "isinf", "isfinite", "logical_not", "nan_to_num", "sum", "mean",
            "prod", "nansum", "nanmean", "max", "min", "amax", "amin", "median", "any", "all",
            "argmax", "argmin", "argsort", "sort", "std", "var", "norm", "count_nonzero", "diff",
            "nonzero", "unique", "bincount", "clone",
        ),
        (),
    ),
    **dict.fromkeys(
        (
            "cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "softmax", "log_softmax",
            "logsumexp", "flip", "max", "min",
        ),
        (0,),
    ),
    "clamp": (1, 2), "quantile": (0.5,), "roll": (1,), "topk": (2,), "repeat": (2,),
    "repeat_interleave": (2,), "narrow": (0, 0, 2), "expand": (2, 3),
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name in UNARY if hasattr(tg.Tensor, name)])
def test_result_dtypes_of_one_tensor(name, dtype):
    if dtype == "bool" and name in ("square", "argmax", "argmin", "topk"):
        pytest.skip("PyTorch refuses most of these; here bools count as they do in NumPy")

    def call(t):
        result = getattr(of(t, dtype, (3,)), name)(*UNARY[name])
        return result[0] if isinstance(result, tuple) else result

    same(call, name)


def test_numpy_scalars_count_as_python_numbers():
    x = tg.ones(3)
    for scalar in (np.float64(2), np.float32(2), np.int64(2), np.bool_(True)):
        assert (x * scalar).dtype == tg.float32 and (scalar * x).dtype == tg.float32
        assert isinstance(scalar * x, tg.Tensor)
    assert isinstance(np.ones(3) + x, tg.Tensor)


@pytest.mark.parametrize("zero", [0, "tensor"])
@pytest.mark.parametrize("name", ["floor_divide", "remainder", "fmod"])
def test_integers_are_not_divided_by_zero(name, zero):
    x = tg.tensor([1, 2])
    with pytest.raises(RuntimeError, match="zero"):
        getattr(tg, name)(x, tg.tensor([1, 0]) if zero == "tensor" else 0)


def test_products_of_different_dtypes_are_errors():
    for call in (
        lambda t, x, y: x @ y,
        lambda t, x, y: t.mv(x, y[:, 0]),
        lambda t, x, y: t.bmm(x[None], y[None]),
    ):
        for t in (tg, torch):
            with pytest.raises(RuntimeError, match=r"dtype|scalar type"):
                call(t, t.ones(3, 3), t.ones(3, 3).double())
