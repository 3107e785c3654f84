"""Helpers around training, as in torch.utils."""

from tensorgrad.utils import checkpoint

__all__ = ["checkpoint"]
