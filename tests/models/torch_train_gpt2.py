"""llm.c's training in plain PyTorch: its shards and its model file read with NumPy alone.

Nothing of tensorgrad is used here.  As a script it prints the losses as JSON.
"""

import json
import math
import sys
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as TF

PARTS = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")


@dataclass
class Plan:
    batch_size: int
    T: int
    accumulation: int
    steps: int
    learning_rate: float
    min_lr: float
    warmup: int
    weight_decay: float
    beta1: float
    beta2: float
    grad_clip: float


def read_shard(path):
    header = np.fromfile(path, "<i4", 256)
    assert header[0] == 20240520 and header[1] == 1
    tokens = np.fromfile(path, "<u2", offset=1024)
    assert len(tokens) == header[2]
    return tokens.astype(np.int64)


def walk(tokens, B, T):
    """train_gpt2.py's DataLoader: B T + 1 tokens, then B T further; of one shard, alone."""
    at = 0
    while True:
        part = torch.from_numpy(tokens[at : at + B * T + 1])
        assert len(part) == B * T + 1, "the shard is too short for the plan"
        yield part[:-1].view(B, T), part[1:].view(B, T)
        at += B * T


def read_model(path):
    """The sizes of llm.c's model file of version 3, and its tensors by GPT-2's names."""
    header = np.fromfile(path, "<i4", 256)
    assert header[0] == 20240326 and header[1] == 3
    T, V, L, H, C, padded = (int(n) for n in header[2:8])
    rest, weights = np.fromfile(path, "<f4", offset=1024), {}

    def take(name, *shape):
        nonlocal rest
        n = math.prod(shape)
        weights[name], rest = torch.tensor(rest[:n].reshape(shape)), rest[n:]

    take("wte", padded, C)
    weights["wte"] = weights["wte"][:V]
    take("wpe", T, C)
    sizes = {"attn.c_attn": (3 * C, C), "attn.c_proj": (C, C), "mlp.c_fc": (4 * C, C),
             "mlp.c_proj": (C, 4 * C)}  # fmt: skip
    for part in PARTS:
        shape = sizes.get(part, (C,))
        for kind, of_one in (("weight", shape), ("bias", shape[:1])):
            for layer in range(L):
                take(f"h.{layer}.{part}.{kind}", *of_one)
    take("ln_f.weight", C)
    take("ln_f.bias", C)
    assert len(rest) == 0
    return (L, H, C), weights


def loss_of(w, sizes, x, y):
    """GPT-2 as a function of its weights: the mean loss of y, (B, T), after x."""
    L, H, C = sizes
    B, T = x.shape

    def linear(a, name):
        return a @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(a, name):
        return TF.layer_norm(a, (C,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    seen = torch.ones(T, T, dtype=torch.bool).tril()
    a = w["wte"][x] + w["wpe"][:T]
    for i in range(L):
        q, k, v = linear(norm(a, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn").split(C, dim=2)
        q, k, v = (t.view(B, T, H, C // H).transpose(1, 2) for t in (q, k, v))
        scores = (q @ k.transpose(2, 3) / math.sqrt(C // H)).masked_fill(~seen, -math.inf)
        mixed = (scores.softmax(3) @ v).transpose(1, 2).reshape(B, T, C)
        a = a + linear(mixed, f"h.{i}.attn.c_proj")
        inside = TF.gelu(linear(norm(a, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc"), approximate="tanh")
        a = a + linear(inside, f"h.{i}.mlp.c_proj")
    logits = norm(a, "ln_f") @ w["wte"].T
    return TF.cross_entropy(logits.view(B * T, -1), y.reshape(B * T))


def train(model_file, shard, plan):
    """{"loss", "norm", "lr"} of each step, and the final weights."""
    sizes, weights = read_model(model_file)
    for p in weights.values():
        p.requires_grad_()
    groups = [
        {"params": [p for p in weights.values() if p.ndim >= 2],
         "weight_decay": plan.weight_decay},
        {"params": [p for p in weights.values() if p.ndim < 2], "weight_decay": 0.0},
    ]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, plan.learning_rate, (plan.beta1, plan.beta2))
    batches, told = walk(read_shard(shard), plan.batch_size, plan.T), []
    for step in range(plan.steps):
        if step < plan.warmup:
            lr = plan.learning_rate * (step + 1) / (plan.warmup + 1)
        else:
            share = (step - plan.warmup) / (plan.steps - plan.warmup)
            lr = plan.min_lr + (plan.learning_rate - plan.min_lr) * (
                0.5 + 0.5 * math.cos(math.pi * share)
            )
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad()
        total = 0.0
        for _ in range(plan.accumulation):
            loss = loss_of(weights, sizes, *next(batches)) / plan.accumulation
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(weights.values(), plan.grad_clip)
        optimizer.step()
        told.append({"loss": total, "norm": norm.item(), "lr": lr})
    return told, {name: p.detach() for name, p in weights.items()}


def evaluate(weights, sizes, shard, B, T, batches):
    """The mean loss of the first batches of a shard."""
    stream = walk(read_shard(shard), B, T)
    with torch.no_grad():
        return sum(loss_of(weights, sizes, *next(stream)).item() for _ in range(batches)) / batches


if __name__ == "__main__":
    model_file, shard, plan = sys.argv[1:]
    print(json.dumps(train(model_file, shard, Plan(**json.loads(plan)))[0]))
