"""Automatic differentiation for users: gradients, custom functions, checks, what a graph keeps."""

from tensorgrad.anomaly import (
    detect_anomaly,
    is_anomaly_check_nan_enabled,
    is_anomaly_enabled,
    set_detect_anomaly,
)
from tensorgrad.autograd import functional
from tensorgrad.autograd.function import Function, once_differentiable
from tensorgrad.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck
from tensorgrad.autograd.reverse import backward, grad
from tensorgrad.autograd.saved import saved, walk
from tensorgrad.mode import enable_grad, inference_mode, no_grad, set_grad_enabled

__all__ = [
    "Function", "GradcheckError", "backward", "detect_anomaly", "enable_grad", "functional",
    "grad", "gradcheck", "gradgradcheck", "inference_mode", "is_anomaly_check_nan_enabled",
    "is_anomaly_enabled", "no_grad", "once_differentiable", "saved", "set_detect_anomaly",
    "set_grad_enabled", "walk",
]  # fmt: skip
