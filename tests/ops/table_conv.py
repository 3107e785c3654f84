"""Rows of the table for convolutions, pooling and resizing; see table.py."""

from collections.abc import Callable, Iterator
from typing import Any

from tests.ops.table import Row, Shape

RANK = {"empty": "some images without elements are refused, where PyTorch's answer is empty"}
TIES = {**RANK, "stretched": "which of equal elements is taken is open"}


def _table() -> Iterator[Row]:
    def row(name: str, call: Callable[..., Any], *shapes: Shape, **options: Any) -> Row:
        def run(t: Any, *xs: Any) -> Any:
            return call(t.nn.functional, *xs)

        return Row(name, run, list(shapes), **{"half": 32, "lacks": RANK, **options})

    x1, w1, x2, w2 = (2, 3, 11), (5, 3, 3), (2, 3, 7, 11), (5, 3, 3, 2)
    yield row("conv1d", lambda F, x, w, b: F.conv1d(x, w, b), x1, w1, (5,))
    yield row("conv1d same", lambda F, x, w: F.conv1d(x, w, padding="same", dilation=2), x1, w1)
    yield row(
        "conv1d groups", lambda F, x, w: F.conv1d(x, w, stride=2, padding=1, groups=2),
        (2, 4, 11), (6, 2, 3),
    )  # fmt: skip
    yield row("conv2d", lambda F, x, w, b: F.conv2d(x, w, b), x2, w2, (5,))
    yield row(
        "conv2d strided",
        lambda F, x, w: F.conv2d(x, w, stride=(2, 3), padding=(1, 2), dilation=(2, 1)), x2, w2,
    )  # fmt: skip
    yield row(
        "conv_transpose1d",
        lambda F, x, w, b: F.conv_transpose1d(x, w, b, stride=2, padding=1, output_padding=1),
        x1, (3, 5, 3), (5,),
    )  # fmt: skip
    yield row(
        "conv_transpose2d",
        lambda F, x, w: F.conv_transpose2d(x, w, stride=(2, 1), padding=1), x2, (3, 5, 3, 2),
    )  # fmt: skip
    yield row("max_pool1d", lambda F, x: F.max_pool1d(x, 3, 2, 1), x1, lacks=TIES)
    yield row("max_pool2d", lambda F, x: F.max_pool2d(x, (3, 2), ceil_mode=True), x2, lacks=TIES)
    yield row("avg_pool1d", lambda F, x: F.avg_pool1d(x, 3, 2, 1), x1)
    yield row("avg_pool2d", lambda F, x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), x2)
    yield row("adaptive_avg_pool1d", lambda F, x: F.adaptive_avg_pool1d(x, 4), x1)
    yield row("adaptive_avg_pool2d", lambda F, x: F.adaptive_avg_pool2d(x, (3, 4)), x2)
    yield row("adaptive_max_pool1d", lambda F, x: F.adaptive_max_pool1d(x, 4), x1, lacks=TIES)
    yield row("adaptive_max_pool2d", lambda F, x: F.adaptive_max_pool2d(x, 3), x2, lacks=TIES)
    yield row("unfold", lambda F, x: F.unfold(x, (3, 2), padding=1, stride=2), x2)
    yield row("fold", lambda F, x: F.fold(x, (5, 7), (3, 2)), (2, 18, 18))
    yield row("pad", lambda F, x: F.pad(x, (1, 2, 3, -1), value=0.5), x2)
    yield row("pad reflect", lambda F, x: F.pad(x, (1, 2, 2, 1), mode="reflect"), x2)
    yield row("pad replicate", lambda F, x: F.pad(x, (3, 2), mode="replicate"), x1)
    yield row("pad circular", lambda F, x: F.pad(x, (3, 2), mode="circular"), x1)
    yield row("interpolate nearest", lambda F, x: F.interpolate(x, scale_factor=2), x2)
    yield row("interpolate bilinear", lambda F, x: F.interpolate(x, (5, 17), mode="bilinear"), x2)
    yield row(
        "interpolate bicubic",
        lambda F, x: F.interpolate(x, (9, 8), mode="bicubic", align_corners=True), x2,
    )  # fmt: skip
    yield row("pixel_shuffle", lambda F, x: F.pixel_shuffle(x, 2), (2, 12, 3, 5))
    yield row("pixel_unshuffle", lambda F, x: F.pixel_unshuffle(x, 3), (2, 5, 6, 9))


ROWS = list(_table())
