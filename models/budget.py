"""What a model costs: parameters, operations and memory by module, and how long a pass takes."""

from __future__ import annotations

import re
import statistics
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backend import device_of
from tensorgrad.models.gpt2 import SIZES, GPT2Config, GPT2LMHeadModel
from tensorgrad.models.layers import Head, undrawn
from tensorgrad.models.modes import evaluating
from tensorgrad.nn.flash import indices
from tensorgrad.nn.moe import MixtureOfExperts
from tensorgrad.nn.quantization import Int8Linear

MIB = 2**20
NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


@dataclass(frozen=True)
class Part:
    """A module: the path to it, its class, and what is in it and in all inside."""

    path: str
    kind: str
    parameters: int
    flops: float  # for one token, forward
    weight_bytes: int


@dataclass(frozen=True)
class Budget:
    """The parts of a model, the whole first, for texts of so many tokens.

    A parameter in several places counts once in each part.  flops are of matrix products, a
    multiplication and an addition two, attention over all keys: the convention of 6 N + 12 L H Q T.
    """

    tokens: int
    parts: tuple[Part, ...]
    cache_bytes: int  # keys and values of one token in all layers
    logits_bytes: int  # of one token

    @property
    def parameters(self) -> int:
        return self.parts[0].parameters

    @property
    def flops(self) -> float:
        """Of a forward pass, for a token."""
        return self.parts[0].flops

    @property
    def training_flops(self) -> float:
        """Forward and backward: each product becomes three."""
        return 3 * self.flops

    @property
    def weight_bytes(self) -> int:
        return self.parts[0].weight_bytes

    @property
    def training_bytes(self) -> int:
        """Weights, gradients and AdamW's two moments, without activations."""
        return 4 * self.weight_bytes

    def __str__(self) -> str:
        rows = [("module", "parameters", "MFLOP/token", "MiB")]
        times = Counter(map(alike, self.parts))
        for part in self.parts:
            if part.path != alike(part).path and alike(part) in self.parts:
                continue  # a block like the first
            name = part.path.rpartition(".")[2]
            title = "  " * (part.path.count(".") + bool(part.path)) + f"{name}: " * bool(part.path)
            again = f", {times[alike(part)]} times" * (times[alike(part)] > 1 and name == "0")
            numbers = f"{part.flops / 1e6:,.2f}", f"{part.weight_bytes / MIB:,.2f}"
            rows.append((title + part.kind + again, f"{part.parameters:,}", *numbers))
        wide = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [f"{a:<{wide[0]}}  " + "  ".join(f"{x:>{w}}" for x, w in zip(row, wide[1:]))
                 for a, *row in rows]  # fmt: skip
        return "\n".join([*lines, "", *self.totals()])

    def totals(self) -> list[str]:
        T, cache = self.tokens, self.cache_bytes * self.tokens / MIB
        return [
            f"training: {self.training_flops / 1e6:,.1f} MFLOP a token at {T:,} tokens, "
            f"{self.training_bytes / MIB:,.1f} MiB of weights, gradients and AdamW's moments",
            f"sampling: {self.flops / 1e6:,.1f} MFLOP a token, {cache:,.1f} MiB of keys and values "
            f"for {T:,} tokens, {self.logits_bytes / MIB:,.2f} MiB of logits a token",
        ]


def alike(part: Part) -> Part:
    """The part at its path with all numbers 0: the same for equal blocks."""
    return replace(part, path=NUMBER.sub("0", part.path))


def budget(model: Any, tokens: int | None = None) -> Budget:
    """What the parts of a model cost; of a model, a GPT2Config, or a size such as "gpt2-xl".

    tokens: the length of the text, n_positions by default.  Nothing is drawn, nothing runs.
    """
    if not isinstance(model, nn.Module):
        with undrawn():
            config = GPT2Config(**SIZES[model]) if isinstance(model, str) else model
            model = GPT2LMHeadModel(config)
    T: int = model.config.n_positions if tokens is None else tokens
    parts = []
    for path, module in model.named_modules():
        sizes = [(p.numel(), p.array.nbytes) for p in module.parameters()]
        count, size = (sum(column) for column in zip(*sizes)) if sizes else (0, 0)
        size += sum(b.array.nbytes for b in module.buffers())  # int8 weights
        if size or not path:
            parts.append(Part(path, type(module).__name__, count, flops_of(module, T), size))
    itemsize = next(model.parameters()).array.itemsize
    heads = [m for m in model.modules() if hasattr(m, "n_kv_head")]
    cached = sum(2 * m.n_kv_head * m.head_size for m in heads)
    return Budget(T, tuple(parts), cached * itemsize, model.config.vocab_size * itemsize)


def flops_of(module: Any, tokens: int) -> float:
    """The operations in a module for one token of a text of so many; of experts, those chosen."""
    if isinstance(module, MixtureOfExperts):
        share = module.router.top_k / len(module.experts)
        return flops_of(module.router, tokens) + share * flops_of(module.experts, tokens)
    own = 0.0
    if isinstance(module, nn.Linear | Head | Int8Linear):
        own = 2.0 * module.weight.numel()
    elif hasattr(module, "n_kv_head"):
        own = 4.0 * keys_of(module, tokens) * module.n_head * module.head_size  # q kT and p v
    return own + sum(flops_of(child, tokens) for child in module.children())


def keys_of(module: Any, tokens: int) -> float:
    """The keys that are computed for a query, on average: all, or those of the pattern's blocks."""
    pattern = getattr(module, "pattern", None)
    if pattern is None:
        return tokens
    pieces = pattern.pieces(tokens, tokens)
    pairs = sum(
        len(indices(rows)) * sum(len(indices(cols)) for cols, _ in blocks)
        for rows, blocks in pieces
    )
    return float(pairs / tokens)


@dataclass(frozen=True)
class Latency:
    """Seconds of a forward pass over (B, T) tokens, of so many measured after the warm-up."""

    batch_size: int
    tokens: int
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def tokens_per_second(self) -> float:
        return self.batch_size * self.tokens / self.median

    def __str__(self) -> str:
        low, high = min(self.seconds), max(self.seconds)
        return (
            f"forward, {self.batch_size} x {self.tokens} tokens: median {1e3 * self.median:.2f} ms "
            f"of {len(self.seconds)} ({1e3 * low:.2f} to {1e3 * high:.2f}), "
            f"{self.tokens_per_second:,.0f} tokens/s"
        )


def latency(
    model: Any, tokens: int = 128, batch_size: int = 1, repeats: int = 10, warmup: int = 3
) -> Latency:
    """How long a forward pass takes: in evaluation mode, without gradients, where the model lies.

    The first `warmup` passes are not measured; a GPU has finished when the clock is read.
    """
    if repeats < 1 or warmup < 0:
        raise ValueError(
            f"latency: repeats must be at least 1 and warmup at least 0, they are {repeats} and "
            f"{warmup}"
        )
    weight = next(model.parameters()).array
    ids = tg.zeros(batch_size, tokens, dtype=tg.int64, device=device_of(weight))
    seconds = []
    with evaluating(model), tg.no_grad():
        for i in range(warmup + repeats):
            start = time.perf_counter()
            model(ids)
            if ids.device.type == "cuda":
                tg.cuda.synchronize(ids.device)
            if i >= warmup:
                seconds.append(time.perf_counter() - start)
    return Latency(batch_size, tokens, tuple(seconds))
