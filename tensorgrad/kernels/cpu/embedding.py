"""The gradient of a table from which an index picked rows: the sum of what arrives for each row."""

import numpy as np

from tensorgrad.kernels.cpu.blocks import row
from tensorgrad.kernels.cpu.jit import Array, Integers, Matrix, OutMatrix, kernel, known


@kernel
def backward(lo: int, hi: int, g: Matrix, index: Integers, skip: int, dw: OutMatrix) -> int:
    """Columns lo to hi: threads never meet, and every sum runs in the order of the index.

    Answers 1 + the last place of an index that is no row, or 0."""
    wrong = 0
    g, dw = g[:, lo:hi], dw[:, lo:hi]
    for i in range(index.size):
        if index[i] < 0 or index[i] >= dw.shape[0]:
            wrong = i + 1
        elif index[i] != skip:
            gi, out = row(g, i), row(dw, index[i])
            for j in range(gi.size):
                out[j] += gi[j]
    return wrong


def embedding_backward(
    g: Array, index: Array, num_embeddings: int, padding_idx: int | None = None
) -> Array | None:
    """dweight[index[i]] += g[i], (num_embeddings, C), from g (..., C) and integers index (...).

    The row padding_idx stays 0.  IndexError: an index that is no row of the table."""
    if not known(g) or index.dtype.kind not in "iu" or g.ndim == 0 or g.shape[:-1] != index.shape:
        return None
    columns = g.shape[-1]
    dw = np.zeros((num_embeddings, columns), g.dtype)
    if index.ndim != 1:
        index, g = index.ravel(), g.reshape(index.size, columns)
    if index.dtype != np.int64:
        index = index.astype(np.int64)
    skip = -1 if padding_idx is None else padding_idx
    wrong = backward.over(g.dtype, columns, 0.15 * g.size, g, index, skip, dw)
    if wrong:
        raise IndexError(
            f"embedding: index {index[wrong - 1]} is none of the table's {num_embeddings} rows"
        )
    return dw
