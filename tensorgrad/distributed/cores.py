"""The cores of a machine, shared out among the ranks on it, so that their threads do not fight."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tensorgrad.kernels.cpu import blas, threads


def fair_share(mine: Iterable[int], ranks_on: Mapping[int, int] | Any) -> int:
    """The threads of a rank that may run on the cores `mine`: the sum of 1 / ranks_on[core].

    Ranks bound to cores of their own keep all of those, ranks bound to none divide the machine.
    """
    return max(1, int(sum(1 / ranks_on[core] for core in mine) + 1e-9))


def share_cores(mpi: Any, near: Any) -> None:
    """Give kernels and BLAS this rank's share of the machine, unless OMP_NUM_THREADS says how many.

    near: the ranks on this machine.  OMP_NUM_THREADS is set, for libraries that are loaded later.
    """
    if os.environ.get("OMP_NUM_THREADS") or not hasattr(os, "sched_getaffinity"):
        return
    mine = os.sched_getaffinity(0)
    last = np.array([max(mine)], np.int64)
    near.Allreduce(mpi.IN_PLACE, last, mpi.MAX)
    ranks_on = np.zeros(int(last[0]) + 1, np.int64)
    ranks_on[list(mine)] = 1
    near.Allreduce(mpi.IN_PLACE, ranks_on)
    count = fair_share(mine, ranks_on)
    os.environ["OMP_NUM_THREADS"] = str(count)
    threads.set_num_threads(min(threads.get_num_threads(), count))
    blas.limit_threads(count)

