"""The CUDA twins on CuPy arrays, and the kernels' sources beside them (*.cu).

CuPy is loaded, and a kernel compiled, when the first of them is called."""

from tensorgrad.kernels.cuda.launch import (
    adamw_step,
    attention_backward,
    attention_forward,
    cross_entropy_backward,
    cross_entropy_forward,
    embedding_backward,
    gelu_backward,
    gelu_forward,
    layer_norm_backward,
    layer_norm_forward,
    log_softmax_backward,
    log_softmax_forward,
    philox_dropout,
    softmax_backward,
    softmax_forward,
)

__all__ = [
    "adamw_step",
    "attention_backward",
    "attention_forward",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "embedding_backward",
    "gelu_backward",
    "gelu_forward",
    "layer_norm_backward",
    "layer_norm_forward",
    "log_softmax_backward",
    "log_softmax_forward",
    "philox_dropout",
    "softmax_backward",
    "softmax_forward",
]
