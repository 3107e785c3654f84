"""Layers, their functional forms and their initialisation, imported as tensorgrad.nn."""

if __name__ != "tensorgrad.nn":
    raise ImportError(
        "the folder nn/ is a part of tensorgrad: write `from tensorgrad import nn` or "
        "`from tensorgrad.nn import Linear`, not `import nn`"
    )

from tensorgrad.nn import functional, init, utils
from tensorgrad.nn.containers import (
    ModuleDict,
    ModuleList,
    ParameterDict,
    ParameterList,
    Sequential,
)
from tensorgrad.nn.layers import (
    GELU,
    Dropout,
    Embedding,
    Flatten,
    Identity,
    LayerNorm,
    Linear,
    LogSoftmax,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from tensorgrad.nn.losses import CrossEntropyLoss, MSELoss, NLLLoss
from tensorgrad.nn.module import Module
from tensorgrad.nn.parameter import Buffer, Parameter
from tensorgrad.nn.summary import summary

__all__ = [
    "GELU",
    "Buffer",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "Identity",
    "LayerNorm",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "Module",
    "ModuleDict",
    "ModuleList",
    "NLLLoss",
    "Parameter",
    "ParameterDict",
    "ParameterList",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "functional",
    "init",
    "summary",
    "utils",
]
