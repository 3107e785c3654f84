"""Rows for what lives in nn.functional: activations, normalisation, distances, losses.

Each is read by every property of test_properties.py, like those of table.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from tests.ops.table import POSITIVE, REAL, UNIT, Row, Shape

PROBABILITY = (0.05, 0.95)
LOG_PROBABILITY = (-3.0, -0.1)

NO_CLASSES = {"empty": "the largest of no classes is refused"}
NO_CHANNELS = {"empty": "PyTorch refuses no samples or no channels, where the answer is empty"}
NO_SIZE = {"empty": "PyTorch's gradient of the weight is NaN where there is nothing to normalise"}
NO_FEATURES = {"empty": "PyTorch refuses a sum over no features, which is zero"}
VALUE_ERROR = {"empty": "a ValueError in PyTorch, where the table knows other classes"}


def _hardsigmoid(t: Any, x: Any) -> Any:
    """PyTorch's own slope is the float32 nearest to 1/6, and has no second derivative."""
    F = t.nn.functional
    return F.relu6(x + 3) / 6 if t is torch else F.hardsigmoid(x)


def _signs(t: Any, x: Any) -> Any:
    """-1 and 1 by turns, in x's shape."""
    return (t.arange(x.numel()) % 2 * 2 - 1).reshape(x.shape).to(x)


def _batch_norm(t: Any, x: Any, w: Any, b: Any) -> Any:
    """The output, and where the running statistics went."""
    mean, var = t.zeros(x.shape[1]).to(x), t.ones(x.shape[1]).to(x)
    y = t.nn.functional.batch_norm(x, mean, var, w, b, training=True, momentum=0.3, eps=1e-3)
    return y, mean, var


def _instance_norm(t: Any, x: Any, w: Any, b: Any) -> Any:
    mean, var = t.zeros(x.shape[1]).to(x), t.ones(x.shape[1]).to(x)
    return t.nn.functional.instance_norm(x, mean, var, w, b, momentum=0.3), mean, var


def _table() -> Iterator[Row]:
    def row(name: str, call: Callable[..., Any], *shapes: Shape, **options: Any) -> Row:
        """A call of nn.functional, F."""
        return Row(name, lambda t, *xs: call(t.nn.functional, *xs), list(shapes), **options)

    def own(name: str, call: Callable[..., Any], *shapes: Shape, **options: Any) -> Row:
        """A call that needs the framework itself, t."""
        return Row(name, call, list(shapes), **options)

    # activations
    yield row("celu", lambda F, x: F.celu(x, 2.0), (3, 5))
    yield row("elu", lambda F, x: F.elu(x, 2.0), (3, 5))
    yield row("selu", lambda F, x: F.selu(x), (3, 5))
    yield row("leaky_relu", lambda F, x: F.leaky_relu(x, 0.1), (3, 5))
    yield row("prelu", lambda F, x, w: F.prelu(x, w), (2, 3, 5), (3,), domain=[REAL, POSITIVE])
    yield row("prelu of one", lambda F, x, w: F.prelu(x, w), (3, 5), (1,), domain=[REAL, UNIT])
    yield row("hardtanh", lambda F, x: F.hardtanh(x, -1.0, 2.0), (3, 5))
    yield row("relu6", lambda F, x: F.relu6(x), (3, 5), domain=(-3, 9))
    yield own("hardsigmoid", _hardsigmoid, (3, 5), domain=(-5, 5))
    yield row("hardswish", lambda F, x: F.hardswish(x), (3, 5), domain=(-5, 5))
    yield row("threshold", lambda F, x: F.threshold(x, 0.5, -2.0), (3, 5))
    yield row("hardshrink", lambda F, x: F.hardshrink(x), (3, 5))
    yield row("softshrink", lambda F, x: F.softshrink(x, 0.7), (3, 5))
    yield row("silu", lambda F, x: F.silu(x), (3, 5))
    yield row("mish", lambda F, x: F.mish(x), (3, 5), domain=(-5, 5))
    yield row("softplus", lambda F, x: F.softplus(x, 2.0, 3.0), (3, 5))
    yield row("logsigmoid", lambda F, x: F.logsigmoid(x), (3, 5))
    yield row("softsign", lambda F, x: F.softsign(x), (3, 5))
    yield row("tanhshrink", lambda F, x: F.tanhshrink(x), (3, 5))
    yield row("softmin", lambda F, x: F.softmin(x, dim=1), (3, 5, 7), lacks=NO_CLASSES)
    yield row("glu", lambda F, x: F.glu(x, 1), (3, 6, 5))
    yield row("glu last", lambda F, x: F.glu(x), (3, 10))

    # normalisation
    yield own("batch_norm", _batch_norm, (7, 3), (3,), (3,), half=64, lacks=NO_CHANNELS)
    yield own(
        "batch_norm images", _batch_norm, (5, 3, 2, 7), (3,), (3,), half=64, lacks=NO_CHANNELS
    )
    yield row(
        "batch_norm then exp",
        lambda F, x: F.batch_norm(x, None, None, training=True, eps=0.1).exp(),
        (5, 3, 2), half=64,
    )  # fmt: skip
    yield row(
        "batch_norm evaluation",
        lambda F, x, w, b: F.batch_norm(x, w.detach() / 2, w.detach().abs() + 1, w, b, eps=1e-3),
        (5, 3, 7), (3,), (3,), half=64, lacks=NO_CHANNELS,
    )  # fmt: skip
    yield row(
        "group_norm", lambda F, x, w, b: F.group_norm(x, 2, w, b), (3, 4, 5), (4,), (4,),
        half=64, lacks=NO_SIZE,
    )  # fmt: skip
    yield row("group_norm plain", lambda F, x: F.group_norm(x, 1), (3, 5), half=64)
    yield own("instance_norm", _instance_norm, (2, 3, 5), (3,), (3,), half=64, lacks=NO_CHANNELS)
    yield row(
        "instance_norm plain", lambda F, x: F.instance_norm(x), (2, 3, 5, 7),
        half=64, lacks=VALUE_ERROR,
    )  # fmt: skip
    yield row("rms_norm", lambda F, x, w: F.rms_norm(x, (5,), w, 0.1), (2, 3, 5), (5,))
    yield row("rms_norm plain", lambda F, x: F.rms_norm(x, (3, 5)), (2, 3, 5), lacks=VALUE_ERROR)
    yield row("normalize", lambda F, x: F.normalize(x), (3, 5))
    yield row("normalize 1", lambda F, x: F.normalize(x, p=1.0, dim=0), (3, 5))
    yield row("cosine_similarity", lambda F, x, y: F.cosine_similarity(x, y), (2, 3, 5), (3, 1))
    yield row("pairwise_distance", lambda F, x, y: F.pairwise_distance(x, y), (3, 5), (3, 5))
    yield row(
        "pairwise_distance 3", lambda F, x, y: F.pairwise_distance(x, y, 3.0, 0.1, True),
        (3, 5), (5,),
    )  # fmt: skip
    yield row(
        "bilinear", lambda F, x, y, w, b: F.bilinear(x, y, w, b),
        (2, 3, 5), (2, 3, 7), (11, 5, 7), (11,), lacks=NO_FEATURES,
    )  # fmt: skip
    yield row(
        "bilinear vectors", lambda F, x, y, w: F.bilinear(x, y, w), (5,), (7,), (3, 5, 7),
        lacks=NO_FEATURES,
    )  # fmt: skip

    # losses
    two = ((3, 5), (3, 5))
    yield row("l1_loss", lambda F, x, y: F.l1_loss(x, y), *two)
    yield row(
        "l1_loss weighted", lambda F, x, y, w: F.l1_loss(x, y, weight=w), *two, (3, 5),
        domain=[REAL, REAL, POSITIVE],
    )  # fmt: skip
    yield row("huber_loss", lambda F, x, y: F.huber_loss(x, y, "sum", 0.7), *two)
    yield row(
        "smooth_l1_loss", lambda F, x, y: F.smooth_l1_loss(x, y, reduction="none", beta=2.0), *two
    )
    yield row("smooth_l1_loss sharp", lambda F, x, y: F.smooth_l1_loss(x, y, beta=0.0), *two)
    yield row(
        "binary_cross_entropy", lambda F, x, y: F.binary_cross_entropy(x, y), *two,
        domain=PROBABILITY,
    )  # fmt: skip
    yield row(
        "binary_cross_entropy weighted",
        lambda F, x, y: F.binary_cross_entropy(x, y, x[0].detach() + 1, reduction="sum"),
        *two, domain=PROBABILITY, half=32,
    )  # fmt: skip
    yield row(
        "binary_cross_entropy_with_logits",
        lambda F, x, y: F.binary_cross_entropy_with_logits(x, y),
        *two, domain=[REAL, PROBABILITY],
    )  # fmt: skip
    yield row(
        "binary_cross_entropy_with_logits weighted",
        lambda F, x, y, w: F.binary_cross_entropy_with_logits(
            x, y, w.detach(), pos_weight=w[0].detach() / 2, reduction="sum"
        ),
        *two, (3, 5), domain=[REAL, PROBABILITY, POSITIVE], half=32,
    )  # fmt: skip
    yield row(
        "kl_div", lambda F, x, y: F.kl_div(x, y, reduction="batchmean"),
        *two, domain=[LOG_PROBABILITY, PROBABILITY], half=32,
    )  # fmt: skip
    yield row(
        "kl_div of logarithms", lambda F, x, y: F.kl_div(x, y, reduction="sum", log_target=True),
        *two, domain=LOG_PROBABILITY, half=32,
    )  # fmt: skip
    yield row("poisson_nll_loss", lambda F, x, y: F.poisson_nll_loss(x, y), *two, domain=POSITIVE)
    yield row(
        "poisson_nll_loss full",
        lambda F, x, y: F.poisson_nll_loss(x, y, False, True, eps=0.1, reduction="none"),
        *two, domain=(0.2, 5),
    )  # fmt: skip
    yield row(
        "gaussian_nll_loss", lambda F, x, y, v: F.gaussian_nll_loss(x, y, v, True),
        *two, (3, 1), domain=[REAL, REAL, POSITIVE], half=32, lacks=VALUE_ERROR,
    )  # fmt: skip
    yield own(
        "soft_margin_loss", lambda t, x: t.nn.functional.soft_margin_loss(x, _signs(t, x)), (3, 5)
    )
    yield own(
        "hinge_embedding_loss",
        lambda t, x: t.nn.functional.hinge_embedding_loss(x, _signs(t, x), 0.5, reduction="none"),
        (3, 5),
    )  # fmt: skip
    yield own(
        "margin_ranking_loss",
        lambda t, x, y: t.nn.functional.margin_ranking_loss(x, y, _signs(t, x), 0.5), *two,
    )  # fmt: skip
    yield own(
        "cosine_embedding_loss",
        lambda t, x, y: t.nn.functional.cosine_embedding_loss(x, y, _signs(t, x[..., 0]), 0.1),
        *two, half=32,
    )  # fmt: skip
    yield row(
        "triplet_margin_loss", lambda F, a, p, n: F.triplet_margin_loss(a, p, n), *two, (3, 5)
    )
    yield row(
        "triplet_margin_loss swapped",
        lambda F, a, p, n: F.triplet_margin_loss(a, p, n, 2.0, 1.0, swap=True, reduction="sum"),
        *two, (3, 5), half=32,
    )  # fmt: skip


ROWS = list(_table())
