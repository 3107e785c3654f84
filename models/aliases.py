"""One vocabulary for GPT-2's settings: other names for one thing, and the nearest to a typo."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

from tensorgrad.models.settings import KINDS
from tensorgrad.serialization import brief

ALIASES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("block_size", "context_size", "context_length", "n_ctx", "max_position_embeddings"),
        ("n_positions",),
    ),
    **dict.fromkeys(("n_embed", "embd_size", "hidden_size"), ("n_embd",)),
    **dict.fromkeys(("num_layers", "num_hidden_layers"), ("n_layer",)),
    **dict.fromkeys(("num_heads", "num_attention_heads"), ("n_head",)),
    "intermediate_size": ("n_inner",),
    "activation": ("activation_function",),
    "layer_norm_eps": ("layer_norm_epsilon",),
    "dropout": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
}
"""Names that nanoGPT, lectures and other models have for what is one thing."""


def canonical(settings: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Settings under their own names.

    ValueError for a name that does not exist, with the nearest that does, and for two values.
    """
    values: dict[str, Any] = {}
    for name, value in settings.items():
        for meant in ALIASES.get(name, (name,)):
            if meant not in names:
                raise unknown("setting", name, [*names, *ALIASES])
            if values.get(meant, value) != value:
                raise ValueError(f"{meant} is given twice: {values[meant]!r} and {value!r}")
            values[meant] = value
    return values


def overridden(defaults: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Settings, and the defaults of what they do not name, by whichever name."""
    named = {meant for name in settings for meant in ALIASES.get(name, (name,))}
    return {name: value for name, value in defaults.items() if name not in named} | settings


def check_optional(name: str, annotation: str, value: Any) -> None:
    """Refuse a value of a field such as "int | None" that is no number, or not above 0."""
    kind = annotation.removesuffix(" | None")
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, KINDS[kind]):
        told = brief(repr(value))
        raise TypeError(f"{name} must be of type {kind}, or None; it is {told}")
    if not value >= 0 or (kind == "int" and value < 1):
        raise ValueError(f"{name} must be at least {1 if kind == 'int' else 0}, it is {value}")


def one_of(what: str, value: Any, known: Collection[str]) -> None:
    """ValueError with the nearest that is known, where the value is not."""
    if value not in known:
        raise unknown(what, value, known)


def unknown(what: str, name: object, known: Collection[str]) -> ValueError:
    near = difflib.get_close_matches(str(name), known, 1)
    meant = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
    return ValueError(f"there is no {what} '{brief(str(name))}'; {meant}")
