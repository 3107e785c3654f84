"""Training on many processes and machines: `mpirun -n 4 python train.py`, PyTorch's names.

MPI starts the processes and moves CPU arrays, NCCL moves GPU arrays; nothing of either is here."""

from tensorgrad.distributed.buckets import GradientBuckets
from tensorgrad.distributed.world import (
    ReduceOp,
    all_gather,
    all_reduce,
    barrier,
    broadcast,
    destroy_process_group,
    get_local_rank,
    get_rank,
    get_world_size,
    init_process_group,
    is_initialized,
    is_launched,
    share_json,
)
from tensorgrad.distributed.zero import ZeroRedundancyOptimizer

__all__ = [
    "GradientBuckets",
    "ReduceOp",
    "ZeroRedundancyOptimizer",
    "all_gather",
    "all_reduce",
    "barrier",
    "broadcast",
    "destroy_process_group",
    "get_local_rank",
    "get_rank",
    "get_world_size",
    "init_process_group",
    "is_initialized",
    "is_launched",
    "share_json",
]
