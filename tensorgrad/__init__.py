"""tensorgrad: a deep-learning framework that can be read in a weekend."""

from __future__ import annotations

import warnings as _warnings
from typing import Any

from tensorgrad import autograd, func
from tensorgrad import random as random
from tensorgrad.backend import device
from tensorgrad.convert import as_tensor, clone, from_dlpack, from_numpy, tensor
from tensorgrad.creation import *
from tensorgrad.dtypes import bool_ as bool
from tensorgrad.dtypes import (
    complex64,
    complex128,
    dtype,
    float16,
    float32,
    float64,
    get_default_dtype,
    int8,
    int16,
    int32,
    int64,
    promote_types,
    set_default_dtype,
    uint8,
)
from tensorgrad.inplace import give_forms as _give_forms
from tensorgrad.inplace import in_place
from tensorgrad.kinds import bilinear, discrete, elementwise, fused, general, linear
from tensorgrad.mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from tensorgrad.ops import quick as _quick
from tensorgrad.ops.activations import *
from tensorgrad.ops.bits import *
from tensorgrad.ops.choices import *
from tensorgrad.ops.compare import *
from tensorgrad.ops.complex import *
from tensorgrad.ops.contractions import *
from tensorgrad.ops.diagonal import *
from tensorgrad.ops.elementwise import *
from tensorgrad.ops.indexing import *
from tensorgrad.ops.joining import *
from tensorgrad.ops.norms import *
from tensorgrad.ops.parts import *
from tensorgrad.ops.products import *
from tensorgrad.ops.reduce import *
from tensorgrad.ops.repeat import *
from tensorgrad.ops.scans import *
from tensorgrad.ops.scatter import *
from tensorgrad.ops.select import *
from tensorgrad.ops.shape import *
from tensorgrad.ops.softmax import *
from tensorgrad.ops.special import *
from tensorgrad.ops.statistics import *
from tensorgrad.ops.trigonometry import *
from tensorgrad.random import *
from tensorgrad.tensor import Tensor

_give_forms()

double, half, long, int, short = float64, float16, int64, int32, int16
float = float32
pi, inf, nan = 3.141592653589793, 1e400, 1e400 - 1e400

# NumPy warns where PyTorch is silent (log of zero, overflow): here these are ordinary values.
_warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"tensorgrad(\.|$)")

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Things imported when first used: bfloat16, Generator, cuda, nn, optim, ..."""
    if name == "bfloat16":
        from tensorgrad.dtypes import bfloat16

        return bfloat16()
    if name in ("autocast", "is_autocast_enabled"):
        from tensorgrad import amp

        return getattr(amp, name)
    if name in ("Generator", "PhiloxGenerator"):
        from tensorgrad import rng

        return getattr(rng, name)
    if name in (
        "nn", "optim", "scalar", "utils", "models", "data", "cuda", "draw", "serialization",
        "distributed", "amp",
        "linalg",
    ):  # fmt: skip
        import importlib

        return importlib.import_module("tensorgrad." + name)
    raise AttributeError(f"module 'tensorgrad' has no attribute '{name}'")
