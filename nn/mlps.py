"""The MLP of Llama, in which one projection opens and shuts the other."""

from __future__ import annotations

from tensorgrad.nn import functional as F
from tensorgrad.nn.layers import Dropout, Linear
from tensorgrad.nn.module import Module
from tensorgrad.tensor import Tensor


class SwiGLU(Module):
    """out = down(silu(gate(x)) up(x)): (..., C) -> (..., C), n_inner numbers inside.

    Without n_inner 8/3 C, so that three matrices have the parameters that two of 4 C had.
    Shazeer 2020, "GLU variants improve transformer"; the names are Llama's.
    """

    def __init__(
        self, n_embd: int, n_inner: int | None = None, bias: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        n_inner = 8 * n_embd // 3 if n_inner is None else n_inner
        self.gate_proj = Linear(n_embd, n_inner, bias=bias)
        self.up_proj = Linear(n_embd, n_inner, bias=bias)
        self.down_proj = Linear(n_inner, n_embd, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:  # (..., C) -> (..., C)
        x = F.silu(self.gate_proj(x)) * self.up_proj(x)  # (..., n_inner)
        x = self.dropout(self.down_proj(x))
        return x
