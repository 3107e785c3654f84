"""x w^T of few rows x, as in generation: the time goes into reading w, which happens once for all.

BLAS lays w out anew for more than one row of x, which takes longer than the product itself."""

import numpy as np

from tensorgrad.kernels.cpu import threads
from tensorgrad.kernels.cpu.blocks import row
from tensorgrad.kernels.cpu.elementary import plus
from tensorgrad.kernels.cpu.jit import Array, Matrix, OutMatrix, kernel, known

MOST = 4  # rows up to which this is quicker than BLAS
LARGE = 2**24  # bytes of w from which a second thread, woken from sleep, comes in time to help
NANOSECONDS = 0.05  # for a byte of w to arrive from memory


@kernel
def products(lo: int, hi: int, x: Matrix, w: Matrix, out: OutMatrix) -> None:
    """Columns lo to hi of out = x w^T."""
    number = x.dtype.type
    for n in range(lo, hi):
        line = row(w, n)
        for i in range(x.shape[0]):
            xi, total = row(x, i), number(0)
            for k in range(xi.size):
                total = plus(total, xi[k] * line[k])
            out[i, n] = total


def few_rows(x: Array, w: Array, out: Array | None = None) -> Array | None:
    """x w^T, (n, K) and (M, K) -> (n, M); None where BLAS does it as well, or better.

    A row of the answer does not depend on the other rows of x."""
    n, m = len(x), len(w)
    shared = w.nbytes >= LARGE and threads.get_num_threads() > 1
    if n > MOST or (n == 1 and not shared) or not known(x, w, out):
        return None
    if out is None:
        out = np.empty((n, m), x.dtype)
    if not all(a.flags.c_contiguous and a.flags.aligned for a in (x, w, out)):
        return None
    threads.share(products[x.dtype], m, w.nbytes * NANOSECONDS if shared else 0, x, w, out)
    return out
