"""Max pooling: the place of each window's maximum, and gradients sent back there."""

from typing import Annotated

import numpy as np

from tensorgrad.kernels.cpu.jit import Array, Cube, Matrix, OutMatrix, kernel, known, ready
from tensorgrad.kernels.cpu.threads import share

Table = Annotated[Array, 2, "C", "int", "in"]
OutTable = Annotated[Array, 2, "C", "int", "out"]


@kernel
def place(lo: int, hi: int, x: Cube, rows: Table, columns: Table, out: OutTable) -> None:
    width, count = x.shape[2], columns.shape[1]
    best, at = np.empty(count, x.dtype), np.empty(count, np.int64)
    for b in range(lo, hi):
        for i in range(rows.shape[1]):
            for k in range(rows.shape[0]):  # tap by tap, so that no branch has to be guessed
                start, line = rows[k, i] * width, x[b, rows[k, i]]
                for m in range(columns.shape[0]):
                    tap = columns[m]
                    if k == 0 and m == 0:
                        for j in range(count):
                            best[j], at[j] = line[tap[j]], start + tap[j]
                        continue
                    for j in range(count):
                        value = line[tap[j]]
                        better = (value > best[j]) | (value != value)  # the last NaN wins
                        best[j] = value if better else best[j]
                        at[j] = start + tap[j] if better else at[j]
            out[b, i * count : (i + 1) * count] = at


@kernel
def put_back(lo: int, hi: int, g: Matrix, index: Table, dx: OutMatrix) -> None:
    for b in range(lo, hi):
        for o in range(g.shape[1]):
            dx[b, index[b, o]] += g[b, o]


def max_pool_place(x: Array, places: tuple[Array, ...]) -> Array | None:
    """Where in the plane each window of x (B, L) or (B, H, W) has its first maximum, or last NaN.

    places: for each dim what each window looks at, (taps, windows)."""
    if not known(x) or len(places) > 2:
        return None
    rows, columns = places if len(places) == 2 else (np.zeros((1, 1), np.int64), *places)
    out = np.empty((x.shape[0], *(p.shape[1] for p in places)), np.int64)
    planes = ready(x).reshape(x.shape[0], -1, x.shape[-1])
    work = 1.5 * out.size * rows.shape[0] * columns.shape[0]
    flat = out.reshape(x.shape[0], -1)
    share(place[x.dtype], x.shape[0], work, planes, ready(rows), ready(columns), flat)
    return out


def max_pool_backward(g: Array, index: Array, shape: tuple[int, int]) -> Array | None:
    """dx[b, index[b, o]] += g[b, o]: (B, O) -> (B, L)."""
    if not known(g):
        return None
    dx = np.zeros(shape, g.dtype)
    share(put_back[g.dtype], g.shape[0], 1.5 * g.size, ready(g), ready(index), dx)
    return dx
