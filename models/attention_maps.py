"""Who looks at whom: the weights of every attention in a model, and pictures of them.

The model stays as it is: what it asks of `scaled_dot_product_attention` is asked once more.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import numpy as np

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import Tensor, nn
from tensorgrad.atomic import replacing
from tensorgrad.models.modes import evaluating

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]


def attention_maps(model: nn.Module, *inputs: Any, **options: Any) -> dict[str, Array]:
    """weights = softmax(q kT / sqrt(D)) of each attention while model(*inputs) runs, by its module.

    {"blocks.0.attn": (B, H, T, S), ...} in the order of the calls; row t is what position t sees,
    and sums to 1.  In evaluation mode and without gradients.  ValueError where there is none.
    """
    with evaluating(model), tg.no_grad(), recorded(model) as maps:
        model(*inputs, **options)
    if not maps:
        raise ValueError(
            f"attention_maps: {type(model).__name__} has no attention: its forward never calls "
            "nn.functional.scaled_dot_product_attention"
        )
    return maps


@contextmanager
def recorded(model: nn.Module) -> Iterator[dict[str, Array]]:
    """The weights of each attention that this thread computes inside the block."""
    maps: dict[str, Array] = {}
    running: list[str] = []  # the modules whose forward is under way, the innermost last
    attention, me = F.scaled_dot_product_attention, threading.get_ident()

    def watched(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() == me:
            path = running[-1] if running else ""
            name, again = path, 2
            while name in maps:
                name, again = f"{path} ({again})", again + 1
            maps[name] = weights(attention, *args, **kwargs)
        return attention(*args, **kwargs)

    def enter(path: str) -> None:
        running.append(path)

    def leave(module: nn.Module, args: Any, out: Any) -> None:
        running.pop()

    handles = []
    for path, module in model.named_modules():
        before = lambda module, args, path=path: enter(path)  # noqa: E731
        handles.append(module.register_forward_pre_hook(before))
        handles.append(module.register_forward_hook(leave, always_call=True))
    setattr(F, attention.__name__, watched)
    try:
        yield maps
    finally:
        setattr(F, attention.__name__, attention)
        for handle in handles:
            handle.remove()


def weights(attention: Any, *args: Any, **kwargs: Any) -> Array:
    """What attention makes of the identity in the place of v: p I = p, masks and all."""
    call = signature(attention).bind(*args, **kwargs)
    key, value = call.arguments["key"], call.arguments["value"]
    S = key.shape[-2]
    eye = tg.eye(S, dtype=value.dtype, device=value.device)
    call.arguments["value"] = eye.expand(*value.shape[:-2], S, S)
    call.arguments["dropout_p"] = 0.0
    p: Tensor = attention(*call.args, **call.kwargs)
    return np.asarray(p.detach().float().cpu().numpy())


# ---- pictures


def visualize_attention(
    model: nn.Module,
    text: str,
    vocab: Any,
    path: str | os.PathLike[str] = "attention.png",
    layer: int | None = None,
    head: int | None = None,
) -> dict[str, Array]:
    """Draw how the tokens of a text look at each other; returns the maps (H, T, T) by module.

    vocab encodes and decodes (a CharVocab, a tiktoken Encoding).  With a layer, its heads side by
    side; with a head, too, that one map, large; with neither, each layer's mean over its heads.  A
    PNG, replaced whole.  IndexError for a layer or head that is not there, ValueError for no text.
    """
    ids = [int(i) for i in vocab.encode(text)]
    if not ids:
        raise ValueError("visualize_attention: the text is empty; give it at least one token")
    device = next(model.parameters()).device
    found = attention_maps(model, tg.tensor([ids], device=device))
    maps = {name: p[0] for name, p in found.items()}
    tokens = [shown(vocab.decode([i])) for i in ids]
    plot_attention(chosen(maps, layer, head), tokens, path)
    return maps


def chosen(maps: dict[str, Array], layer: int | None, head: int | None) -> dict[str, Array]:
    """The maps (T, T) to draw, by title."""
    if layer is None:
        if head is None:
            return {name: p.mean(0) for name, p in maps.items()}
        return {f"{name}, head {head}": of_head(p, head, name) for name, p in maps.items()}
    if not -len(maps) <= layer < len(maps):
        raise IndexError(f"visualize_attention: no layer {layer}, there are {len(maps)}")
    name = list(maps)[layer]
    heads = range(len(maps[name])) if head is None else [head]
    return {f"{name}, head {h}": of_head(maps[name], h, name) for h in heads}


def of_head(p: Array, head: int, name: str) -> Array:
    if not -len(p) <= head < len(p):
        raise IndexError(f"visualize_attention: no head {head} in {name}, there are {len(p)}")
    one: Array = p[head]
    return one


def shown(token: str) -> str:
    """A token as a label: blanks and line ends made visible."""
    return token.replace(" ", "\u00b7").replace("\n", "\u21b5").replace("\t", "\u21e5")


def plot_attention(
    maps: dict[str, Array], tokens: Sequence[str], path: str | os.PathLike[str]
) -> None:
    """The maps (T, T) in a grid, one scale of colours for all; tokens label both sides."""
    from matplotlib.colors import PowerNorm  # by the root, or late positions, who share, look alike
    from matplotlib.figure import Figure

    n = len(maps)
    across = min(n, 4)
    down = -(-n // across)
    side = 6.5 if n == 1 else 3.8
    figure = Figure(figsize=(across * side + 0.9, down * side + 0.5), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    size = min(9.0, 68 * side / max(len(tokens), 1) * 0.62)  # points that a cell leaves for a label
    top = max(float(p.max()) for p in maps.values())
    image: Any = None
    for i, (axes, (title, p)) in enumerate(zip(grid.flat, maps.items(), strict=False)):
        seen = np.ma.masked_equal(p, 0)  # white: what a position may not see
        image = axes.imshow(seen, cmap="magma_r", norm=PowerNorm(0.5, 0, top))
        axes.set_title(title, fontsize=10)
        if size >= 5:
            axes.set_xticks(range(len(tokens)), tokens, fontsize=size, family="monospace")
            axes.set_yticks(range(len(tokens)), tokens, fontsize=size, family="monospace")
        axes.tick_params(length=0)
        axes.spines[:].set_color("#cccccc")
        if i % across == 0:
            axes.set_ylabel("this position ...")
        if i >= n - across:
            axes.set_xlabel("... looks at")
    for axes in list(grid.flat)[n:]:
        axes.set_visible(False)
    bar = figure.colorbar(image, ax=grid, shrink=0.7, pad=0.015)
    bar.set_label("share of the attention")
    bar.outline.set_visible(False)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=140)
