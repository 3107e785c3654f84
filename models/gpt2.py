"""GPT-2, whole: settings, attention, MLP, block, model, head, under Hugging Face's names.

Radford et al. 2019, "Language models are unsupervised multitask learners".
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Self

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import Tensor, nn
from tensorgrad.backend import xp_of
from tensorgrad.models.aliases import ALIASES, canonical, check_optional, one_of, overridden
from tensorgrad.models.generation import generate
from tensorgrad.models.layers import Embedding, Head, Linear
from tensorgrad.models.masks import Seen, causal_attention_mask
from tensorgrad.models.output import Output
from tensorgrad.models.settings import KINDS, Settings, check, setting, type_of
from tensorgrad.nn.cache import KVCache, LayerCache
from tensorgrad.serialization import brief
from tensorgrad.utils.checkpoint import checkpoint

SIZES: dict[str, dict[str, int]] = {
    "gpt2": {"n_layer": 12, "n_head": 12, "n_embd": 768},  # 124,439,808 parameters
    "gpt2-medium": {"n_layer": 24, "n_head": 16, "n_embd": 1024},  # 354,823,168
    "gpt2-large": {"n_layer": 36, "n_head": 20, "n_embd": 1280},  # 774,030,080
    "gpt2-xl": {"n_layer": 48, "n_head": 25, "n_embd": 1600},  # 1,557,611,200
}

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": partial(F.gelu, approximate="tanh"),  # GPT-2's own
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": F.tanh,
}

END_OF_TEXT = 50256


@dataclass(frozen=True, init=False)
class GPT2Config(Settings):
    """What a GPT-2 is made of.  `GPT2Config(block_size=64)`: the aliases above are understood.

    Special tokens that are not given are 50256 where the vocabulary has it, else None.  ValueError
    for a name that does not exist (with the nearest that does) and for values that cannot be.
    """

    vocab_size: int = setting(50257, "tokens in the vocabulary", least=1)
    n_positions: int = setting(1024, "tokens that the model sees at once", least=1)
    n_embd: int = setting(768, "width: numbers that stand for a token", least=1)
    n_layer: int = setting(12, "blocks", least=0)
    n_head: int = setting(12, "attention heads in a block", least=1)
    n_inner: int | None = None  # width inside the MLP; None: 4 n_embd
    activation_function: str = setting("gelu_new", f"in the MLP: {', '.join(ACTIVATIONS)}")
    resid_pdrop: float = setting(0.1, "dropout of what a layer adds to x", least=0, below=1)
    embd_pdrop: float = setting(0.1, "dropout of the embeddings", least=0, below=1)
    attn_pdrop: float = setting(0.1, "dropout of the attention's weights", least=0, below=1)
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    bos_token_id: int | None = END_OF_TEXT
    eos_token_id: int | tuple[int, ...] | None = END_OF_TEXT
    pad_token_id: int | None = None
    tie_word_embeddings: bool = True
    bias: bool = setting(True, "biases in linear layers and norms")
    norm_position: str = setting("pre", "norms before the layers (pre) or after the sum (post)")
    vocab_multiple: int = setting(1, "rows of the embedding in memory: a multiple of it", least=1)

    def __init__(self, **settings: Any) -> None:
        values = canonical(settings, tuple(f.name for f in fields(self)))
        for f in fields(self):
            object.__setattr__(self, f.name, values.get(f.name, f.default))
        for name in ("bos_token_id", "eos_token_id"):
            if name not in values and self.vocab_size <= END_OF_TEXT:
                object.__setattr__(self, name, None)
        if isinstance(self.eos_token_id, list):
            object.__setattr__(self, "eos_token_id", tuple(self.eos_token_id))
        self.__post_init__()

    def __post_init__(self) -> None:
        for f in fields(self):
            if type_of(f) in KINDS:
                check(f, getattr(self, f.name))
            elif not f.name.endswith("_token_id"):
                check_optional(f.name, type_of(f), getattr(self, f.name))
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd must be a multiple of n_head: the heads share the width evenly, and "
                f"{self.n_embd} does not divide by {self.n_head}"
            )
        one_of("activation_function", self.activation_function, ACTIVATIONS)
        one_of("norm_position", self.norm_position, ("pre", "post"))
        for name, tokens in self.special_tokens().items():
            for token in tokens:
                if not 0 <= token < self.vocab_size:
                    raise ValueError(
                        f"{name} is {token}, and a vocabulary of {self.vocab_size} has the tokens "
                        f"0 to {self.vocab_size - 1}: it could never be produced; choose one of "
                        "them, or None"
                    )

    def special_tokens(self) -> dict[str, tuple[int, ...]]:
        """The tokens of each role, none, one or several."""
        roles: dict[str, tuple[int, ...]] = {}
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            given = getattr(self, name)
            roles[name] = () if given is None else given if isinstance(given, tuple) else (given,)
            if not all(isinstance(t, int) and not isinstance(t, bool) for t in roles[name]):
                told = brief(repr(given))
                raise TypeError(f"{name} must be an integer or None, it is {told}")
        return roles

    def __getattr__(self, name: str) -> Any:  # an alias, where it means one thing
        meant = ALIASES.get(name, ())
        if len(meant) != 1:
            raise AttributeError(f"'{type(self).__name__}' has no setting '{name}'")
        return getattr(self, meant[0])

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        return cls(**values)

    # ---- the parts of a block, which a variant makes otherwise

    def make_norm(self) -> nn.Module:
        return nn.LayerNorm(self.n_embd, self.layer_norm_epsilon, bias=self.bias)

    def make_attention(self, layer: int) -> nn.Module:
        return CausalSelfAttention(self, layer)

    def make_mlp(self, layer: int) -> nn.Module:
        return MLP(self)

    def make_block(self, layer: int) -> Block:
        kind = Block if self.norm_position == "pre" else PostNormBlock
        return kind(
            self.make_norm(), self.make_attention(layer), self.make_norm(), self.make_mlp(layer)
        )

    def make_positions(self) -> nn.Module | None:
        """What is added to the tokens to say where they stand; None where attention knows."""
        return Embedding(self.n_positions, self.n_embd, self.initializer_range)

    def extra_loss(self, model: nn.Module) -> Tensor | None:
        """What is added to the loss in training; for GPT-2 itself nothing."""
        return None

    def to_residual(self, n_in: int) -> Linear:
        """A layer that adds to x: 2 n_layer of them add up, and the sum shall keep its scale."""
        std = self.initializer_range / math.sqrt(2 * self.n_layer)
        return Linear(n_in, self.n_embd, self.bias, std)


class CausalSelfAttention(nn.Module):
    """softmax(q kT / sqrt(D)) v in each head: each token sees itself and what came before.

    Vaswani et al. 2017."""

    def __init__(self, config: GPT2Config, layer: int = 0) -> None:
        super().__init__()
        C = config.n_embd
        self.n_head = self.n_kv_head = config.n_head
        self.head_size = C // config.n_head
        self.scale = 1 / math.sqrt(self.head_size) if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self.scale /= layer + 1
        self.p = config.attn_pdrop
        self.c_attn = Linear(C, 3 * C, config.bias, config.initializer_range)  # q, k and v at once
        self.c_proj = config.to_residual(C)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, cache: LayerCache | None = None,
        positions: Tensor | None = None, maps: list[Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """x (B, T, C) -> (B, T, C).  mask: bool (B or 1, 1, T, S), True where a key may be seen.

        maps receives p, (B, H, T, S).  positions are for attention that asks for them.
        """
        B, T, C = x.shape
        qkv = self.c_attn(x).reshape(B, T, 3, self.n_head, self.head_size)
        q, k, v = (a.transpose(1, 2) for a in qkv.unbind(2))  # (B, H, T, D)
        k, v = remembered(cache, k, v)  # (B, H, S, D)
        y = attend(self, q, k, v, mask, maps)
        y = y.transpose(1, 2).reshape(B, T, C)  # (B, H, T, D) -> (B, T, C)
        x = self.resid_dropout(self.c_proj(y))
        return x


def remembered(cache: LayerCache | None, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of all tokens so far.  The first ones keep gradients; the cache has none."""
    if cache is None:
        return k, v
    if cache.length == 0:
        cache.append(k.detach(), v.detach())
        return k, v
    return cache.append(k, v)


def attend(
    layer: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, maps: list[Tensor] | None
) -> Tensor:
    """softmax(scale q kT) v; without a mask the T queries, the last of S tokens, see all before."""
    T, S = q.shape[2], k.shape[2]
    if mask is None and 1 < T < S:
        mask = causal_attention_mask(T, q.device, S - T)
    how = {"attn_mask": mask, "is_causal": mask is None and T == S, "scale": layer.scale}
    if maps is not None:
        eye = tg.eye(S, dtype=k.dtype, device=k.device).expand(*k.shape[:2], S, S)
        maps.append(F.scaled_dot_product_attention(q, k, eye, **how))  # p I = p
    p = layer.p if layer.training else 0.0
    y: Tensor = F.scaled_dot_product_attention(q, k, v, dropout_p=p, **how)
    return y


class MLP(nn.Module):
    """c_proj(gelu(c_fc(x))): each token by itself, four times as wide inside."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        inner = 4 * config.n_embd if config.n_inner is None else config.n_inner
        self.c_fc = Linear(config.n_embd, inner, config.bias, config.initializer_range)
        self.c_proj = config.to_residual(inner)
        self.activation = ACTIVATIONS[config.activation_function]
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = self.activation(self.c_fc(x))  # (B, T, 4 C)
        x = self.dropout(self.c_proj(x))
        return x


class Block(nn.Module):
    """x + attn(ln_1(x)), then x + mlp(ln_2(x)): what enters at the bottom reaches the top unscaled.

    `more` is what attention takes beside x.
    """

    def __init__(self, ln_1: nn.Module, attn: nn.Module, ln_2: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.ln_1, self.attn, self.ln_2, self.mlp = ln_1, attn, ln_2, mlp

    def forward(self, x: Tensor, **more: Any) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = x + self.attn(self.ln_1(x), **more)
        x = x + self.mlp(self.ln_2(x))
        return x


class PostNormBlock(Block):
    """ln_1(x + attn(x)), then ln_2(x + mlp(x)), as in GPT-1: to study; it needs a warm-up.

    Xiong et al. 2020."""

    def forward(self, x: Tensor, **more: Any) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = self.ln_1(x + self.attn(x, **more))
        x = self.ln_2(x + self.mlp(x))
        return x


class GPT2Model(nn.Module):
    """The embeddings, the blocks and the last norm: tokens (B, T) -> hidden states (B, T, C)."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.wte = Embedding(config.vocab_size, config.n_embd, config.initializer_range)
        self.wpe = config.make_positions()
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(config.make_block(i) for i in range(config.n_layer))
        self.ln_f = config.make_norm() if config.norm_position == "pre" else nn.Identity()
        self.gradient_checkpointing = False

    def forward(
        self, input_ids: Tensor, *, attention_mask: Any = None, position_ids: Tensor | None = None,
        past_key_values: KVCache | None = None, use_cache: bool = False,
        output_hidden_states: bool = False, output_attentions: bool = False,
    ) -> Output:  # fmt: skip
        """input_ids (B, T) -> last_hidden_state (B, T, C), and what else is asked for.

        attention_mask (B, past + T): 1 for a token, 0 for padding, on either side; positions are
        counted from the first token of a row.  past_key_values: the cache of the tokens before,
        which grows.  ValueError where past + T exceeds n_positions.
        """
        B, T = self.check_ids(input_ids)
        cache = past_key_values
        if cache is None and use_cache:
            cache = self.new_cache(B)
        if cache is not None and not hasattr(cache, "length"):
            raise TypeError(f"GPT2: past_key_values is a KVCache, not a {type(cache).__name__}")
        past = cache.length if cache is not None else 0
        if past + T > self.config.n_positions:
            raise ValueError(
                f"GPT2: {past} tokens in the cache and {T} new ones exceed n_positions "
                f"{self.config.n_positions}; give the last {self.config.n_positions} tokens, "
                "without a cache"
            )
        seen = Seen(input_ids, past, attention_mask, position_ids)
        x = self.wte(input_ids)  # (B, T, C)
        if self.wpe is not None:
            x = x + self.wpe(seen.positions)  # (T, C) or (B, T, C)
        x = self.drop(x)
        states: list[Tensor] = []
        maps: list[Tensor] | None = [] if output_attentions else None
        for i, block in enumerate(self.h):
            if output_hidden_states:
                states.append(x)
            layer = None if cache is None else cache[i]
            more: dict[str, Any] = {"mask": seen.mask, "positions": seen.positions}
            more |= {"cache": layer, "maps": maps}
            again = self.gradient_checkpointing and self.training and layer is None
            x = checkpoint(block, x, **more) if again else block(x, **more)
        x = self.ln_f(x)
        return Output(
            last_hidden_state=x,
            past_key_values=cache,
            hidden_states=(*states, x) if output_hidden_states else None,
            attentions=None if maps is None else tuple(maps),
        )

    def check_ids(self, ids: Tensor) -> tuple[int, int]:
        if ids.ndim != 2:
            raise ValueError(f"GPT2: input_ids must be (B, T), their shape is {tuple(ids.shape)}")
        return ids.shape[0], ids.shape[1]

    def new_cache(self, batch_size: int, capacity: int | None = None) -> KVCache:
        """An empty cache for so many rows; the capacity is n_positions, or fewer tokens."""
        config, like = self.config, next(self.parameters())  # a float, whatever is quantised
        capacity = config.n_positions if capacity is None else capacity
        heads, size = (
            (self.h[0].attn.n_kv_head, self.h[0].attn.head_size) if len(self.h) else (0, 0)
        )
        return KVCache(config.n_layer, batch_size, heads, capacity, size, like.dtype, like.device)


class GPT2LMHeadModel(nn.Module):
    """p(next token | the tokens before): GPT2Model and a head, which shares the embedding's weight.

    model(ids) answers logits (B, T, V) and what else is asked for; model.generate(ids, n) goes on.
    """

    generate = generate

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.transformer = GPT2Model(config)
        wte = self.transformer.wte
        if not config.tie_word_embeddings:
            wte = Embedding(config.vocab_size, config.n_embd, config.initializer_range)
        self.lm_head = Head(wte.weight, config.vocab_multiple)

    def forward(
        self, input_ids: Tensor, targets: Tensor | None = None, return_logits: bool = True, *,
        attention_mask: Any = None, position_ids: Tensor | None = None,
        labels: Tensor | None = None, past_key_values: KVCache | None = None,
        cache: KVCache | None = None, use_cache: bool = False, return_cache: bool = False,
        output_hidden_states: bool = False, output_attentions: bool = False,
        logits_to_keep: int = 0,
    ) -> Any:  # fmt: skip
        """input_ids (B, T) -> Output(logits (B, T, V), loss, past_key_values, ...).

        labels (B, T): the input itself; the loss is the mean in nats of predicting each label from
        the tokens before it, where -100 does not count.  With targets (B, T), already shifted, the
        answer is (logits, loss), and logits are None where return_logits is False.
        logits_to_keep: only those of the last so many tokens; 0 keeps all.  The rest as in
        `GPT2Model`; `cache` and `return_cache` are other words for past_key_values and use_cache.
        """
        if targets is not None and not isinstance(targets, Tensor):
            raise TypeError(
                f"GPT2: targets are a Tensor of tokens, not {type(targets).__name__}; give "
                "past_key_values by name"
            )
        if targets is not None and labels is not None:
            raise ValueError("GPT2: give labels (shifted here) or targets (shifted), not both")
        out = self.transformer(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache if past_key_values is None else past_key_values,
            use_cache=use_cache or return_cache,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
        )
        x, out.last_hidden_state = out.last_hidden_state, None
        V = self.config.vocab_size
        wanted = shifted(labels) if labels is not None else targets
        logits = self.lm_head.padded(x[:, -logits_to_keep:] if logits_to_keep else x)
        if wanted is not None:
            if logits_to_keep:
                raise ValueError("GPT2: a loss needs all logits; leave logits_to_keep at 0")
            if logits.shape[-1] > V:
                check_targets(wanted, V)
            out.loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten())
            extra = self.config.extra_loss(self) if self.training else None
            out.loss = out.loss if extra is None else out.loss + extra
        out.logits = logits if logits.shape[-1] == V else logits[..., :V]
        if targets is not None:
            return (out.logits if return_logits else None), out.loss
        return out

    # ---- making, reading and writing

    @classmethod
    def from_config(cls, config: str | GPT2Config = "gpt2", **settings: Any) -> Self:
        """A model with fresh weights: "gpt2", "gpt2-medium", "gpt2-large" or "gpt2-xl"."""
        if isinstance(config, str):
            one_of("size", config, SIZES)
            config = GPT2Config(**overridden(SIZES[config], settings))
        elif settings:
            raise TypeError("from_config: give settings with a size's name, not with a GPT2Config")
        return cls(config)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """The model in a folder, or of this name on Hugging Face's hub; see `weights.load`."""
        from tensorgrad.models.weights import hugging_face

        model: Self = hugging_face.load(path, cls, **options)
        return model

    def save_pretrained(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Write config.json and model.safetensors, which transformers opens."""
        from tensorgrad.models.weights import hugging_face

        hugging_face.save(path, self, **options)

    def gradient_checkpointing_enable(self) -> None:
        """In training, forget the inside of each block and compute it again in backward."""
        self.transformer.gradient_checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        """Keep the inside of each block again."""
        self.transformer.gradient_checkpointing = False

    def num_parameters(self, only_trainable: bool = False) -> int:
        """The numbers in all parameters; what is tied counts once, padding not at all."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not only_trainable)


def shifted(labels: Tensor) -> Tensor:
    """labels (B, T) -> what each token is to predict: the next label, and -100 for the last."""
    array = labels.array
    return Tensor(xp_of(array).pad(array[:, 1:], ((0, 0), (0, 1)), constant_values=-100))


def check_targets(targets: Tensor, V: int) -> None:
    """IndexError for a target behind the vocabulary, where padding would give it a chance of 0."""
    if targets.device.type == "cpu" and targets.numel() and targets.array.max() >= V:
        raise IndexError(
            f"GPT2: target {targets.array.max()} is out of range: the vocabulary has {V} tokens"
        )
