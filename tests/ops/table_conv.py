"""Rows for convolutions, pooling and resizing, read by every property of test_properties.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from tests.ops.table import TIES, Row, Shape

CHANNELS = {"empty": "without channels PyTorch has no gradient, or results of odd shapes"}
NOT_DONE = {"empty": "PyTorch calls a wrong rank not implemented; here it is a RuntimeError"}


def _table() -> Iterator[Row]:
    def row(name: str, call: Callable[..., Any], *shapes: Shape, **options: Any) -> Row:
        def run(t: Any, *xs: Any) -> Any:
            return call(t.nn.functional, *xs)

        return Row(name, run, list(shapes), **{"half": 32, **options})

    # convolutions
    conv = partial(row, lacks=CHANNELS)
    x1, w1, x2, w2 = (2, 3, 11), (5, 3, 7), (2, 3, 11, 13), (5, 3, 7, 2)
    yield conv("conv1d", lambda F, x, w, b: F.conv1d(x, w, b), x1, w1, (5,))
    yield conv("conv1d strided", lambda F, x, w: F.conv1d(x, w, None, 2, 1, 2), (2, 3, 17), w1)
    yield conv("conv1d same", lambda F, x, w: F.conv1d(x, w, padding="same", dilation=3), x1, w1)
    yield conv("conv1d valid", lambda F, x, w: F.conv1d(x, w, padding="valid"), x1, w1)
    yield conv("conv1d single", lambda F, x, w, b: F.conv1d(x, w, b), (3, 11), w1, (5,))
    yield conv(
        "conv1d groups", lambda F, x, w: F.conv1d(x, w, stride=2, padding=1, groups=2),
        (3, 4, 11), (6, 2, 5),
    )  # fmt: skip
    yield conv("conv1d depthwise", lambda F, x, w: F.conv1d(x, w, groups=3), x1, (3, 1, 5))
    yield conv("conv1d with itself", lambda F, x: F.conv1d(x, x.flip(2), padding=2), (3, 3, 5))
    yield conv("conv2d", lambda F, x, w, b: F.conv2d(x, w, b), x2, w2, (5,))
    yield conv(
        "conv2d strided",
        lambda F, x, w, b: F.conv2d(x, w, b, stride=(2, 3), padding=(1, 2), dilation=(1, 3)),
        x2, w2, (5,),
    )  # fmt: skip
    yield conv(
        "conv2d wide padding", lambda F, x, w: F.conv2d(x, w, padding=3), (2, 3, 5, 7), (5, 3, 2, 1)
    )
    yield conv(
        "conv2d single", lambda F, x, w: F.conv2d(x, w, padding="same"), (3, 11, 13), (5, 3, 7, 1)
    )
    yield conv("conv2d one tap", lambda F, x, w, b: F.conv2d(x, w, b), x2, (5, 3, 1, 1), (5,))
    yield conv(
        "conv2d groups", lambda F, x, w, b: F.conv2d(x, w, b, padding=1, groups=2),
        (3, 4, 5, 7), (6, 2, 2, 3), (6,),
    )  # fmt: skip
    yield conv(
        "conv_transpose1d",
        lambda F, x, w, b: F.conv_transpose1d(x, w, b, stride=2, padding=1, output_padding=1),
        (2, 3, 11), (3, 5, 7), (5,),
    )  # fmt: skip
    yield conv(
        "conv_transpose1d plain", lambda F, x, w: F.conv_transpose1d(x, w), (3, 11), (3, 5, 7)
    )
    yield conv(
        "conv_transpose2d",
        lambda F, x, w, b: F.conv_transpose2d(x, w, b, (2, 1), (1, 0), dilation=(1, 2)),
        (2, 3, 5, 7), (3, 5, 2, 3), (5,),
    )  # fmt: skip
    yield conv(
        "conv_transpose2d groups", lambda F, x, w: F.conv_transpose2d(x, w, padding=1, groups=2),
        (3, 4, 5, 7), (4, 3, 2, 3),
    )  # fmt: skip

    # pooling
    yield row("max_pool1d", lambda F, x: F.max_pool1d(x, 3, 2, 1), x1, lacks=TIES)
    yield row("max_pool1d single", lambda F, x: F.max_pool1d(x, 2, dilation=3), (3, 11), lacks=TIES)
    yield row("max_pool2d", lambda F, x: F.max_pool2d(x, (3, 2), ceil_mode=True), x2, lacks=TIES)
    yield row(
        "max_pool2d indices",
        lambda F, x: F.max_pool2d(x, 2, 3, 1, 2, True, return_indices=True),
        x2, lacks=TIES,
    )  # fmt: skip
    yield row("avg_pool1d", lambda F, x: F.avg_pool1d(x, 3, 2, 1), x1)
    yield row("avg_pool1d hanging", lambda F, x: F.avg_pool1d(x, 4, 3, 2, True, False), (3, 11))
    yield row("avg_pool2d", lambda F, x: F.avg_pool2d(x, 2), x2)
    yield row(
        "avg_pool2d padded", lambda F, x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), x2
    )
    yield row(
        "avg_pool2d divisor", lambda F, x: F.avg_pool2d(x, 3, 2, 1, True, divisor_override=5), x2
    )
    yield row("adaptive_avg_pool1d", lambda F, x: F.adaptive_avg_pool1d(x, 4), x1, lacks=CHANNELS)
    yield row(
        "adaptive_avg_pool2d", lambda F, x: F.adaptive_avg_pool2d(x, (3, 17)), x2, lacks=CHANNELS
    )
    yield row(
        "adaptive_avg_pool2d even",
        lambda F, x: F.adaptive_avg_pool2d(x, 2),
        (3, 5, 4, 6),
        lacks=CHANNELS,
    )
    yield row(
        "adaptive_avg_pool2d one", lambda F, x: F.adaptive_avg_pool2d(x, 1), x2, lacks=CHANNELS
    )
    yield row(
        "adaptive_avg_pool2d None",
        lambda F, x: F.adaptive_avg_pool2d(x, (None, 3)),
        x2,
        lacks=CHANNELS,
    )
    yield row("adaptive_max_pool1d", lambda F, x: F.adaptive_max_pool1d(x, 4), x1, lacks=TIES)
    yield row(
        "adaptive_max_pool2d", lambda F, x: F.adaptive_max_pool2d(x, (3, 5), return_indices=True),
        x2, lacks=TIES | CHANNELS,
    )  # fmt: skip
    yield row("unfold", lambda F, x: F.unfold(x, (3, 2), padding=1, stride=2), x2)
    yield row("unfold single", lambda F, x: F.unfold(x, 2, dilation=(2, 1)), (3, 5, 7))
    yield row("fold", lambda F, x: F.fold(x, (5, 7), (3, 2)), (5, 12, 18))
    yield row("fold overlapping", lambda F, x: F.fold(x, 6, 3, padding=1, stride=2), (5, 18, 9))

    # resizing
    yield row("pad", lambda F, x: F.pad(x, (1, 2, 3, 5)), x2)
    yield row("pad value", lambda F, x: F.pad(x, (1, 2, 3, -1), value=0.5), x2)
    yield row("pad less", lambda F, x: F.pad(x, (-1, -2)), (3, 5))
    yield row("pad reflect", lambda F, x: F.pad(x, (1, 2, 2, 1), mode="reflect"), x2)
    yield row("pad replicate", lambda F, x: F.pad(x, (3, 2), mode="replicate"), x1)
    yield row("pad circular", lambda F, x: F.pad(x, (3, 2, 1, 4), mode="circular"), x2)
    yield row("interpolate", lambda F, x: F.interpolate(x, scale_factor=2), x2, lacks=NOT_DONE)
    yield row("interpolate nearest", lambda F, x: F.interpolate(x, 4), x1, lacks=NOT_DONE)
    yield row("interpolate exact", lambda F, x: F.interpolate(x, (17, 5), mode="nearest-exact"), x2)
    yield row("interpolate area", lambda F, x: F.interpolate(x, (5, 3), mode="area"), x2)
    yield row(
        "interpolate linear", lambda F, x: F.interpolate(x, 17, mode="linear"), x1, lacks=NOT_DONE
    )
    yield row("interpolate bilinear", lambda F, x: F.interpolate(x, (5, 17), mode="bilinear"), x2)
    yield row(
        "interpolate factor",
        lambda F, x: F.interpolate(x, scale_factor=(1.3, 0.7), mode="bilinear"),
        x2,
    )
    yield row(
        "interpolate corners",
        lambda F, x: F.interpolate(x, (5, 17), mode="bilinear", align_corners=True), x2,
    )  # fmt: skip
    yield row("interpolate bicubic", lambda F, x: F.interpolate(x, (9, 17), mode="bicubic"), x2)
    yield row(
        "interpolate bicubic corners",
        lambda F, x: F.interpolate(x, (9, 17), mode="bicubic", align_corners=True), x2,
    )  # fmt: skip
    yield row(
        "interpolate smooth",
        lambda F, x: F.interpolate(x, (5, 17), mode="bicubic", antialias=True),
        x2,
    )
    yield row(
        "interpolate trilinear",
        lambda F, x: F.interpolate(x, (2, 7, 4), mode="trilinear"),
        (2, 3, 5, 3, 7),
    )
    yield row("pixel_shuffle", lambda F, x: F.pixel_shuffle(x, 2), (2, 12, 3, 5), lacks=CHANNELS)
    yield row("pixel_unshuffle", lambda F, x: F.pixel_unshuffle(x, 3), (2, 5, 6, 9), lacks=CHANNELS)


ROWS = list(_table())
