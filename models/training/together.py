"""What the processes of a run do together beyond gradients: sums, states, whether to stop.

Alone, each of these is trivial."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import distributed as dist
from tensorgrad.dtypes import as_dtype
from tensorgrad.packing import flatten, unflatten
from tensorgrad.random import generator_for


def is_chief() -> bool:
    """Whether this process is the one that prints and writes files."""
    return dist.get_rank() == 0


def device_here(device: str) -> str:
    """Where this process computes: of several on a machine, each has a GPU of its own."""
    if device == "cuda" and dist.get_world_size() > 1:
        return f"cuda:{dist.get_local_rank() % tg.cuda.device_count()}"
    return device


def summed(values: Any) -> Any:
    """The sum over all processes, of a number or of the numbers in an array, in float64."""
    array = np.array(values, np.float64, ndmin=1)
    dist.all_reduce(tg.from_numpy(array))
    return array if np.ndim(values) else float(array[0])


def agreed(value: float) -> float:
    """The mean of the processes' numbers, the same on all; alone, the number itself."""
    size = dist.get_world_size()
    return value if size == 1 else summed(value) / size


def largest(value: int) -> int:
    """The largest of the processes' numbers."""
    array = np.array([value], np.int64)
    dist.all_reduce(tg.from_numpy(array), dist.ReduceOp.MAX)
    return int(array[0])


def shared(tree: Any) -> Any:
    """The chief's tree of arrays, numbers and words, on every process."""
    if dist.get_world_size() == 1:
        return tree
    found, rest = flatten(tree) if is_chief() else ({}, None)
    told = [[name, array.dtype.name, array.shape] for name, array in found.items()]
    names, rest = dist.share_json([told, rest])
    arrays = {}
    for name, dtype, shape in names:
        array = found[name] if is_chief() else np.empty(shape, as_dtype(dtype))
        tensor = tg.from_numpy(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        dist.broadcast(tensor, 0)
        arrays[name] = tensor.array.view(array.dtype).reshape(shape)
    return unflatten(arrays, rest)


def generator_states(device: str) -> list[dict[str, Any]]:
    """Where the default generators of every process are, which dropout draws from."""
    mine = {kind: generator_for(kind).get_state() for kind in kinds(device)}
    columns = {
        kind: [t.numpy() for t in dist.all_gather(tg.from_numpy(state))]
        for kind, state in mine.items()
    }
    return [
        {kind: states[rank] for kind, states in columns.items()}
        for rank in range(dist.get_world_size())
    ]


def load_generator_states(states: list[dict[str, Any]], device: str, seed: int) -> None:
    """Put them there.  A process that was not there before begins a stream of its own."""
    rank = dist.get_rank()
    for kind in kinds(device):
        saved = states[rank].get(kind) if rank < len(states) else None
        if saved is None:
            generator_for(kind).manual_seed(seed)
        else:
            generator_for(kind).set_state(saved)


def kinds(device: Any) -> list[str]:
    """Of the default generators that a model on this device draws from."""
    return sorted({"cpu", tg.device(device).type})
