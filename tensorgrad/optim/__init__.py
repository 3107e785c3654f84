"""Optimisers and learning-rate schedules with PyTorch's arithmetic, options and state_dict."""

from tensorgrad.optim import lr_scheduler
from tensorgrad.optim.adam import Adam, AdamW
from tensorgrad.optim.lion import Lion
from tensorgrad.optim.muon import Muon
from tensorgrad.optim.optimizer import Optimizer
from tensorgrad.optim.rmsprop import Adagrad, RMSprop
from tensorgrad.optim.sgd import SGD

__all__ = [
    "SGD", "Adagrad", "Adam", "AdamW", "Lion", "Muon", "Optimizer", "RMSprop", "lr_scheduler",
]  # fmt: skip
