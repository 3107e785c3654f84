"""x w^T of few rows x, as in generation: the time goes into reading w, which happens once for all.

BLAS lays w out anew for more than one row of x, which takes longer than the product itself."""

import numpy as np

from tensorgrad.kernels.cpu import threads
from tensorgrad.kernels.cpu.blocks import row
from tensorgrad.kernels.cpu.elementary import plus
from tensorgrad.kernels.cpu.jit import Array, Matrix, OutMatrix, kernel, known

MOST = 6  # rows up to which this is quicker than BLAS
LARGE = 2**26  # bytes of w from which a second thread, woken from sleep, comes in time to help
NANOSECONDS = 0.05  # for a byte of w to arrive from memory


@kernel
def products(lo: int, hi: int, x: Matrix, w: Matrix, out: OutMatrix) -> None:
    """Columns lo to hi of out = x w^T.  A core that reads w at four places at once reads it faster.

    The four runs of rows may overlap, so that each number is made in the same way."""
    number = x.dtype.type
    run = (hi - lo + 3) // 4
    second, third, fourth = min(lo + run, hi - run), min(lo + 2 * run, hi - run), hi - run
    for n in range(run):
        a, b = row(w, lo + n), row(w, second + n)
        c, d = row(w, third + n), row(w, fourth + n)
        for i in range(x.shape[0]):
            xi = row(x, i)
            p, q, r, s = number(0), number(0), number(0), number(0)
            for k in range(xi.size):
                p = plus(p, xi[k] * a[k])
                q = plus(q, xi[k] * b[k])
                r = plus(r, xi[k] * c[k])
                s = plus(s, xi[k] * d[k])
            out[i, lo + n], out[i, second + n] = p, q
            out[i, third + n], out[i, fourth + n] = r, s


def few_rows(x: Array, w: Array, out: Array | None = None) -> Array | None:
    """x w^T, (n, K) and (M, K) -> (n, M); None where BLAS does it better.

    A row of the answer does not depend on the other rows of x."""
    n, m = len(x), len(w)
    if not 0 < n <= MOST or not known(x, w, out):
        return None
    if out is None:
        out = np.empty((n, m), x.dtype)
    if not all(a.flags.c_contiguous and a.flags.aligned for a in (x, w, out)):
        return None
    work = w.nbytes * NANOSECONDS if w.nbytes >= LARGE else 0
    threads.share(products[x.dtype], m, work, x, w, out)
    return out
