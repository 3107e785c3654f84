"""Activations as modules: the function of the same name in functional.py with its options kept."""

from __future__ import annotations

import warnings
from typing import Any

from tensorgrad.creation import full
from tensorgrad.nn import functional as F
from tensorgrad.nn.module import Module
from tensorgrad.nn.parameter import Parameter
from tensorgrad.tensor import Tensor


class _InPlace(Module):
    """What may write its result over its input."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def options(self) -> list[str]:
        """The names of the options that repr shows before inplace."""
        return []

    def extra_repr(self) -> str:
        shown = [f"{name}={getattr(self, name)}" for name in self.options()]
        return ", ".join(shown + ["inplace=True"] * self.inplace)


# ---- straight above zero, exponential below


class CELU(_InPlace):
    """out = max(x, 0) + min(0, alpha (exp(x / alpha) - 1)).  Barron 2017."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = alpha

    def forward(self, input: Any) -> Any:
        return F.celu(input, self.alpha, self.inplace)

    def options(self) -> list[str]:
        return ["alpha"]


class ELU(CELU):
    """out = x where x > 0, else alpha (exp(x) - 1).  Clevert, Unterthiner and Hochreiter 2015."""

    def forward(self, input: Any) -> Any:
        return F.elu(input, self.alpha, self.inplace)


class SELU(_InPlace):
    """out = 1.0507 x where x > 0, else 1.0507 * 1.6733 (exp(x) - 1).  Klambauer et al. 2017."""

    def forward(self, input: Any) -> Any:
        return F.selu(input, self.inplace)


# ---- straight pieces


class LeakyReLU(_InPlace):
    """out = x where x > 0, else negative_slope x.  Maas, Hannun and Ng 2013."""

    def __init__(self, negative_slope: float = 1e-2, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.negative_slope = negative_slope

    def forward(self, input: Any) -> Any:
        return F.leaky_relu(input, self.negative_slope, self.inplace)

    def options(self) -> list[str]:
        return ["negative_slope"]


class PReLU(Module):
    """out = x where x > 0, else weight x.  He et al. 2015.

    weight (num_parameters): one for all, or one per channel (dim 1); each begins as `init`.
    """

    weight: Tensor

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.num_parameters, self.init = num_parameters, init
        self.weight = Parameter(full(num_parameters, float(init), device=device, dtype=dtype))

    def forward(self, input: Any) -> Any:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class Hardtanh(_InPlace):
    """out = min(max(x, min_val), max_val)."""

    def __init__(
        self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False,
        min_value: float | None = None, max_value: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(inplace)
        for old, new in ((min_value, "min_val"), (max_value, "max_val")):
            if old is not None:
                warnings.warn(f"Hardtanh: call it {new}", FutureWarning, stacklevel=2)
        min_val = min_val if min_value is None else min_value
        max_val = max_val if max_value is None else max_value
        if max_val <= min_val:
            raise AssertionError(
                f"{type(self).__name__}: max_val ({max_val}) must be above min_val ({min_val})"
            )
        self.min_val, self.max_val = min_val, max_val

    def forward(self, input: Any) -> Any:
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def options(self) -> list[str]:
        return ["min_val", "max_val"]


class ReLU6(Hardtanh):
    """out = min(max(x, 0), 6).  Krizhevsky 2010."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)

    def options(self) -> list[str]:
        return []


class Threshold(_InPlace):
    """out = x where x > threshold, else value."""

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.threshold, self.value = threshold, value

    def forward(self, input: Any) -> Any:
        return F.threshold(input, self.threshold, self.value, self.inplace)

    def options(self) -> list[str]:
        return ["threshold", "value"]


class Hardsigmoid(_InPlace):
    """out = min(max(x + 3, 0), 6) / 6.  Howard et al. 2019."""

    def forward(self, input: Any) -> Any:
        return F.hardsigmoid(input, self.inplace)

    def extra_repr(self) -> str:
        return ""


class Hardswish(Hardsigmoid):
    """out = x min(max(x + 3, 0), 6) / 6.  Howard et al. 2019."""

    def forward(self, input: Any) -> Any:
        return F.hardswish(input, self.inplace)


class Hardshrink(Module):
    """out = x where |x| > lambd, else 0."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Any) -> Any:
        return F.hardshrink(input, self.lambd)

    def extra_repr(self) -> str:
        return str(self.lambd)


class Softshrink(Hardshrink):
    """out = x - lambd where x > lambd, x + lambd where x < -lambd, else 0."""

    def forward(self, input: Any) -> Any:
        return F.softshrink(input, self.lambd)


# ---- smooth


class SiLU(_InPlace):
    """out = x sigmoid(x).  Hendrycks and Gimpel 2016; Ramachandran, Zoph and Le 2017, as swish."""

    def forward(self, input: Any) -> Any:
        return F.silu(input, self.inplace)


class Mish(_InPlace):
    """out = x tanh(log(1 + exp(x))).  Misra 2019."""

    def forward(self, input: Any) -> Any:
        return F.mish(input, self.inplace)


class Softplus(Module):
    """out = log(1 + exp(beta x)) / beta, x itself where beta x > threshold.  Dugas et al. 2001."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Any) -> Any:
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class LogSigmoid(Module):
    """out = log(1 / (1 + exp(-x)))."""

    def forward(self, input: Any) -> Any:
        return F.logsigmoid(input)


class Softsign(Module):
    """out = x / (1 + |x|).  Bergstra et al. 2009."""

    def forward(self, input: Any) -> Any:
        return F.softsign(input)


class Tanhshrink(Module):
    """out = x - tanh(x)."""

    def forward(self, input: Any) -> Any:
        return F.tanhshrink(input)


# ---- along a dim


class _Along(Module):
    """What acts along a dim."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmin(_Along):
    """out = exp(-x) / sum exp(-x) along dim."""

    def forward(self, input: Any) -> Any:
        return F.softmin(input, self.dim)


class GLU(_Along):
    """out = a sigmoid(b), a and b the halves of x along dim.  Dauphin et al. 2016."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__(dim)

    def forward(self, input: Any) -> Any:
        return F.glu(input, self.dim)
