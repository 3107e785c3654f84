"""Elements picked along one dim, and its transpose: elements added where they were picked."""

from typing import Any

import numpy as np

from tensorgrad.kernels.cpu.jit import Array, Cube, IntegerCube, OutCube, kernel, known


@kernel
def pick(lo: int, hi: int, x: Cube, index: IntegerCube, out: OutCube) -> int:
    """Answers 1 where an index is none of x, after the rest; such places are left as they are."""
    wrong, n = 0, x.shape[1]
    if x.shape[2] == 1:  # the last dim: one loop less
        for o in range(lo, hi):
            xs, places, outs = x[o, :, 0], index[o, :, 0], out[o, :, 0]
            for i in range(places.size):
                k = places[i]
                if 0 <= k < n:
                    outs[i] = xs[k]
                else:
                    wrong = 1
        return wrong
    for o in range(lo, hi):
        for i in range(index.shape[1]):
            for j in range(index.shape[2]):
                k = index[o, i, j]
                if 0 <= k < n:
                    out[o, i, j] = x[o, k, j]
                else:
                    wrong = 1
    return wrong


@kernel
def add(lo: int, hi: int, g: Cube, index: IntegerCube, out: OutCube) -> int:
    wrong, n = 0, out.shape[1]
    if out.shape[2] == 1:
        for o in range(lo, hi):
            gs, places, outs = g[o, :, 0], index[o, :, 0], out[o, :, 0]
            for i in range(places.size):
                k = places[i]
                if 0 <= k < n:
                    outs[k] += gs[i]
                else:
                    wrong = 1
        return wrong
    for o in range(lo, hi):
        for i in range(index.shape[1]):
            for j in range(index.shape[2]):
                k = index[o, i, j]
                if 0 <= k < n:
                    out[o, k, j] += g[o, i, j]
                else:
                    wrong = 1
    return wrong


def gather_forward(x: Array, index: Array, dim: int) -> Array | None:
    """out[o, i, j] = x[o, index[o, i, j], j], the dim in the middle; None for a wrong index."""
    if not known(x) or not _alike(x.shape, index, dim):
        return None
    out = np.empty(index.shape, x.dtype)
    cubes = _cube(x, dim), _cube(index, dim), _cube(out, dim)
    return None if pick.over(x.dtype, len(cubes[0]), index.size, *cubes) else out


def gather_backward(g: Array, index: Array, shape: tuple[int, ...], dim: int) -> Array | None:
    """out[o, index[o, i, j], j] += g[o, i, j], zeros elsewhere; None for a wrong index."""
    if not known(g) or g.shape != index.shape or not _alike(shape, index, dim):
        return None
    out = np.zeros(shape, g.dtype)
    cubes = _cube(g, dim), _cube(index, dim), _cube(out, dim)
    return None if add.over(g.dtype, len(cubes[0]), 1.5 * index.size, *cubes) else out


def _alike(shape: tuple[int, ...], index: Array, dim: int) -> bool:
    """Whether the index is as large as what it picks from, but for the dim."""
    of = index.shape
    return (
        index.dtype == np.int64
        and len(of) == len(shape)
        and of[:dim] == shape[:dim]
        and of[dim + 1 :] == shape[dim + 1 :]
        and index.size > 0
        and shape[dim] > 0
    )


def _cube(x: Array, dim: int) -> Any:
    """x as (outer, n, inner)."""
    inner = 1
    for n in x.shape[dim + 1 :]:
        inner *= n
    return x.reshape(-1, x.shape[dim], inner)
