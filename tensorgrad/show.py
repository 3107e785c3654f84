"""How a tensor prints: PyTorch's form, four digits, long dims abridged, and where it came from."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorgrad.dtypes import bool_, get_default_dtype, int64


def show(x: Any) -> str:
    """tensor([[1.0000, 2.0000]], grad_fn=<mul>)"""
    array = x.array if isinstance(x.array, np.ndarray) else x.array.get()
    half = array.dtype.kind == "V"
    text = np.array2string(
        array.astype(np.float32) if half else array,
        separator=", ", prefix="tensor(", precision=4, threshold=1000, edgeitems=3, max_line_width=80,
        formatter=_formatter(array.astype(np.float32) if half else array),
    )  # fmt: skip
    notes = [text if array.size else "[]"]
    if not array.size and array.shape != (0,):
        notes.append(f"size={array.shape}")
    if array.dtype not in (get_default_dtype(), int64, bool_):
        notes.append(f"dtype={array.dtype}")
    if x.array is not array:
        notes.append(f"device='{x.device}'")
    if x.node is not None:
        notes.append("requires_grad=True" if x.node.op is None else f"grad_fn=<{x.node.name()}>")
    return f"tensor({', '.join(notes)})"


def _formatter(array: Any) -> Any:
    if array.dtype.kind == "b":
        return {"bool": lambda b: " True" if b else "False"}
    if array.dtype.kind != "f":
        return None
    finite = array[np.isfinite(array)]
    largest = np.abs(finite).max(initial=0.0)
    if (finite == np.trunc(finite)).all() and largest < 1e8:
        return {"float_kind": lambda v: f"{v:.0f}." if np.isfinite(v) else str(v)}
    least = np.abs(finite[finite != 0]).min(initial=np.inf)
    if largest >= 1e8 or least < 1e-4 or largest / least > 1000:
        return {"float_kind": lambda v: f"{v:.4e}"}
    return {"float_kind": lambda v: f"{v:.4f}"}
