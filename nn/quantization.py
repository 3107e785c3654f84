"""Weights as int8 with one scale a row: a quarter of float32's memory, and of what is read of it.

Activations stay floats.  LLM.int8(), Dettmers et al. 2022, calls this row-wise absmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self, TypeVar

from tensorgrad.backend import xp_of
from tensorgrad.creation import empty
from tensorgrad.dtypes import float32, int8
from tensorgrad.kinds import linear
from tensorgrad.nn.layers import Embedding, Linear
from tensorgrad.nn.module import MODULE, PARAMETER, Module
from tensorgrad.nn.parameter import Buffer, Parameter
from tensorgrad.ops.shape import reshape
from tensorgrad.tensor import Tensor
from tensorgrad.twins import ask

M = TypeVar("M", bound=Module)

BLOCK = 1024
"""Rows of weights that are floats at a time."""


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """q = round(w / s), s = max |w| / 127 of each row: (N, K) floats -> (N, K) int8, (N) scales.

    |w - s q| <= s / 2.  A row of zeros, which is nothing above 1.5e-36, has s = 1.  ValueError for
    what is not finite.
    """
    w = weight.array
    xp = xp_of(w)
    q, scale = xp.empty(w.shape, int8), xp.empty(len(w), float32)
    for n in range(0, len(w), BLOCK):  # so that the quotients are never there all at once
        rows = w[n : n + BLOCK]
        s = (xp.maximum(rows.max(1), -rows.min(1)) / 127).astype(float32)
        s[s < xp.finfo(float32).tiny] = 1
        quotients = rows / s[:, None]
        scale[n : n + BLOCK], q[n : n + BLOCK] = s, xp.rint(quotients, quotients)
    if not bool(xp.isfinite(scale).all()):
        raise ValueError("quantize: the weights are not all finite, so no scale fits them")
    return Tensor(q), Tensor(scale)


def _product(xp: Any, x: Any, /, weight: Any, scale: Any) -> Any:
    """(x weight^T) scale: (m, K) -> (m, N)"""
    scale = scale.astype(x.dtype, copy=False)
    answer = ask("int8_linear", weight, x, weight, scale)
    if answer is not None:
        return answer
    out = xp.empty((len(x), len(weight)), x.dtype)
    for n in range(0, len(weight), BLOCK):
        out[:, n : n + BLOCK] = x @ weight[n : n + BLOCK].astype(x.dtype).T
    return out * scale


def _product_turned(xp: Any, g: Any, /, weight: Any, scale: Any) -> Any:
    """(g scale) weight: (m, N) -> (m, K)"""
    g = g * scale.astype(g.dtype, copy=False)
    out = xp.zeros((len(g), weight.shape[1]), g.dtype)
    for n in range(0, len(weight), BLOCK):
        out += g[:, n : n + BLOCK] @ weight[n : n + BLOCK].astype(g.dtype)
    return out


_int8_linear: Any = linear(
    "int8_linear", _product, dx=lambda g, weight, scale: _int8_turned(g, weight, scale)
)
_int8_turned: Any = linear(
    "int8_turned", _product_turned, dg=lambda g, weight, scale: _int8_linear(g, weight, scale)
)


class Int8Linear(Module):
    """out = (x weight^T) scale + bias: (..., in_features) -> (..., out_features).

    weight (out_features, in_features) int8, scale (out_features): buffers, which no optimiser
    changes; the gradient passes through to x.  bias (out_features) stays a parameter.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = Buffer(empty(out_features, in_features, dtype=int8, device=device).zero_())
        self.scale = Buffer(empty(out_features, device=device).fill_(1))
        zeros = empty(out_features, device=device).zero_() if bias else None
        self.register_parameter("bias", None if zeros is None else Parameter(zeros))

    @classmethod
    def of(cls, layer: Any) -> Self:
        """The layer with its weight quantised and its bias, if it has one, as it is."""
        weight, scale = quantize_rows(layer.weight)
        bias = getattr(layer, "bias", None)
        return cls(0, 0, bias=False)._on(Buffer(weight), Buffer(scale), bias)

    @classmethod
    def sharing(cls, layer: Int8Linear, bias: Tensor | None) -> Self:
        """Another layer on the same weight and scale."""
        return cls(0, 0, bias=False)._on(layer.weight, layer.scale, bias)

    def _on(self, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Self:
        self.out_features, self.in_features = weight.shape
        self.weight, self.scale, self.bias = weight, scale, bias
        return self

    def forward(self, input: Any) -> Any:
        if input.shape[-1:] != (self.in_features,):
            raise RuntimeError(
                f"Int8Linear: an input of shape {input.shape} and a weight of shape "
                f"{self.weight.shape}: the input's last size and the weight's second must be equal"
            )
        rows = math.prod(input.shape[:-1])
        x = input if input.ndim == 2 else reshape(input, (rows, self.in_features))
        out = _int8_linear(x, self.weight.array, self.scale.array)
        out = out if input.ndim == 2 else reshape(out, (*input.shape[:-1], self.out_features))
        return out if self.bias is None else out + self.bias

    def dequantize(self) -> Tensor:
        """weight scale, as floats: (out_features, in_features)"""
        weight: Tensor = self.weight.to(self.scale.dtype) * self.scale.unsqueeze(1)
        return weight

    def extra_repr(self) -> str:
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}"


class Int8Head(Int8Linear):
    """An Int8Linear in the place of a language model's head, which has `padded` logits as well.

    Rows that pad a vocabulary are not kept, so both are the same.
    """

    def padded(self, input: Any) -> Any:
        return self(input)


class Int8Embedding(Module):
    """out[...] = weight[input[...]] scale[input[...]]: (...) ints -> (..., embedding_dim).

    weight (num_embeddings, embedding_dim) int8, scale (num_embeddings): buffers.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, num_embeddings: int, embedding_dim: int, device: Any = None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.weight = Buffer(empty(num_embeddings, embedding_dim, dtype=int8, device=device))
        self.scale = Buffer(empty(num_embeddings, device=device).fill_(1))

    @classmethod
    def sharing(cls, layer: Int8Linear) -> Int8Embedding:
        """A table on a layer's weight and scale: its tied twin."""
        self = cls(0, 0)
        self.num_embeddings, self.embedding_dim = layer.weight.shape
        self.weight, self.scale = layer.weight, layer.scale
        return self

    def forward(self, input: Any) -> Any:
        scale = self.scale[input].unsqueeze(-1)
        return self.weight[input].to(scale.dtype) * scale

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"


def quantize(model: M, bits: int = 8, where: Callable[[str, Module], bool] | None = None) -> M:
    """Every Linear of the model made an Int8Linear, in place; answers the model.

    An Embedding that shares its weight with a Linear (a tied head) becomes an Int8Embedding on the
    same bytes; others, norms and biases stay floats.  where(name, module): which Linears; all.

    A saved state returns with `quantize(Model(config)).load_state_dict(state)`.
    """
    if bits != 8:
        raise ValueError(f"quantize: weights of {bits} bits are not known; bits must be 8")
    if _twin_of(model) is not None:
        return Int8Linear.of(model)  # type: ignore[return-value]
    places = [(m, name, child) for m in model.modules() for name, child in m._own(MODULE)]
    paths = {module: path for path, module in model.named_modules()}
    layers: dict[Module, Int8Linear] = {}
    first: dict[Tensor, Int8Linear] = {}  # by weight, so that what was shared stays shared
    for parent, name, child in places:
        kind = _twin_of(child)
        if kind is None or (where is not None and not where(paths[child], child)):
            continue
        if child not in layers:
            weight, bias = child.weight, getattr(child, "bias", None)
            new = kind.sharing(first[weight], bias) if weight in first else kind.of(child)
            layers[child] = new.train(child.training)
            first.setdefault(weight, new)
        setattr(parent, name, layers[child])
    for parent, name, child in places:
        if isinstance(child, Embedding) and child.weight in first:
            setattr(parent, name, Int8Embedding.sharing(first[child.weight]).train(child.training))
    return model


def _twin_of(module: Any) -> type[Int8Linear] | None:
    """What takes the module's place, if it multiplies with its weight and does nothing else."""
    if isinstance(module, Linear) and type(module).forward is Linear.forward:
        return Int8Linear
    head = hasattr(module, "padded") and [name for name, _ in module._own(PARAMETER)] == ["weight"]
    return Int8Head if head else None
