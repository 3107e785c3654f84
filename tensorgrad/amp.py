"""Mixed precision: `with tg.autocast("cuda"):` products run in 16 bits on float32 weights.

Micikevicius et al. 2018.  The casts are recorded, so gradients arrive in float32; backward itself
computes each part in the dtype of its forward op."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from tensorgrad import mode
from tensorgrad.dtypes import as_dtype, bfloat16, float16, float32
from tensorgrad.mode import _Setting
from tensorgrad.tensor import Tensor

LOWER = frozenset((
    "matmul", "mm", "linear", "linear_bias", "attention", "flash_attention", "conv", "conv_bias",
    "conv_transpose", "conv_transpose_bias",
))  # fmt: skip
"""Ops that run in 16 bits: their work is products, which accumulate in float32."""

WIDER = frozenset((
    "acos", "asin", "cosh", "cross_entropy", "cross_entropy_rows", "cumsum", "exp", "expm1",
    "layer_norm", "log", "log10", "log1p", "log2", "log_softmax", "logsumexp", "mean", "pow",
    "reciprocal", "rsqrt", "sinh", "softmax", "softplus", "standardize", "sum", "tan", "total",
))  # fmt: skip
"""Ops that run in float32: sums, and what overflows or loses its digits in 16 bits."""


class Policy:
    """What one `autocast` block does to the operands of an op."""

    def __init__(self, device: str, dtype: Any, cache: bool) -> None:
        self.device, self.dtype = device, dtype
        self.cached: dict[int, tuple[Tensor, Tensor]] | None = {} if cache else None

    def operands(self, op: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """The inputs, cast as the op's list says."""
        if op.name in LOWER:
            return tuple(self.cast(x, self.dtype, (float32,)) for x in inputs)
        if op.name in WIDER:
            return tuple(self.cast(x, float32, (self.dtype,)) for x in inputs)
        return inputs

    def widens(self, x: Tensor) -> bool:
        """Whether x is what the CPU's kernels read in 16 bits where others need float32."""
        return bool(
            x.array.dtype == self.dtype == bfloat16() and x.device.type == self.device == "cpu"
        )

    def cast(self, x: Any, dtype: Any, of: tuple[Any, ...]) -> Any:
        if type(x) is not Tensor or x.array.dtype not in of or x.device.type != self.device:
            return x
        from tensorgrad.convert import cast

        weight = self.cached is not None and dtype is self.dtype and x.is_leaf and x.requires_grad
        if not weight:
            return cast(x, dtype)
        assert self.cached is not None
        found = self.cached.get(id(x))
        if found is None:  # a weight is cast once in a block, however often it is used
            found = self.cached[id(x)] = x, cast(x, dtype)
        return found[1]


class autocast(_Setting):
    """Inside, products take 16-bit copies of float32 operands; sums and exponentials float32.

    device_type: "cpu" or "cuda", the tensors it is for.  dtype: bfloat16 by default, or float16.
    Weights stay as they are, and so do their gradients' dtype.  Wrap the forward pass and the
    loss, not backward.  Context manager and decorator; per thread.
    """

    def __init__(
        self, device_type: str, dtype: Any = None, enabled: bool = True,
        cache_enabled: bool = True,
    ) -> None:  # fmt: skip
        if device_type not in ("cpu", "cuda"):
            raise RuntimeError(
                f"autocast: device_type must be 'cpu' or 'cuda', not {device_type!r}"
            )
        dtype = bfloat16() if dtype is None else as_dtype(dtype)
        if dtype not in (bfloat16(), float16):
            raise RuntimeError(f"autocast: dtype must be bfloat16 or float16, not {dtype}")
        self.settings: Mapping[str, Any] = {
            "autocast": Policy(device_type, dtype, cache_enabled) if enabled else None
        }

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        policy = self.settings["autocast"]
        if policy is not None and policy.cached is not None:
            policy.cached.clear()  # the weights may change before the next block


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether this thread is inside an `autocast` block for this kind of device."""
    policy = mode.thread.autocast
    return policy is not None and policy.device == device_type
