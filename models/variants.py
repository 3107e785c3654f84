"""GPT-2 with other parts: positions, key heads, who sees whom, norms, MLPs; composed from nn.

A setting that would do nothing is refused, so config.json always says what the model is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from tensorgrad import Tensor, nn
from tensorgrad.models.aliases import canonical, one_of, overridden
from tensorgrad.models.gpt2 import SIZES, GPT2Config, GPT2LMHeadModel
from tensorgrad.models.layers import is_drawing
from tensorgrad.nn.attention import GroupedQueryAttention
from tensorgrad.nn.cache import LayerCache
from tensorgrad.nn.flash import Pattern
from tensorgrad.nn.mlps import SwiGLU
from tensorgrad.nn.moe import MixtureOfExperts, balance_loss

POSITIONS = ("learned", "rope", "alibi", "sinusoidal")
NORMS = ("layernorm", "rmsnorm")
MLPS = ("mlp", "swiglu")

PATTERNS: dict[str, tuple[Callable[..., Pattern], tuple[str, ...]]] = {
    "flash": (Pattern, ()),
    "local": (nn.Local, ("attention_window",)),
    "strided": (nn.Strided, ("attention_stride",)),
    "global": (nn.Global, ("attention_tokens",)),
    "longformer": (nn.Longformer, ("attention_window", "attention_tokens")),
}
"""attention=...: who sees whom, computed by blocks, and the settings that each takes."""

TO_RESIDUAL = ("c_proj.weight", "down_proj.weight")
"""What adds to x, and is drawn smaller."""


@dataclass(frozen=True, init=False)
class VariantConfig(GPT2Config):
    """GPT2Config with other parts.  ValueError for a setting that the chosen parts do not use."""

    positions: str = "learned"
    rope_base: float | None = None  # 10,000 where positions are "rope"
    n_kv_head: int | None = None  # key heads; 1: multi-query; None: n_head
    attention: str = "full"
    attention_window: int | None = None  # tokens that a token sees; 256
    attention_stride: int | None = None  # every so manyth; sqrt(n_positions)
    attention_tokens: int | None = None  # so many of the first see all, and are seen by all; 1
    norm: str = "layernorm"
    mlp: str = "mlp"
    moe_num_experts: int | None = None  # so many MLPs in each block, of which a router chooses
    moe_top_k: int | None = None  # so many for each token; 2, or 1 of 1
    moe_capacity_factor: float | None = None  # what an expert takes, over its fair share; all
    moe_balance: float | None = None  # times the balance loss, added to the loss in training; 0.01

    def __init__(self, **settings: Any) -> None:
        if settings.get("attention", "full") != "full" and "attn_pdrop" not in settings:
            # blocks never have all weights of a row: none are dropped
            dropout = settings.pop("dropout", None)
            settings["attn_pdrop"] = 0.0
            if dropout is not None:
                settings = {"resid_pdrop": dropout, "embd_pdrop": dropout} | settings
        super().__init__(**settings)

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("positions", self.positions, POSITIONS)
        one_of("attention", self.attention, ("full", *PATTERNS))
        one_of("norm", self.norm, NORMS)
        one_of("mlp", self.mlp, MLPS)
        root = max(1, round(math.sqrt(self.n_positions)))
        self.settle("rope_base", 10_000.0, self.positions == "rope", "positions='rope'")
        defaults = {"attention_window": 256, "attention_stride": root, "attention_tokens": 1}
        used = PATTERNS[self.attention][1] if self.attention in PATTERNS else ()
        for name, default in defaults.items():
            kinds = " or ".join(
                f"attention={k!r}" for k, (_, names) in PATTERNS.items() if name in names
            )
            self.settle(name, default, name in used, kinds)
        experts = self.moe_num_experts
        for name, moe_default in {
            "moe_top_k": min(2, experts or 1), "moe_capacity_factor": None, "moe_balance": 0.01,
        }.items():  # fmt: skip
            self.settle(name, moe_default, experts is not None, "moe_num_experts")
        if self.mlp == "swiglu" and self.activation_function != GPT2Config.activation_function:
            raise ValueError(
                "activation_function does nothing with mlp='swiglu', which has its own"
            )
        if not self.plain_attention():
            for name in ("scale_attn_weights", "scale_attn_by_inverse_layer_idx"):
                if getattr(self, name) != getattr(GPT2Config, name):
                    raise ValueError(f"{name} is for GPT-2's own attention only")
        if self.attention != "full" and self.attn_pdrop:
            raise ValueError(
                f"attention={self.attention!r} never has all weights of a row, so it can drop "
                f"none; give attn_pdrop=0, it is {self.attn_pdrop}"
            )

    def settle(self, name: str, default: Any, used: bool, where: str) -> None:
        """Give a setting its default where it is used; refuse it where it is not."""
        if used and getattr(self, name) is None:
            object.__setattr__(self, name, default)
        if not used and getattr(self, name) is not None:
            raise ValueError(f"{name} does nothing here; it is for {where}")

    def plain_attention(self) -> bool:
        """Whether GPT-2's own attention will do."""
        plain = self.attention == "full" and self.n_kv_head in (None, self.n_head)
        return plain and self.positions in ("learned", "sinusoidal")

    # ---- the parts

    def make_norm(self) -> nn.Module:
        if self.norm == "layernorm":
            return super().make_norm()
        return nn.RMSNorm(self.n_embd, self.layer_norm_epsilon)

    def make_attention(self, layer: int) -> nn.Module:
        if self.plain_attention():
            return super().make_attention(layer)
        size = self.n_embd // self.n_head
        turns: nn.Positions | None = None
        if self.positions == "rope":
            turns = nn.RoPE(size, self.rope_base or 0.0)
        elif self.positions == "alibi":
            turns = nn.ALiBi(self.n_head)
        pattern = None
        if self.attention in PATTERNS:
            kind, names = PATTERNS[self.attention]
            pattern = kind(*(getattr(self, name) for name in names))
        chosen = "attention_tokens" in PATTERNS.get(self.attention, (None, ()))[1]
        attention = (GlobalAttention if chosen else GroupedQueryAttention)(
            self.n_embd, self.n_head, self.n_kv_head, self.bias, self.attn_pdrop, turns, pattern
        )
        attention.resid_dropout = nn.Dropout(self.resid_pdrop)
        return self.drawn(attention)

    def make_mlp(self, layer: int) -> nn.Module:
        def dense() -> nn.Module:
            if self.mlp == "mlp":
                return super(VariantConfig, self).make_mlp(layer)
            return self.drawn(SwiGLU(self.n_embd, self.n_inner, self.bias, self.resid_pdrop))

        if self.moe_num_experts is None:
            return dense()
        moe = MixtureOfExperts(
            self.n_embd, self.moe_num_experts, self.moe_top_k or 1, self.moe_capacity_factor, dense
        )
        self.drawn(moe.router)
        return moe

    def extra_loss(self, model: nn.Module) -> Tensor | None:
        """Experts that have little to do shall get more: Fedus, Zoph and Shazeer 2021."""
        if self.moe_num_experts is None or not self.n_layer:
            return None
        extra: Tensor = balance_loss(model) * (self.moe_balance or 0.0)
        return extra

    def make_positions(self) -> nn.Module | None:
        if self.positions == "learned":
            return super().make_positions()
        return nn.SinusoidalPositions(self.n_embd) if self.positions == "sinusoidal" else None

    def drawn(self, part: nn.Module) -> nn.Module:
        """The part with GPT-2's first weights in the place of its own."""
        std = self.initializer_range
        for name, p in part.named_parameters() if is_drawing() else ():
            if p.ndim > 1:
                small = name.endswith(TO_RESIDUAL)
                nn.init.normal_(p, std=std / math.sqrt(2 * self.n_layer) if small else std)
            else:
                nn.init.zeros_(p)
        return part


class GlobalAttention(GroupedQueryAttention):
    """Attention in which the first tokens are seen by all: a row must not begin with padding."""

    def forward(
        self, x: Tensor, mask: Tensor | None = None, cache: LayerCache | None = None,
        positions: Tensor | None = None, maps: list[Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        if mask is not None and not bool(mask[..., -1, :1].all()):
            raise ValueError(
                "attention: the first tokens of a row are global, and here the row begins with "
                "padding; pad on the right"
            )
        return super().forward(x, mask, cache, positions, maps)


# ---- factories

PADDED, TOKENS = 50304, 50257


def gpt2_config(**settings: Any) -> GPT2Config:
    """The settings of a GPT-2, or of a variant where one of them asks for other parts.

    use_sparse_attention: True (local), "local", "strided", "global" or "longformer", or False.
    moe_num_experts: 0 is none.
    """
    if settings.get("moe_num_experts") == 0:
        settings["moe_num_experts"] = None
    sparse = settings.pop("use_sparse_attention", False)
    if sparse:
        if "attention" in settings:
            raise ValueError("use_sparse_attention and attention say the same; give one of them")
        settings["attention"] = "local" if sparse is True else sparse
    values = canonical(settings, [f.name for f in fields(VariantConfig)])
    own = {f.name for f in fields(VariantConfig)} - {f.name for f in fields(GPT2Config)}
    other = {name for name in own & set(values) if values[name] != getattr(VariantConfig, name)}
    kept = {name: value for name, value in settings.items() if name not in own or other}
    return VariantConfig(**kept) if other else GPT2Config(**kept)


def create_gpt2_model(**settings: Any) -> GPT2LMHeadModel:
    """A GPT-2, or a variant, with fresh weights; see `gpt2_config` and `VariantConfig`.

    A vocabulary of 50,304 means GPT-2's 50,257 tokens, padded: no text has the others.
    """
    if settings.get("vocab_size") == PADDED:
        settings = settings | {"vocab_size": TOKENS, "vocab_multiple": 128}
    return GPT2LMHeadModel(gpt2_config(**settings))


def create_gpt2_small(vocab_size: int = PADDED, **settings: Any) -> GPT2LMHeadModel:
    """124,439,808 parameters, with GPT-2's vocabulary."""
    return create_gpt2_model(vocab_size=vocab_size, **overridden(SIZES["gpt2"], settings))


def create_gpt2_medium(vocab_size: int = PADDED, **settings: Any) -> GPT2LMHeadModel:
    """354,823,168 parameters, with GPT-2's vocabulary."""
    return create_gpt2_model(vocab_size=vocab_size, **overridden(SIZES["gpt2-medium"], settings))


def create_gpt2_large(vocab_size: int = PADDED, **settings: Any) -> GPT2LMHeadModel:
    """774,030,080 parameters, with GPT-2's vocabulary."""
    return create_gpt2_model(vocab_size=vocab_size, **overridden(SIZES["gpt2-large"], settings))


def create_gpt2_xl(vocab_size: int = PADDED, **settings: Any) -> GPT2LMHeadModel:
    """1,557,611,200 parameters, with GPT-2's vocabulary."""
    return create_gpt2_model(vocab_size=vocab_size, **overridden(SIZES["gpt2-xl"], settings))
