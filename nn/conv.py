"""Convolution layers: weights with PyTorch's names, shapes and initial values."""

from __future__ import annotations

import math
from math import prod
from typing import Any

from tensorgrad.creation import empty
from tensorgrad.nn import functional as F
from tensorgrad.nn import init
from tensorgrad.nn.module import Module
from tensorgrad.nn.parameter import Parameter
from tensorgrad.tensor import Tensor

MODES = ("zeros", "reflect", "replicate", "circular")
"""The values of padding_mode; all but zeros are modes of pad(), too."""


def each(value: Any, n: int) -> Any:
    """One number for all n dims; sequences as they are."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * n


class Convolution(Module):
    """What the layers below share: weight and bias ~ U[-b, b), b = 1 / sqrt(fan in)."""

    weight: Tensor
    bias: Tensor | None
    dims = 0
    transposed = False

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, padding: Any,
        dilation: Any, output_padding: Any, groups: int, bias: bool, padding_mode: str,
        device: Any, dtype: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        name, n = type(self).__name__, self.dims
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{name}: groups must be positive and divide in_channels and out_channels, "
                f"{in_channels}, {out_channels} and groups={groups} do not fit"
            )
        if isinstance(padding, str):
            if self.transposed:
                raise ValueError(f"{name}: padding must be an int or {n} ints, not {padding!r}")
            if padding not in ("same", "valid"):
                raise ValueError(
                    f"{name}: padding must be 'same', 'valid' or ints, not {padding!r}"
                )
            if padding == "same" and any(s != 1 for s in each(stride, n)):
                raise ValueError(f"{name}: padding='same' goes with stride 1, not {stride}")
        if padding_mode not in MODES or (self.transposed and padding_mode != "zeros"):
            modes = "'zeros'" if self.transposed else ", ".join(map(repr, MODES))
            raise ValueError(f"{name}: padding_mode must be {modes}, not {padding_mode!r}")
        if len(each(kernel_size, n)) != n:
            raise ValueError(f"{name}: kernel_size is an int or {n} ints, not {kernel_size!r}")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride = each(kernel_size, n), each(stride, n)
        self.padding = padding if isinstance(padding, str) else each(padding, n)
        self.dilation, self.output_padding = each(dilation, n), each(output_padding, n)
        self.padding_mode = padding_mode
        made, read = (out_channels, in_channels)[:: -1 if self.transposed else 1]
        self.weight = Parameter(
            empty(made, read // groups, *self.kernel_size, device=device, dtype=dtype)
        )
        self.register_parameter(
            "bias", Parameter(empty(out_channels, device=device, dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """weight and bias ~ U[-b, b), b = 1 / sqrt(fan in), the weight's size without its first."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        fan_in = prod(self.weight.shape[1:])
        if self.bias is not None and fan_in:
            init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def extra_repr(self) -> str:
        n = self.dims
        parts = [f"{self.in_channels}, {self.out_channels}"]
        parts += [f"kernel_size={self.kernel_size}, stride={self.stride}"]
        parts += [f"padding={self.padding}"] if self.padding != (0,) * n else []
        parts += [f"dilation={self.dilation}"] if self.dilation != (1,) * n else []
        parts += [f"output_padding={self.output_padding}"] if any(self.output_padding) else []
        parts += [f"groups={self.groups}"] if self.groups != 1 else []
        parts += ["bias=False"] if self.bias is None else []
        parts += [f"padding_mode={self.padding_mode}"] if self.padding_mode != "zeros" else []
        return ", ".join(parts)

    # ---- forward

    def _around(self) -> tuple[int, ...]:
        """The padding before and after each dim, the last dim first, as pad() takes it."""
        if self.padding == "same":
            totals = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size)]
            pairs = [(total // 2, total - total // 2) for total in totals]
        else:
            padding = 0 if self.padding == "valid" else self.padding
            pairs = [(p, p) for p in each(padding, self.dims)]
        return tuple(p for pair in reversed(pairs) for p in pair)

    def _convolved(self, convolution: Any, input: Any) -> Any:
        padding = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._around(), self.padding_mode), 0
        return convolution(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )

    def _transposed(self, convolution: Any, input: Any, output_size: Any) -> Any:
        more = self.output_padding
        if output_size is not None:
            more = self._output_padding(input, tuple(output_size))
        return convolution(
            input, self.weight, self.bias, self.stride, self.padding, more, self.groups,
            self.dilation,
        )  # fmt: skip

    def _output_padding(self, input: Any, size: tuple[int, ...]) -> tuple[int, ...]:
        """What is missing to the size asked for; the sizes of batch and channels may stand
        before."""
        n = self.dims
        wanted = size[-n:] if len(size) in (n, input.ndim) else ()
        if not wanted:
            raise ValueError(
                f"{type(self).__name__}: output_size must have {n} or {input.ndim} entries, not "
                f"{size}"
            )
        least = [
            (m - 1) * s - 2 * p + d * (k - 1) + 1
            for m, s, p, d, k in zip(
                input.shape[-n:], self.stride, self.padding, self.dilation, self.kernel_size
            )
        ]
        for a, b, s in zip(wanted, least, self.stride):
            if not b <= a < b + s:
                most = tuple(b + s - 1 for b, s in zip(least, self.stride))
                raise ValueError(
                    f"{type(self).__name__}: output_size {wanted} must lie between {tuple(least)} "
                    f"and {most} for an input of shape {tuple(input.shape)}"
                )
        return tuple(a - b for a, b in zip(wanted, least))


class Conv1d(Convolution):
    """out[n, d, o] = bias[d] + sum over c, k of weight[d, c, k] x[n, c, o stride + k dilation -
    padding].

    (N, C, L) or (C, L) -> (N, D, *).  weight (D, C / groups, K), bias (D).  padding: ints, "same"
    or "valid"; padding_mode: "zeros", "reflect", "replicate" or "circular".  LeCun et al. 1989.
    """

    dims = 1

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, 0, groups, bias,
            padding_mode, device, dtype,
        )  # fmt: skip

    def forward(self, input: Any) -> Any:
        return self._convolved(F.conv1d, input)


class Conv2d(Conv1d):
    """The same over two dims: (N, C, H, W) or (C, H, W) -> (N, D, *, *).

    weight (D, C / groups, K, L), bias (D); sizes are ints for both dims, or pairs.
    """

    dims = 2

    def forward(self, input: Any) -> Any:
        return self._convolved(F.conv2d, input)


class ConvTranspose1d(Convolution):
    """The gradient of a convolution for its input: (N, D, L) or (D, L) -> (N, C, *).

    weight (D, C / groups, K), bias (C), D being in_channels.  `forward` takes an output_size, from
    which the output_padding follows.
    """

    dims, transposed = 1, True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, output_padding: Any = 0, groups: int = 1, bias: bool = True,
        dilation: Any = 1, padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding,
            groups, bias, padding_mode, device, dtype,
        )  # fmt: skip

    def forward(self, input: Any, output_size: Any = None) -> Any:
        return self._transposed(F.conv_transpose1d, input, output_size)


class ConvTranspose2d(ConvTranspose1d):
    """The same over two dims: (N, D, H, W) or (D, H, W) -> (N, C, *, *)."""

    dims = 2

    def forward(self, input: Any, output_size: Any = None) -> Any:
        return self._transposed(F.conv_transpose2d, input, output_size)
