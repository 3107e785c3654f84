"""The CUDA twins: arrays in, arrays out, with the signatures of the CPU twins.

`rung` picks the step of the ladder in the .cu file.  A twin answers None where it declines (a dtype
it does not know, dtypes that differ): the formula runs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from tensorgrad.backend import Array, is_array, xp_of
from tensorgrad.dtypes import DType, float32, float64, int64
from tensorgrad.kernels.cuda import geometry
from tensorgrad.kernels.cuda.runner import C_NAMES, Runner, runner_for

P = ParamSpec("P")
R = TypeVar("R")
Needs = tuple[bool, bool, bool]


def twin(rule: Callable[Concatenate[Runner, P], R]) -> Callable[P, R | None]:
    """Hand `rule` the runner of its first array, and all arrays C-contiguous and aligned."""

    @functools.wraps(rule)
    def call(*args: Any, **kwargs: Any) -> R | None:
        run = runner_for(args[0])
        if run is None or args[0].dtype.name not in C_NAMES:
            return None
        with run.on(args[0]):
            args = tuple(run.ready(a) if is_array(a) else a for a in args)
            kwargs = {name: run.ready(a) if is_array(a) else a for name, a in kwargs.items()}
            return rule(run, *args, **kwargs)

    return call


def wide(dtype: DType) -> DType:
    """The dtype that kernels compute in: float64 for float64, else float32."""
    return float64 if dtype == float64 else float32


def same_dtype(first: Array, *others: Array | None) -> bool:
    return all(a is None or a.dtype == first.dtype for a in others)


def all_wide(x: Array, *saved: Array) -> bool:
    """Whether what forward saved has the dtype that kernels save for inputs like x."""
    return all(a.dtype == wide(x.dtype) for a in saved)


def instance(name: str, x: Array, *more: str) -> str:
    """The C++ name of a template for the dtype of x: gelu_forward_1<float, Erf>."""
    return f"{name}<{', '.join((C_NAMES[x.dtype.name], *more))}>"


def zeros(run: Runner, shape: tuple[int, ...], dtype: DType) -> Array:
    out = run.empty(shape, dtype)
    out.fill(0)
    return out


def elementwise(rung: int, x: Array) -> geometry.Geometry:
    return geometry.threads(x.size) if rung == 1 else geometry.packs(x.size, x.dtype.itemsize)


def rowwise(rung: int, x: Array) -> geometry.Geometry:
    R, C = matrix(x)
    return geometry.threads(R) if rung == 1 else geometry.rows(R, C, wide(x.dtype).itemsize)


def matrix(x: Array) -> tuple[int, int]:
    """Rows and columns, the columns being the last axis."""
    return math.prod(x.shape[:-1]), x.shape[-1]


@twin
def gelu_forward(run: Runner, x: Array, approximate: str = "none", *, rung: int = 2) -> Array:
    """y = x Phi(x), or its tanh form where approximate is "tanh"; any shape."""
    y = run.empty(x.shape, x.dtype)
    kernel = instance(f"gelu_forward_{rung}", x, "Tanh" if approximate == "tanh" else "Erf")
    run.launch("gelu.cu", kernel, elementwise(rung, x), y, x, x.size)
    return y


@twin
def gelu_backward(
    run: Runner, g: Array, x: Array, approximate: str = "none", *, rung: int = 2
) -> Array | None:
    """dx = g gelu'(x)."""
    if not same_dtype(g, x):
        return None
    dx = run.empty(x.shape, x.dtype)
    kernel = instance(f"gelu_backward_{rung}", x, "Tanh" if approximate == "tanh" else "Erf")
    run.launch("gelu.cu", kernel, elementwise(rung, x), dx, g, x, x.size)
    return dx


@twin
def layer_norm_forward(
    run: Runner, x: Array, weight: Array | None, bias: Array | None, eps: float, *, rung: int = 2
) -> tuple[Array, Array, Array] | None:
    """y = (x - mean) rstd w + b.   x (R, C), weight, bias (C) or None -> y (R, C), mean, rstd (R).

    mean and rstd are float32 for the half types."""
    if not same_dtype(x, weight, bias):
        return None
    R, C = x.shape
    y = run.empty((R, C), x.dtype)
    mean, rstd = run.empty((R,), wide(x.dtype)), run.empty((R,), wide(x.dtype))
    kernel = instance(f"layer_norm_forward_{rung}", x)
    outputs = (y, mean, rstd)
    run.launch(
        "layer_norm.cu", kernel, rowwise(rung, x), *outputs, x, weight, bias, R, C, float(eps)
    )
    return outputs


@twin
def layer_norm_backward(
    run: Runner,
    g: Array,
    x: Array,
    weight: Array | None,
    mean: Array,
    rstd: Array,
    needs: Needs = (True, True, True),
    *,
    rung: int = 2,
) -> tuple[Array | None, Array | None, Array | None] | None:
    """(dx, dweight, dbias), None for each that is not needed.   g, x (R, C); mean, rstd (R)."""
    if not same_dtype(g, x, weight) or not all_wide(x, mean, rstd):
        return None
    R, C = x.shape
    dx = run.empty((R, C), x.dtype) if needs[0] else None
    dw, db = None, None
    if dx is not None:
        kernel = instance(f"layer_norm_dx_{rung}", x)
        run.launch("layer_norm.cu", kernel, rowwise(rung, x), dx, g, x, weight, mean, rstd, R, C)
    if needs[1] or needs[2]:
        dw, db = run.empty((C,), x.dtype), run.empty((C,), x.dtype)
        kernel, columns = instance(f"layer_norm_dwdb_{rung}", x), geometry.threads(C)
        if rung == 1:
            run.launch("layer_norm.cu", kernel, columns, dw, db, g, x, mean, rstd, R, C)
        else:
            how, slab = geometry.slabs(R, C, mean.dtype.itemsize)
            slabs = how.grid[1]
            parts = run.empty((slabs, C), mean.dtype), run.empty((slabs, C), mean.dtype)
            stage = instance("layer_norm_slabs_2", x)
            run.launch("layer_norm.cu", stage, how, *parts, g, x, mean, rstd, R, C, slab)
            run.launch("layer_norm.cu", kernel, columns, dw, db, *parts, slabs, C)
    return dx, dw if needs[1] else None, db if needs[2] else None


Pair = tuple[Callable[..., Array | None], Callable[..., Array | None]]


def softmax_pair(kind: str) -> Pair:
    """Forward and backward of Softmax or LogSoftmax over the last axis."""

    @twin
    def forward(run: Runner, x: Array, *, rung: int = 2) -> Array:
        out = run.empty(x.shape, x.dtype)
        kernel = instance(f"softmax_forward_{rung}", x, kind)
        run.launch("softmax.cu", kernel, rowwise(rung, x), out, x, *matrix(x))
        return out

    @twin
    def backward(run: Runner, g: Array, out: Array, *, rung: int = 2) -> Array | None:
        if not same_dtype(g, out):
            return None
        dx = run.empty(g.shape, g.dtype)
        kernel = instance(f"softmax_backward_{rung}", g, kind)
        run.launch("softmax.cu", kernel, rowwise(rung, g), dx, g, out, *matrix(g))
        return dx

    return forward, backward


softmax_forward, softmax_backward = softmax_pair("Softmax")
log_softmax_forward, log_softmax_backward = softmax_pair("LogSoftmax")


@twin
def cross_entropy_forward(
    run: Runner,
    logits: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    *,
    rung: int = 2,
) -> tuple[Array, Array] | None:
    """Each row's loss, 0 where ignored, and log-sum-exp.   logits (R, C), target (R) -> (R), (R).

    lse is float32 for the half types.  A target outside 0..C-1 gives NaN: to raise, the CPU would
    have to wait for the device.  Declines class weights."""
    if weight is not None:
        return None
    R, C = logits.shape
    loss, lse = run.empty((R,), logits.dtype), run.empty((R,), wide(logits.dtype))
    kernel = instance(f"cross_entropy_forward_{rung}", logits)
    index = target.astype(int64, copy=False)
    sizes = R, C, int(ignore_index), float(label_smoothing)
    run.launch("cross_entropy.cu", kernel, rowwise(rung, logits), loss, lse, logits, index, *sizes)
    return loss, lse


@twin
def cross_entropy_backward(
    run: Runner,
    g: Array,
    logits: Array,
    target: Array,
    lse: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    *,
    rung: int = 2,
) -> Array | None:
    """dlogits (R, C), in its own array, from the gradient g of the losses: (R), or one number."""
    if weight is not None or not all_wide(logits, lse):
        return None
    R, C = logits.shape
    g = run.ready(xp_of(g).broadcast_to(g.astype(logits.dtype, copy=False), (R,)))
    dlogits = run.empty((R, C), logits.dtype)
    kernel = instance(f"cross_entropy_backward_{rung}", logits)
    how = geometry.threads(R * C) if rung == 1 else rowwise(rung, logits)
    inputs = g, logits, target.astype(int64, copy=False), lse
    sizes = R, C, int(ignore_index), float(label_smoothing)
    run.launch("cross_entropy.cu", kernel, how, dlogits, *inputs, *sizes)
    return dlogits


@twin
def embedding_backward(
    run: Runner,
    g: Array,
    index: Array,
    num_embeddings: int,
    padding_idx: int | None = None,
    *,
    rung: int = 2,
) -> Array:
    """out[v] = sum of g[n] over index[n] = v.   g (..., C), index (...) -> (num_embeddings, C).

    Rungs 1 and 2 give the same bits in every run; rung 3 adds by atomics.  Row padding_idx, and an
    index that is no row of the table, receive nothing."""
    (N, C), V = matrix(g), num_embeddings
    index = index.astype(int64, copy=False).reshape(N)
    kernel = instance(f"embedding_backward_{rung}", g)
    sizes = N, V, C, -1 if padding_idx is None else padding_idx
    if rung == 1:
        out = run.empty((V, C), g.dtype)
        run.launch("embedding.cu", kernel, geometry.threads(V * C), out, g, index, *sizes)
        return out
    if rung == 2:
        out = zeros(run, (V, C), g.dtype)
        order = xp_of(g).argsort(index, kind="stable")
        how = geometry.rows(N, C, 0)
        run.launch("embedding.cu", kernel, how, out, g, index, order, *sizes)
        return out
    out = zeros(run, (V, C), wide(g.dtype))
    run.launch("embedding.cu", kernel, geometry.threads(N * C), out, g, index, *sizes)
    return out.astype(g.dtype, copy=False)


def head_sizes(q: Array, k: Array) -> tuple[int, int, int, int]:
    """(heads in all, L queries, S keys, D) of q (..., L, D) and k (..., S, D)."""
    *outer, L, D = q.shape
    return math.prod(outer), L, k.shape[-2], D


@twin
def attention_forward(
    run: Runner,
    q: Array,
    k: Array,
    v: Array,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    rung: int = 2,
) -> tuple[Array, Array] | None:
    """o = softmax(scale q k^T) v and its log-sum-exp; where causal, query i sees the keys j <= i.

    q (..., L, D), k and v (..., S, D) with the same outer sizes -> o (..., L, D), lse (..., L).
    Without a scale, 1 / sqrt(D).  Declines a v of another width."""
    if not same_dtype(q, k, v) or v.shape != k.shape or q.shape[:-2] != k.shape[:-2]:
        return None
    heads, L, S, D = head_sizes(q, k)
    o, lse = run.empty(q.shape, q.dtype), run.empty(q.shape[:-1], wide(q.dtype))
    sizes = heads, L, S, D, int(is_causal), D**-0.5 if scale is None else float(scale)
    how = geometry.tiles(heads, L, D, 2, lse.dtype.itemsize)
    if rung == 1 or how is None:
        kernel, rows = instance("attention_lse_1", q), geometry.threads(heads * L)
        run.launch("attention.cu", kernel, rows, lse, q, k, *sizes)
        kernel, numbers = instance("attention_forward_1", q), geometry.threads(q.size)
        run.launch("attention.cu", kernel, numbers, o, lse, q, k, v, *sizes)
    else:
        kernel = instance("attention_forward_2", q)
        run.launch("attention.cu", kernel, how, o, lse, q, k, v, *sizes)
    return o, lse


@twin
def attention_backward(
    run: Runner,
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    o: Array,
    lse: Array,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    rung: int = 2,
) -> tuple[Array, Array, Array] | None:
    """(dq, dk, dv) from the gradient of o, from o and from lse; the scores are computed again."""
    if not same_dtype(g, q, k, v, o) or not all_wide(q, lse):
        return None
    if v.shape != k.shape or q.shape[:-2] != k.shape[:-2]:
        return None
    heads, L, S, D = head_sizes(q, k)
    dq, dk, dv = (run.empty(a.shape, a.dtype) for a in (q, k, v))
    delta = run.empty(lse.shape, lse.dtype)
    kernel, warps = instance("attention_delta", q), geometry.threads(heads * L * geometry.WARP)
    run.launch("attention.cu", kernel, warps, delta, g, o, heads * L, D)

    inputs = g, q, k, v, lse, delta
    sizes = heads, L, S, D, int(is_causal), D**-0.5 if scale is None else float(scale)
    by_query = geometry.tiles(heads, L, D, 3, lse.dtype.itemsize)
    by_key = geometry.tiles(heads, S, D, 4, lse.dtype.itemsize)
    if rung == 1 or by_query is None or by_key is None:
        rung, by_query, by_key = 1, geometry.threads(q.size), geometry.threads(k.size)
    run.launch("attention.cu", instance(f"attention_dq_{rung}", q), by_query, dq, *inputs, *sizes)
    kernel = instance(f"attention_dkdv_{rung}", q)
    run.launch("attention.cu", kernel, by_key, dk, dv, *inputs, *sizes)
    return dq, dk, dv


def adamw_step(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    step_number: int,
    lr: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    grad_scale: float = 1.0,
    rung: int = 2,
) -> bool:
    """p <- p (1 - lr wd) - lr m' / (sqrt(v') + eps) in place, and its moments m and v.

    step_number counts from 1; the gradient is first multiplied by grad_scale.  False, and nothing
    written, where dtypes or shapes differ or p, m or v cannot be written as they lie."""
    run, arrays = runner_for(p), (p, m, v, g)
    if run is None or p.dtype.name not in C_NAMES or not same_dtype(*arrays):
        return False
    if any(a.shape != p.shape for a in arrays) or not all(map(run.is_ready, arrays[:3])):
        return False
    rate, root = lr / (1 - b1**step_number), math.sqrt(1 - b2**step_number)
    numbers = grad_scale, 1 - lr * weight_decay, 1 - b1, 1 - b2, rate, root, eps
    kernel, how = instance(f"adamw_step_{rung}", p), elementwise(rung, p)
    with run.on(p):
        run.launch("adamw.cu", kernel, how, p, m, v, run.ready(g), p.size, *map(float, numbers))
    return True


@twin
def philox_dropout(
    run: Runner, x: Array, p: float, seed: int, offset: int, *, rung: int = 2
) -> Array:
    """y = x / (1 - p) where kept, else x * 0; the same call on the gradient is backward.

    Element i is kept where word i % 4 of philox(seed, counter=offset + i // 4) < (1 - p) 2**32: the
    mask of tensorgrad.rng.philox.dropout_mask."""
    y = run.empty(x.shape, x.dtype)
    threshold, scale = math.ceil((1 - p) * 2**32), 0.0 if p == 1 else 1 / (1 - p)
    how = geometry.threads(x.size if rung == 1 else geometry.divide_up(x.size, 4))
    numbers = as_int64(seed), as_int64(offset), threshold, scale
    run.launch("dropout.cu", instance(f"dropout_{rung}", x), how, y, x, x.size, *numbers)
    return y


def as_int64(word: int) -> int:
    """The 64 bits of a number in 0..2**64-1 (or already signed) as a signed number."""
    return int(np.uint64(word % 2**64).astype(np.int64))
