"""LoRA: a frozen matrix and a learned correction of low rank, W + (alpha / r) B A.

Hu et al. 2021, "LoRA: Low-rank adaptation of large language models"."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from tensorgrad import memory
from tensorgrad.creation import empty, zeros
from tensorgrad.nn import functional as F
from tensorgrad.nn import init
from tensorgrad.nn.layers import Dropout, Linear
from tensorgrad.nn.module import MODULE, Module
from tensorgrad.nn.parameter import Parameter
from tensorgrad.nn.quantization import Int8Linear
from tensorgrad.nn.state import IncompatibleKeys, load
from tensorgrad.tensor import Tensor

M = TypeVar("M", bound=Module)


class LoRALinear(Module):
    """out = base(x) + (alpha / r) drop(x) A^T B^T: (..., in) -> (..., out).

    lora_A (r, in) starts as a Linear's weight does, lora_B (out, r) at zero, so that nothing
    changes at first.  base: a Linear, or an Int8Linear, which stays int8 while A and B learn.
    """

    lora_A: Tensor
    lora_B: Tensor

    def __init__(
        self, base: Linear | Int8Linear, rank: int = 8, alpha: float = 16, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"LoRALinear: the rank must be at least 1, it is {rank}")
        self.base, self.rank, self.alpha, self.scaling = base, rank, alpha, alpha / rank
        dtype = base.scale.dtype if isinstance(base, Int8Linear) else base.weight.dtype
        like = {"dtype": dtype, "device": base.weight.device}
        self.lora_A = Parameter(empty(rank, base.in_features, **like))
        self.lora_B = Parameter(zeros(base.out_features, rank, **like))
        self.dropout = Dropout(dropout)
        self.merged = False
        init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        if self.merged:
            return y
        low = F.linear(self.dropout(x), self.lora_A)  # (..., r)
        out: Tensor = y + F.linear(low, self.lora_B) * self.scaling
        return out

    def delta(self) -> Any:
        """(alpha / r) B A as an array, (out, in)"""
        return (self.lora_B.array @ self.lora_A.array) * self.scaling

    def merge(self) -> None:
        """Add B A to the base's weight: one product again.  TypeError for int8 weights."""
        if not self.merged:
            self._add(self.delta())
            self.merged = True

    def unmerge(self) -> None:
        """Take B A out of the base's weight again, up to rounding."""
        if self.merged:
            self._add(-self.delta())
            self.merged = False

    def _add(self, change: Any) -> None:
        if isinstance(self.base, Int8Linear):
            raise TypeError("LoRALinear: a correction cannot be merged into int8 weights")
        weight = self.base.weight.array
        weight += change
        memory.stamp(weight)

    def extra_repr(self) -> str:
        return f"rank={self.rank}, alpha={self.alpha}, merged={self.merged}"


def inject(
    model: M, names: Sequence[str], rank: int = 8, alpha: float = 16, dropout: float = 0.0
) -> M:
    """Give the Linears of these names a LoRALinear each, freeze all else; answers the model.

    names: "c_attn" stands for every module of that name, "h.0.attn.c_attn" for one, "h.*.mlp.*"
    for those that it matches.  ValueError for a name that no Linear has.
    """
    places = [
        (path, parent, name, child)
        for where, parent in list(model.named_modules())
        for name, child in list(parent._own(MODULE))
        for path in [f"{where}.{name}" if where else name]
        if isinstance(child, Linear | Int8Linear)
    ]
    for wanted in names:
        if not any(_is_meant(wanted, path) for path, *_ in places):
            known = ", ".join(sorted({path.rpartition(".")[2] for path, *_ in places})) or "none"
            raise ValueError(f"inject: no Linear is named {wanted!r}; there are {known}")
    model.requires_grad_(False)
    made: dict[Module, LoRALinear] = {}
    for path, parent, name, child in places:
        if any(_is_meant(wanted, path) for wanted in names):
            if child not in made:
                made[child] = LoRALinear(child, rank, alpha, dropout).train(child.training)
            setattr(parent, name, made[child])
    return model


def _is_meant(wanted: str, path: str) -> bool:
    return fnmatchcase(path, wanted) or fnmatchcase(path, f"*.{wanted}")


def adapters(model: Module) -> Iterator[tuple[str, LoRALinear]]:
    """("h.0.attn.c_attn", adapter), ..."""
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            yield name, module


def merge(model: M) -> M:
    """Merge every adapter into its weight.  ValueError where another module uses that weight."""
    users: dict[Tensor, int] = {}
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor):
            users[weight] = users.get(weight, 0) + 1
    for name, adapter in adapters(model):
        if users[adapter.base.weight] > 1:
            raise ValueError(
                f"merge: the weight of {name} is shared with another module, which would change "
                "too; leave the adapter as it is"
            )
    for _, adapter in adapters(model):
        adapter.merge()
    return model


def unmerge(model: M) -> M:
    """Take every adapter out of its weight, to train on."""
    for _, adapter in adapters(model):
        adapter.unmerge()
    return model


def fuse(model: M) -> M:
    """Merge, then put the plain Linears back in their places, under their old names."""
    merge(model)
    for parent in list(model.modules()):
        for name, child in list(parent._own(MODULE)):
            if isinstance(child, LoRALinear):
                setattr(parent, name, child.base)
    return model


def state_dict(model: Module) -> dict[str, Tensor]:
    """The adapters alone: "h.0.attn.c_attn.lora_A" and lora_B, detached, on the same memory."""
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name.rpartition(".")[2] in ("lora_A", "lora_B")
    }


def load_state_dict(model: Module, state: Mapping[str, Any]) -> IncompatibleKeys:
    """Copy adapters that were saved into a model that has them.  RuntimeError where they differ."""
    if any(adapter.merged for _, adapter in adapters(model)):
        raise RuntimeError("load_state_dict: unmerge the adapters before others take their place")
    return load(type(model).__name__, state_dict(model), state, strict=True, assign=False)
