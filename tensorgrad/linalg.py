"""Linear algebra under PyTorch's names: torch.linalg is tensorgrad.linalg."""

from tensorgrad.ops.linalg import (
    LinAlgError,
    cholesky,
    det,
    inv,
    matrix_norm,
    norm,
    slogdet,
    solve,
    svdvals,
    vector_norm,
)

__all__ = [
    "LinAlgError", "cholesky", "det", "inv", "matrix_norm", "norm", "slogdet", "solve", "svdvals",
    "vector_norm",
]  # fmt: skip
