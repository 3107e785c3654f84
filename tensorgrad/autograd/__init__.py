"""Automatic differentiation for users: gradients, custom functions, checks, what a graph keeps."""

from tensorgrad.autograd.reverse import backward, grad

__all__ = ["backward", "grad"]
