"""The gradient of a table of rows from which an index picked: each picked row's gradient is added to its own."""

import numpy as np

from tensorgrad.kernels.cpu.blocks import row
from tensorgrad.kernels.cpu.jit import FLOATS, Array, Integers, Matrix, OutMatrix, kernel, ready
from tensorgrad.kernels.cpu.threads import share


@kernel
def backward(lo: int, hi: int, g: Matrix, index: Integers, skip: int, dw: OutMatrix) -> int:
    """Columns lo to hi, so that threads never meet and every sum runs in the order of the index."""
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
    """dweight[index[i]] += g[i]: (num_embeddings, C) from g (..., C) and an integer index (...)."""
    if g.dtype not in FLOATS or index.dtype.kind not in "iu":
        return None
    columns = g.shape[-1]
    dw = np.zeros((num_embeddings, columns), g.dtype)
    index = ready(index.astype(np.int64, copy=False)).ravel()
    skip = -1 if padding_idx is None else padding_idx
    rows = ready(g).reshape(index.size, columns)
    wrong = share(backward[g.dtype], columns, g.size + 4 * index.size, rows, index, skip, dw)
    if wrong:
        raise IndexError(
            f"embedding: index {index[wrong - 1]} is not one of the {num_embeddings} rows of the table"
        )
    return dw
