"""Normalisation as modules: weights and running statistics under PyTorch's names."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

from tensorgrad.creation import empty, ones, zeros
from tensorgrad.dtypes import int64
from tensorgrad.nn import functional as F
from tensorgrad.nn import init
from tensorgrad.nn.module import Module
from tensorgrad.nn.parameter import Parameter
from tensorgrad.ops.norms import batch_norm_last
from tensorgrad.tensor import Tensor


def _add(module: Module, shape: tuple[int, ...], device: Any, dtype: Any, **wanted: bool) -> None:
    """Parameters of these names where wanted, None where not."""
    for name, there in wanted.items():
        p = Parameter(empty(shape, device=device, dtype=dtype)) if there else None
        module.register_parameter(name, p)


class _Affine(Module):
    weight: Tensor | None
    bias: Tensor | None

    def reset_parameters(self) -> None:
        """weight 1, bias 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


class _Tracking(_Affine):
    """weight and bias, and running statistics: what batch and instance normalisation share."""

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    ranks: ClassVar[tuple[int, ...]]
    """how many dims an input may have"""

    def __init__(
        self, num_features: int, eps: float, momentum: float | None, affine: bool,
        track_running_stats: bool, device: Any, dtype: Any, bias: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        _add(self, (num_features,), device, dtype, weight=affine, bias=affine and bias)
        here = {"device": device, "dtype": dtype}
        tracked = track_running_stats
        self.register_buffer("running_mean", zeros(num_features, **here) if tracked else None)
        self.register_buffer("running_var", ones(num_features, **here) if tracked else None)
        count = zeros((), dtype=int64, device=device) if tracked else None
        self.register_buffer("num_batches_tracked", count)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """running_mean 0, running_var 1, num_batches_tracked 0."""
        if self.running_mean is not None and self.running_var is not None:
            self.running_mean.fill_(0)
            self.running_var.fill_(1)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.fill_(0)

    def reset_parameters(self) -> None:
        """weight 1, bias 0, and the running statistics as they began."""
        self.reset_running_stats()
        super().reset_parameters()

    def check(self, input: Any) -> None:
        if input.ndim not in self.ranks:
            wanted = " or ".join(f"{n}-d" for n in self.ranks)
            raise ValueError(
                f"{type(self).__name__}: expected a {wanted} input, not one of shape {input.shape}"
            )

    def extra_repr(self) -> str:
        names = ("eps", "momentum", "affine", "bias", "track_running_stats")
        shown = {name: getattr(self, name) for name in names} | {"bias": self.bias is not None}
        return f"{self.num_features}, " + ", ".join(f"{k}={v}" for k, v in shown.items())


def count(batches: Any) -> None:
    """One more; no gradient can depend on it, so a plain Tensor's number is changed directly."""
    if type(batches) is Tensor:
        batches.array += 1
    else:
        batches.add_(1)


class _BatchNorm(_Tracking):
    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
        affine: bool = True, track_running_stats: bool = True, device: Any = None,
        dtype: Any = None, *, bias: bool = True, channels_last: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias
        )
        self.channels_last = channels_last

    def forward(self, input: Any) -> Any:
        self.check(input)
        step = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            count(self.num_batches_tracked)
            if self.momentum is None:
                step = 1.0 / self.num_batches_tracked.item()
        used = not self.training or self.track_running_stats
        mean, var = (self.running_mean, self.running_var) if used else (None, None)
        norm = batch_norm_last if self.channels_last else F.batch_norm
        return norm(
            input, mean, var, self.weight, self.bias, self.training or mean is None, step, self.eps
        )

    def extra_repr(self) -> str:
        return super().extra_repr() + (", channels_last=True" if self.channels_last else "")


class BatchNorm1d(_BatchNorm):
    """out = (x - mean) / sqrt(var + eps) * weight + bias over a batch: (N, C) or (N, C, L).

    With channels_last, which PyTorch has not, the input is (N, C) or (N, L, C).  Training takes the
    batch's statistics (the biased variance) and moves running_mean and running_var (the unbiased
    one) by `momentum` towards them (None: their plain average so far); evaluation takes the running
    ones.  `calibrate` sets them to those of a whole data set.  ValueError in training for a single
    value per channel, which has no variance.  Ioffe and Szegedy 2015.
    """

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """BatchNorm1d for images, (N, C, H, W), or (N, H, W, C) with channels_last."""

    ranks = (4,)


class _InstanceNorm(_Tracking):
    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
        track_running_stats: bool = False, device: Any = None, dtype: Any = None, *,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias
        )

    def forward(self, input: Any) -> Any:
        self.check(input)
        alone = input.ndim == self.ranks[0]
        given = input.shape[0 if alone else 1]
        if given != self.num_features:
            told = f"{type(self).__name__}: {given} channels, num_features is {self.num_features}"
            if self.affine:
                raise ValueError(told)
            warnings.warn(f"{told}; it plays no part without affine=True", stacklevel=2)
        x = input.unsqueeze(0) if alone else input
        step = 0.0 if self.momentum is None else self.momentum
        y = F.instance_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias,
            self.training or not self.track_running_stats, step, self.eps,
        )  # fmt: skip
        return y.squeeze(0) if alone else y


class InstanceNorm1d(_InstanceNorm):
    """out = (x - mean) / sqrt(var + eps) * weight + bias over each channel: (N, C, L) or (C, L).

    With track_running_stats evaluation takes the running averages of the statistics.
    Ulyanov, Vedaldi and Lempitsky 2016.
    """

    ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """InstanceNorm1d for images, (N, C, H, W) or (C, H, W)."""

    ranks = (3, 4)


class GroupNorm(_Affine):
    """out = (x - mean) / sqrt(var + eps) * weight + bias over groups of channels: (N, C, ...).

    num_groups divides num_channels.  Wu and He 2018.
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True,
        device: Any = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(
                f"GroupNorm: {num_channels} channels are not divisible by {num_groups} groups"
            )
        self.num_groups, self.num_channels = num_groups, num_channels
        self.eps, self.affine = eps, affine
        _add(self, (num_channels,), device, dtype, weight=affine, bias=affine and bias)
        self.reset_parameters()

    def forward(self, input: Any) -> Any:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class RMSNorm(Module):
    """out = x / sqrt(mean(x^2) + eps) * weight over the last dims, of sizes normalized_shape.

    eps: by default the spacing of the input's floats at 1.  Zhang and Sennrich 2019.
    """

    weight: Tensor | None

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float | None = None,
        elementwise_affine: bool = True, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalized_shape = (
            (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        )
        self.eps, self.elementwise_affine = eps, elementwise_affine
        _add(self, self.normalized_shape, device, dtype, weight=elementwise_affine)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """weight 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: Any) -> Any:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        affine = self.elementwise_affine
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={affine}"
