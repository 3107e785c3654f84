"""One HTML page to click through, by itself: attention, the logit lens, losses; nothing is fetched.

What the text holds enters as JSON and is shown by textContent, so it is never read as HTML.
"""

from __future__ import annotations

import base64
import html
import json
import math
import os
from typing import Any

import numpy as np

from tensorgrad.atomic import replacing
from tensorgrad.models.inspection.look import Array, Inspection, chosen
from tensorgrad.models.inspection.script import SCRIPT
from tensorgrad.models.inspection.style import STYLE
from tensorgrad.models.inspection.tables import layer_name

LARGEST = 32 * 2**20
"""Bytes of attention that a page holds; browsers grow slow behind it."""


def write_page(
    look: Inspection, path: str | os.PathLike[str], layer: int | None = None,
    head: int | None = None,
) -> None:  # fmt: skip
    """Write `html_page` to a file, replaced whole."""
    content = html_page(look, layer, head).encode()
    with replacing(path) as file:
        file.write(content)


def html_page(look: Inspection, layer: int | None = None, head: int | None = None) -> str:
    """The page; it opens on this layer and head (default: the last layer, the mean of its heads).

    ValueError for a layer or head that is not there, and for a text whose maps would be too large.
    """
    L, H, T = look.maps.shape[:3]
    layer = chosen("layer", L - 1 if layer is None else layer, L)
    data = {
        "model": described(look.model),
        "tokens": look.tokens,
        "breaks": [look.vocab.decode([i]).count("\n") for i in look.ids],
        "maps": packed(look.maps),
        "layers": L,
        "heads": H,
        "layer": layer,
        "head": chosen("head", head, H),
        "losses": rounded(look.losses),
        "ignorance": math.log(look.model.config.vocab_size),
        **of_lens(look),
    }
    # Inside <script> only "</" and "<!--" mean something, and "<" can be written otherwise in JSON.
    told = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    begin = "".join(look.tokens[:40]) + "\u2026" * (T > 40)
    return TEMPLATE.format(
        title=html.escape(f"Inside: {begin}"), style=STYLE, script=SCRIPT, data=told
    )


def described(model: Any) -> str:
    """What is looked into, in a line."""
    c = model.config
    count = sum(p.numel() for p in model.parameters())
    return (
        f"{type(model).__name__}, {count:,} parameters: {c.n_layer} layers of {c.n_head} heads, "
        f"width {c.n_embd}, vocabulary {c.vocab_size:,}"
    )


def packed(maps: Array) -> str:
    """The triangle of each map, row by row, in 65,535ths, little-endian, in base 64."""
    T = maps.shape[-1]
    size = maps.size // T * (T + 1) // 2 * 2 * 4 // 3
    if size > LARGEST:
        most = math.isqrt(LARGEST * 3 // 4 // max(maps.size // T**2, 1))
        raise ValueError(
            f"the attention of {T:,} tokens would make a page of {size / 2**20:,.0f} MiB; with "
            f"this model up to {most:,} tokens go on one"
        )
    below = maps[..., *np.tril_indices(T)]  # (L, H, T (T + 1) / 2)
    return base64.b64encode(np.rint(below * 65535).astype("<u2").tobytes()).decode()


def of_lens(look: Inspection) -> dict[str, Any]:
    """The lens; its tokens as places in a list of words, each of which is there once."""
    lens = look.lens
    ids, places = np.unique(lens.tokens, return_inverse=True)
    return {
        "words": [look.label(i) for i in ids],
        "top": places.reshape(lens.tokens.shape).tolist(),
        "chances": rounded(lens.probabilities),
        "true": rounded(lens.true),
        "ranks": lens.ranks.tolist(),
        "names": [layer_name(i) for i in range(len(lens.tokens))],
    }


def rounded(x: Array) -> Any:
    """As lists of numbers with five digits; JSON has neither nan nor inf."""
    rows = np.nan_to_num(x.astype(np.float64), nan=0, posinf=1e9)
    return json.loads(json.dumps(rows.tolist()), parse_float=lambda n: float(f"{float(n):.5g}"))


TEMPLATE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
  <h1>Looking inside</h1>
  <p id="model"></p>
  <noscript><p>This page draws itself with JavaScript, which is switched off here.</p></noscript>
</header>
<main>
<section id="attention">
  <h2>Attention</h2>
  <p class="hint">Point at a token to see what it looks at; click to hold it, click again to let go.
    After a click the arrow keys go through layers (up, down) and heads (left, right).</p>
  <div class="controls">
    <label>layer <select id="layer"></select></label>
    <label>head <select id="head"></select></label>
    <span class="legend" id="shares"></span>
  </div>
  <div class="text" id="looking"></div>
  <p class="readout" id="seen" aria-live="polite"></p>
  <div class="beside">
    <figure><figcaption>every map: layers (down), heads (across); click one</figcaption>
      <div class="scroll" id="overview"></div></figure>
    <figure><figcaption>this one: who (down) looks at whom (across)</figcaption>
      <div class="scroll"><div id="map"></div></div></figure>
  </div>
</section>
<section>
  <h2>Losses</h2>
  <p class="hint">The darker, the more a token surprised the model. Point at one for its
    numbers.</p>
  <div class="controls"><span id="mean"></span><span class="legend" id="nats"></span></div>
  <div class="text" id="surprise"></div>
  <p class="readout" id="loss" aria-live="polite"></p>
</section>
<section>
  <h2>Logit lens</h2>
  <p class="hint">What each layer would write after each token, if the blocks ended there: its
    hidden state through the last norm and the head. A frame: that is what does follow.</p>
  <div class="controls">
    <label>colour <select id="colour">
      <option value="best">how sure it is</option>
      <option value="true">what it gives the token that follows</option></select></label>
    <span class="legend" id="chances"></span>
  </div>
  <div class="scroll"><table id="lens"></table></div>
  <p class="readout" id="expected" aria-live="polite"></p>
</section>
</main>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""
