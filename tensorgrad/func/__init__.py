"""Transforms of functions, as in torch.func."""

from tensorgrad.func.functional_call import functional_call
from tensorgrad.func.jacobians import hessian, hvp, jacfwd, jacrev, linearize
from tensorgrad.func.transforms import grad, jvp, value_and_grad, vjp

__all__ = [
    "functional_call", "grad", "hessian", "hvp", "jacfwd", "jacrev", "jvp", "linearize",
    "value_and_grad", "vjp",
]  # fmt: skip
