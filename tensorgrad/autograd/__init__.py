"""Automatic differentiation for users: gradients, custom functions, checks, what a graph keeps."""

from tensorgrad.autograd.function import Function
from tensorgrad.autograd.reverse import backward, grad

__all__ = ["Function", "backward", "grad"]
