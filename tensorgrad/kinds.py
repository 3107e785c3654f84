"""The constructors of ops: one line each, public, and what tensorgrad's own ops are made with.

exp     = elementwise("exp",     dx=lambda g, out: g * out)
mul     = elementwise("multiply", dx=lambda g, y: g * y, dy=lambda g, x: g * x)
reshape = linear("reshape", lambda xp, x, /, shape: xp.reshape(x, shape),
                 dx=lambda g, x_shape: reshape(g, x_shape))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensorgrad.flat import flatten
from tensorgrad.op import Op, Rule

Source = str | Callable[..., Any]


def elementwise(
    name: str, source: Source | None = None, *, floats: bool = True, **rules: Rule
) -> Any:
    """out[i] = f(x[i], y[i], ...) with broadcasting.  Rule: dx(g, ...) = g * df/dx, elementwise.

    source: a ufunc's name (default: the op's) or a function (xp, inputs..., /, parameters...).
    floats: integer inputs become floats first.
    Forward mode is the same rule; broadcasting is undone for you.
    """
    return flatten(Op(name, source or name, "elementwise", rules, floats=floats))


def linear(
    name: str,
    source: Source,
    *,
    view: bool = False,
    variadic: bool = False,
    many: bool = False,
    **rules: Rule,
) -> Any:
    """out = A x (or A1 x + A2 y + ...).  Rule: dx(g, ...) = A^T g.  Forward mode is the op itself.

    Inputs without a rule are constants (an index, a mask).  Affine maps are not linear.
    variadic: one input, a sequence of tensors, and a `joint` rule that returns one part per tensor.
    many: the result is a tuple, and the rule receives a list of gradients, None where none arrived.
    """
    joint = rules.pop("joint", None)
    return flatten(
        Op(name, source, "linear", rules, joint=joint, view=view, variadic=variadic, many=many)
    )


def bilinear(name: str, source: Source, **rules: Rule) -> Any:
    """out = B(x, y), linear in each.  Rules: dx(g, y), dy(g, x).

    Forward mode is B(tx, y) + B(x, ty).
    """
    return flatten(Op(name, source, "bilinear", rules))


def general(
    name: str,
    source: Source,
    *,
    floats: bool = False,
    outputs: tuple[str, ...] = ("out",),
    visible: int = 1,
    **rules: Rule,
) -> Any:
    """Any differentiable function.  Rules: linear in g, and pure; forward mode is their transpose.

    outputs: names of what the source returns, the first `visible` the result, the rest residuals.
    """
    joint = rules.pop("joint", None)
    return flatten(
        Op(
            name,
            source,
            "general",
            rules,
            joint=joint,
            floats=floats,
            outputs=outputs,
            visible=visible,
        )
    )


def fused(
    name: str,
    source: Source,
    formula: Callable[..., Any],
    *,
    floats: bool = True,
    outputs: tuple[str, ...] = ("out",),
    visible: int = 1,
    **rules: Rule,
) -> Any:
    """A faster twin of `formula(inputs..., parameters...)`, a function of ops of the table.

    reuse: a unary op's rule once more, free to write into g, called where nobody else holds g.
    Plain backward uses the rules; forward mode, and higher order where a rule asks for residuals,
    replay the formula.
    """
    joint, reuse = rules.pop("joint", None), rules.pop("reuse", None)
    return flatten(
        Op(
            name,
            source,
            "fused",
            rules,
            joint=joint,
            floats=floats,
            outputs=outputs,
            visible=visible,
            formula=formula,
            reuse=reuse,
        )
    )


def discrete(name: str, source: Source | None = None) -> Any:
    """A function without derivative: comparisons, argmax, rounding.  Nothing is recorded."""
    return flatten(Op(name, source or name, "discrete", {}))
