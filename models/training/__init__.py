"""The training loop: a recipe, the steps, what is written down, and checkpoints that resume exactly."""

from tensorgrad.models.training.recipe import Recipe
from tensorgrad.models.training.trainer import Trainer

__all__ = ["Recipe", "Trainer"]
