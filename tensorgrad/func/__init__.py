"""Transforms of functions, as in torch.func."""

from tensorgrad.func.transforms import grad, jvp, value_and_grad, vjp

__all__ = ["grad", "jvp", "value_and_grad", "vjp"]
