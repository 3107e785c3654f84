"""What happens to the logits of the next token before one is chosen: a function for each.

All take and give logits (R, V), of which -inf can never be drawn, and treat rows apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorgrad as tg
import tensorgrad.nn.functional as F
from tensorgrad import Tensor
from tensorgrad.backend import xp_of


def counted(ids: Tensor, size: int, real: Tensor | None = None) -> Any:
    """How often each of `size` tokens stands in the rows of ids (R, T) -> (R, size), int64.

    real (R, T): False where ids are padding, which does not count.
    """
    ones = tg.ones_like(ids) if real is None else real.long()
    return tg.zeros(ids.shape[0], size, dtype=tg.int64, device=ids.device).scatter_add(1, ids, ones)


# ---- penalties and bans


def repetition_penalty(logits: Any, ids: Tensor, penalty: float, real: Tensor | None = None) -> Any:
    """logit / penalty if positive, else logit * penalty, of each token that its row has.

    Keskar et al. 2019, with the sign of the logit respected: dividing a negative one would raise
    it.  Additive penalties do not depend on what a constant added to all logits would change.
    """
    seen = counted(ids, logits.shape[-1], real) > 0
    return tg.where(seen, tg.where(logits > 0, logits / penalty, logits * penalty), logits)


def additive_penalty(
    logits: Any, ids: Tensor, presence: float = 0.0, frequency: float = 0.0
) -> Any:
    """logit - presence [n > 0] - frequency n, where n counts the token in its row of ids."""
    n = counted(ids, logits.shape[-1])
    return logits - (presence * (n > 0) + frequency * n).to(logits.dtype)


def no_repeat_ngrams(logits: Any, ids: Tensor, n: int, real: Tensor | None = None) -> Any:
    """-inf for each token that would complete n tokens which its row has already, in that order."""
    T = ids.shape[1]
    starts = T - n + 1  # of all runs of n tokens
    if starts < 1:
        return logits
    same = tg.ones(ids.shape[0], starts, dtype=tg.bool, device=ids.device)
    for j in range(n):
        if real is not None:
            same = same & real[:, j : j + starts]
        if j < n - 1:  # the run's beginning is the row's end
            same = same & (ids[:, j : j + starts] == ids[:, T - n + 1 + j, None])
    return logits.masked_fill(counted(ids[:, n - 1 :], logits.shape[-1], same) > 0, -math.inf)


def banned(logits: Any, tokens: Sequence[int]) -> Any:
    """-inf for these ids."""
    hidden = tg.zeros(logits.shape[-1], dtype=tg.bool, device=logits.device)
    hidden[list(tokens)] = True
    return logits.masked_fill(hidden, -math.inf)


# ---- filters of what is drawn


def top_k(logits: Any, k: int) -> Any:
    """-inf below the k-th largest; what ties with it stays, so more than k may."""
    if k >= logits.shape[-1]:
        return logits
    return logits.masked_fill(logits < logits.topk(k).values[:, -1:], -math.inf)


def top_p(logits: Any, p: float) -> Any:
    """-inf outside the fewest likeliest tokens whose probabilities reach p.

    Holtzman et al. 2020.  The token that crosses p is one of them, so at least one stays; so does
    what ties with the rarest of them.
    """
    if p >= 1:
        return logits
    share = F.softmax(logits, -1)
    rising = _sorted(share)
    # Of the tokens up to one, in rising order: if those take no more than 1 - p, it can go.
    going = (rising.cumsum(-1) <= 1 - p)[:, :-1].sum(-1, keepdim=True)  # (R, 1)
    return logits.masked_fill(share < rising.gather(-1, going), -math.inf)


def min_p(logits: Any, p: float) -> Any:
    """-inf for tokens less likely than p times the likeliest.  Nguyen et al. 2024."""
    share = F.softmax(logits, -1)
    return logits.masked_fill(share < p * share.amax(-1, keepdim=True), -math.inf)


def typical_p(logits: Any, p: float) -> Any:
    """-inf outside the fewest tokens of total probability p whose surprise is nearest the entropy.

    Meister et al. 2022: a token's surprise is -log of its probability, the entropy its mean.
    """
    if p >= 1:
        return logits
    logs = F.log_softmax(logits, -1)
    share = logs.exp()
    entropy = -tg.where(share > 0, logs * share, tg.zeros_like(share)).sum(-1, keepdim=True)
    away = (-logs - entropy).abs()
    nearest = away.argsort(-1)
    last = (share.gather(-1, nearest).cumsum(-1) < p).sum(-1, keepdim=True)
    last = last.clamp(max=logits.shape[-1] - 1)
    farthest = away.gather(-1, nearest.gather(-1, last))  # the one that crosses p is the last
    return logits.masked_fill(away > farthest, -math.inf)


def _sorted(x: Tensor) -> Tensor:
    """x in rising order.  Without the order's indices a sort is ten times faster."""
    return Tensor(xp_of(x.array).sort(x.array, -1))


# ---- all of them, in Hugging Face's order


def penalised(
    logits: Any, ids: Tensor, prompt: int, config: Any, real: Tensor | None = None
) -> Any:
    """The logits after penalties and bans; ids (R, T) are the text, its first `prompt` given."""
    if config.repetition_penalty != 1:
        logits = repetition_penalty(logits, ids, config.repetition_penalty, real)
    if (config.presence_penalty or config.frequency_penalty) and ids.shape[1] > prompt:
        logits = additive_penalty(
            logits, ids[:, prompt:], config.presence_penalty, config.frequency_penalty
        )
    if config.no_repeat_ngram_size:
        logits = no_repeat_ngrams(logits, ids, config.no_repeat_ngram_size, real)
    if config.suppress_tokens:
        logits = banned(logits, config.suppress_tokens)
    return logits


def filtered(logits: Any, config: Any) -> Any:
    """The logits of the distribution to draw from: temperature, then the filters."""
    if config.temperature != 1:
        logits = logits / config.temperature
    if config.top_k is not None:
        logits = top_k(logits, config.top_k)
    if config.top_p is not None:
        logits = top_p(logits, config.top_p)
    if config.min_p is not None:
        logits = min_p(logits, config.min_p)
    if config.typical_p is not None:
        logits = typical_p(logits, config.typical_p)
    return logits
