"""Max pooling: the place of each window's maximum, and gradients sent back there."""

from typing import Annotated

import numpy as np

from tensorgrad.kernels.cpu.jit import Array, Cube, Matrix, OutMatrix, kernel, known, ready
from tensorgrad.kernels.cpu.threads import share

Table = Annotated[Array, 2, "C", "int", "in"]
OutTable = Annotated[Array, 2, "C", "int", "out"]


@kernel
def place(lo: int, hi: int, x: Cube, rows: Table, columns: Table, out: OutTable) -> None:
    width = x.shape[2]
    for b in range(lo, hi):
        plane, o = x[b], 0
        for i in range(rows.shape[1]):
            for j in range(columns.shape[1]):
                at = rows[0, i] * width + columns[0, j]
                best = plane[rows[0, i], columns[0, j]]
                for k in range(rows.shape[0]):
                    row = rows[k, i]
                    for m in range(columns.shape[0]):
                        value = plane[row, columns[m, j]]
                        better = (value > best) | (value != value)  # the last NaN wins
                        at = row * width + columns[m, j] if better else at
                        best = value if better else best
                out[b, o] = at
                o += 1


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
