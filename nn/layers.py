"""The layers of a GPT: weights with PyTorch's names, shapes and initial values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

from tensorgrad.creation import empty
from tensorgrad.mode import no_grad
from tensorgrad.nn import functional as F
from tensorgrad.nn import init
from tensorgrad.nn.module import Module
from tensorgrad.nn.parameter import Parameter
from tensorgrad.ops.shape import flatten
from tensorgrad.tensor import Tensor


class Identity(Module):
    """out = x; whatever else it is given is ignored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        return input


class Linear(Module):
    """out = x weight^T + bias: (..., in_features) -> (..., out_features).

    weight (out_features, in_features), bias (out_features).
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(empty(out_features, in_features, device=device, dtype=dtype))
        self.register_parameter(
            "bias", Parameter(empty(out_features, device=device, dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """weight and bias ~ U[-b, b), b = 1 / sqrt(in_features)."""
        init.kaiming_uniform_(
            self.weight, a=math.sqrt(5)
        )  # a gain of sqrt(1/3), which undoes sqrt(3)
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Any) -> Any:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}"


class Embedding(Module):
    """out[...] = weight[input[...]]: (...) ints -> (..., embedding_dim).

    weight (num_embeddings, embedding_dim).  Row padding_idx starts at zero and gets no gradient.
    max_norm: rows of a larger norm_type-norm are shortened when asked for, in place.
    scale_grad_by_freq: a row's gradient is divided by how often it was asked for.
    _weight: the weight itself, which _freeze keeps from requiring grad.
    """

    weight: Tensor

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None,
        max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
        sparse: bool = False, _weight: Tensor | None = None, _freeze: bool = False,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if sparse:
            raise RuntimeError("Embedding: there are no sparse gradients; leave out sparse=True")
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise AssertionError(
                    f"Embedding: padding_idx {padding_idx} is out of range for "
                    f"{num_embeddings} rows"
                )
            padding_idx %= num_embeddings
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx, self.max_norm, self.norm_type = padding_idx, max_norm, norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        if _weight is not None and _weight.shape != (num_embeddings, embedding_dim):
            raise AssertionError(
                f"Embedding: _weight has shape {_weight.shape}, "
                f"not {(num_embeddings, embedding_dim)}"
            )
        made = empty(num_embeddings, embedding_dim, device=device, dtype=dtype)
        self.weight = Parameter(made if _weight is None else _weight, requires_grad=not _freeze)
        if _weight is None:
            self.reset_parameters()

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None,
        max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Self:  # fmt: skip
        """A layer on the memory of `embeddings` (V, C), without gradients if `freeze`."""
        if embeddings.ndim != 2:
            raise AssertionError(
                f"from_pretrained: embeddings must be 2-d, their shape is {embeddings.shape}"
            )
        rows, size = embeddings.shape
        return cls(
            rows, size, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse,
            embeddings, freeze,
        )  # fmt: skip

    def reset_parameters(self) -> None:
        """weight ~ N(0, 1), row padding_idx 0."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0

    def forward(self, input: Any) -> Any:
        return F.embedding(
            input, self.weight, self.padding_idx, self.max_norm, self.norm_type,
            self.scale_grad_by_freq,
        )  # fmt: skip

    def extra_repr(self) -> str:
        ordinary = {
            "padding_idx": None, "max_norm": None, "norm_type": 2, "scale_grad_by_freq": False
        }  # fmt: skip
        told = {name: getattr(self, name) for name in ordinary}
        rest = "".join(f", {k}={v}" for k, v in told.items() if v != ordinary[k])
        return f"{self.num_embeddings}, {self.embedding_dim}{rest}"


class LayerNorm(Module):
    """out = (x - mean) / sqrt(var + eps) * weight + bias over the last dims.

    normalized_shape: the sizes of those dims.  Ba, Kiros and Hinton 2016.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float = 1e-5,
        elementwise_affine: bool = True, bias: bool = True, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        shape = (
            (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        )
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        for name, wanted in (("weight", elementwise_affine), ("bias", elementwise_affine and bias)):
            self.register_parameter(
                name, Parameter(empty(shape, device=device, dtype=dtype)) if wanted else None
            )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """weight 1, bias 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Any) -> Any:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        affine, bias = self.elementwise_affine, self.bias is not None
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={affine}, bias={bias}"


class Dropout(Module):
    """In training out = x / (1 - p) with probability 1 - p, else 0; in evaluation out = x.

    Srivastava et al. 2014.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: the probability must lie between 0 and 1, it is {p}")
        self.p, self.inplace = p, inplace

    def forward(self, input: Any) -> Any:
        return F.dropout(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class GELU(Module):
    """out = x Phi(x), or its tanh approximation.  Hendrycks and Gimpel 2016."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Any) -> Any:
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class ReLU(Module):
    """out = max(x, 0); inplace writes it over x."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        return input.relu_() if self.inplace else F.relu(input)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class Tanh(Module):
    """out = tanh x"""

    def forward(self, input: Any) -> Any:
        return F.tanh(input)


class Sigmoid(Module):
    """out = 1 / (1 + exp(-x))"""

    def forward(self, input: Any) -> Any:
        return F.sigmoid(input)


class Softmax(Module):
    """out = exp(x) / sum exp(x) along dim."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Any) -> Any:
        return F.softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """out = x - log sum exp(x) along dim."""

    def forward(self, input: Any) -> Any:
        return F.log_softmax(input, self.dim)


class Flatten(Module):
    """Dims start_dim to end_dim made one: (B, ...) -> (B, rest)."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Any) -> Any:
        return flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
