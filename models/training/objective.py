"""What training makes small: the mean loss in nats a token, with smoothed labels if asked for."""

from __future__ import annotations

from typing import Any

import tensorgrad.nn.functional as F
from tensorgrad import Tensor
from tensorgrad.data.collate import IGNORED


def loss_of(
    model: Any, x: Tensor, y: Tensor, label_smoothing: float = 0.0, **more: Any
) -> Tensor:
    """mean over targets of -log p(y | x); x and y (B, T), y one token later, -100 left out.

    label_smoothing: this share of each target is spread evenly over the vocabulary (Szegedy et al.
    2016).  What a model adds to its loss in training, such as that of a mixture of experts, stays.
    more: what the model takes beside x.
    """
    if not label_smoothing:
        loss: Tensor = model(x, y, **more)[1]
        return loss
    out = model(x, **more)
    logits = out[0] if isinstance(out, tuple) else out.logits  # (B, T, V)
    loss = F.cross_entropy(
        logits.flatten(0, 1), y.flatten(), ignore_index=IGNORED, label_smoothing=label_smoothing
    )
    extra = getattr(model.config, "extra_loss", None)
    added = extra(model) if extra is not None and model.training else None
    return loss if added is None else loss + added
