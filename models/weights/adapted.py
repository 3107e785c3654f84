"""What was put into a model after it was made: int8 weights and LoRA adapters, told and made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tensorgrad.models.weights.names import shared
from tensorgrad.nn import lora
from tensorgrad.nn.quantization import Int8Linear, quantize

ABOUT = ("rank", "alpha", "merged")


def is_adapted(model: Any) -> bool:
    """Whether the model has layers that a plain one has not."""
    return any(isinstance(m, Int8Linear | lora.LoRALinear) for m in model.modules())


def described(model: Any) -> dict[str, dict[str, Any]]:
    """{"transformer.h.0.attn.c_attn": {"rank": 8, ...}, ...}: every adapter and its settings."""
    return {
        path: {name: getattr(adapter, name) for name in ABOUT} | {"dropout": adapter.dropout.p}
        for path, adapter in lora.adapters(model)
    }


def adapt(model: Any, told: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> None:
    """Give the model what `described` told, and int8 weights where `names` has a scale.

    Adapters learn and all else is frozen, as after `lora.inject`.
    """
    tied = model.config.tie_word_embeddings
    scales = {name.replace(".base.scale", ".scale") for name in names if name.endswith(".scale")}

    def has_scale(path: str, layer: Any) -> bool:
        name = f"{path}.scale"
        return (shared(name) if tied else name) in scales

    if scales:
        for p in model.parameters():
            p.data.zero_()  # what nobody has written may not be finite
        quantize(model, where=has_scale)
    for path, about in told.items():
        lora.inject(model, [path], about["rank"], about["alpha"], about["dropout"])
        model.get_submodule(path).merged = about["merged"]
    for _, adapter in lora.adapters(model):
        adapter.lora_A.requires_grad_(True)
        adapter.lora_B.requires_grad_(True)
