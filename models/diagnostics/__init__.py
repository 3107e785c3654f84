"""What a model does inside while it trains: layers, updates, learning rates, in words and pictures.

Any Module will do: nothing of it is changed, and all of it is put back.
"""

from tensorgrad.models.diagnostics.diagnosis import Diagnosis, Finding, diagnose
from tensorgrad.models.diagnostics.layers import Layer, watch_layers
from tensorgrad.models.diagnostics.preserved import preserved
from tensorgrad.models.diagnostics.rates import RateCurve, find_learning_rate
from tensorgrad.models.diagnostics.updates import Updates, watch_updates

__all__ = [
    "Diagnosis",
    "Finding",
    "Layer",
    "RateCurve",
    "Updates",
    "diagnose",
    "find_learning_rate",
    "preserved",
    "watch_layers",
    "watch_updates",
]
