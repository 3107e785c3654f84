"""A training recipe: plain fields with nanoGPT's names, read from --key=value."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, field, fields
from typing import Any


def _help(text: str, default: Any) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; the defaults are nanoGPT's recipe for a CPU."""

    block_size: int = _help("characters that the model sees at once", 64)
    n_layer: int = _help("blocks", 4)
    n_head: int = _help("attention heads per block", 4)
    n_embd: int = _help("width of the model", 128)
    dropout: float = _help("probability of dropping an activation", 0.0)
    batch_size: int = _help("windows per step", 12)
    max_iters: int = _help("steps", 2000)
    learning_rate: float = _help("AdamW's rate after warm-up", 1e-3)
    min_lr: float = _help("rate at the end of the cosine", 1e-4)
    warmup_iters: int = _help("steps of linear warm-up", 100)
    decay_lr: bool = _help("lower the rate along a cosine", True)
    weight_decay: float = _help("AdamW's decay, of matrices only", 0.1)
    beta1: float = _help("AdamW's first beta", 0.9)
    beta2: float = _help("AdamW's second beta", 0.99)
    grad_clip: float = _help("largest gradient norm; 0 for no limit", 1.0)
    eval_interval: int = _help("steps between evaluations", 250)
    eval_iters: int = _help("batches of each split per evaluation", 20)
    log_interval: int = _help("steps between lines where there is no terminal", 100)
    seed: int = _help("seed of weights and batches", 1337)
    device: str = _help("cpu or cuda", "cpu")

    def __post_init__(self) -> None:
        for name in ("block_size", "n_layer", "n_head", "n_embd", "batch_size", "eval_interval", "eval_iters",
                     "log_interval"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, it is {getattr(self, name)}")
        for name in ("max_iters", "warmup_iters", "learning_rate", "min_lr", "weight_decay", "grad_clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, it is {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """A recipe from keys and values; ValueError with the nearest name for a key that is none."""
        known = {f.name: f for f in fields(cls)}
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                raise ValueError(f"there is no setting '{key}'" + (f"; did you mean '{near[0]}'?" if near else ""))
        return cls(**values)
