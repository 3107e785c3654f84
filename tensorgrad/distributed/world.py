"""The processes of a job, and what they do together: MPI's world under PyTorch's names.

Each process is a rank; a job of one rank needs no MPI, and every function is then trivial."""

from __future__ import annotations

import json
import os
import sys
import time
from types import TracebackType
from typing import Any, NoReturn

import numpy as np

from tensorgrad import backend as gpus
from tensorgrad.backend import xp_of
from tensorgrad.distributed.cores import share_cores
from tensorgrad.distributed.leaving import Attendance
from tensorgrad.dtypes import is_differentiable
from tensorgrad.memory import stamp
from tensorgrad.tensor import Tensor

LAUNCHERS = (
    "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "MPI_LOCALNRANKS",
    "SLURM_STEP_NUM_TASKS",
)  # fmt: skip
"""Variables that tell a process how many there are (MPICH, Open MPI, MVAPICH, Slurm's srun)."""


class ReduceOp:
    """How the tensors of all ranks become one."""

    SUM, AVG, MIN, MAX = "sum", "avg", "min", "max"


class World:
    """rank (0 ... size - 1), local_rank (that among the ranks of this machine), MPI's handle."""

    def __init__(self, mpi: Any = None) -> None:
        self.mpi, self.process = mpi, os.getpid()
        self.comm: Any = None if mpi is None else mpi.COMM_WORLD
        self.rank: int = 0 if self.comm is None else self.comm.Get_rank()
        self.size: int = 1 if self.comm is None else self.comm.Get_size()
        self.local_rank = 0
        self.attendance: Attendance | None = None
        if self.comm is not None and self.size > 1:
            near = self.comm.Split_type(mpi.COMM_TYPE_SHARED)
            self.local_rank = near.Get_rank()
            share_cores(mpi, near)
            near.Free()
            self.attendance = Attendance(mpi, self.comm, abort)
        self._nccl: Any = None

    def together(self) -> Any:
        """MPI's handle, for one call that every rank makes."""
        if self.attendance is not None:
            self.attendance.begin()
        return self.comm

    @property
    def nccl(self) -> Any:
        """The GPUs' own network, joined when first used."""
        if self._nccl is None:
            from tensorgrad.distributed.nccl import Nccl

            self._nccl = Nccl(self)
        return self._nccl


_world: World | None = None


def is_launched() -> bool:
    """Whether this process is one of several that mpirun started."""
    return any(os.environ.get(name, "1") not in ("", "1") for name in LAUNCHERS)


def init_process_group(backend: str | None = None) -> World:
    """Join the job that mpirun started; alone, without mpirun, a job of one rank.

    Processes meet through MPI, which needs mpi4py; tensors on a GPU go through NCCL.  backend:
    "nccl" insists on a GPU, "mpi" looks for none; by default device "cuda" is this rank's own GPU
    where there is one.  Each rank's kernels take its share of the machine's cores, unless
    OMP_NUM_THREADS says how many.  From here on a rank that fails, or that ends while others wait
    for it, ends the whole job with a message.
    """
    global _world
    if backend not in (None, "mpi", "nccl"):
        raise ValueError(f"init_process_group: backend must be 'mpi' or 'nccl', not {backend!r}")
    if _world is not None:
        return _world
    if not is_launched():
        _world = World()
        return _world
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise RuntimeError(
            "init_process_group: mpirun started several processes, but mpi4py is not there "
            f"({error}); pip install tensorgrad[mpi]"
        ) from None
    _world = World(MPI)
    if _world.size > 1:
        sys.excepthook = _end_the_job
    if backend == "nccl" or (backend is None and gpus.is_available()):
        cupy = gpus.cupy()
        cupy.cuda.Device(_world.local_rank % cupy.cuda.runtime.getDeviceCount()).use()
    return _world


def _end_the_job(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> NoReturn:
    """One rank failed: say which and why, then end all, for the others wait for it."""
    sys.__excepthook__(kind, error, trace)
    abort(f"{kind.__name__}: {error}", 130 if kind is KeyboardInterrupt else 1)


def abort(why: str, status: int = 1) -> NoReturn:
    """End every rank of the job at once; the others would wait for this one for ever."""
    print(f"rank {get_rank()} of {get_world_size()} ended the job: {why}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    if _world is not None and _world.comm is not None and os.getpid() == _world.process:
        time.sleep(0.3)  # MPICH's launcher loses what it has not yet read when an abort comes
        _world.comm.Abort(status)
    os._exit(status)


def destroy_process_group() -> None:
    """Leave the job: what follows is a process by itself."""
    global _world
    if _world is not None and _world.attendance is not None:
        _world.together().Barrier()
        _world.attendance.close()
        sys.excepthook = sys.__excepthook__
    _world = None


def is_initialized() -> bool:
    return _world is not None


def world() -> World:
    """The job, joined if it was not yet."""
    return _world or init_process_group()


def get_rank() -> int:
    return 0 if _world is None else _world.rank


def get_world_size() -> int:
    return 1 if _world is None else _world.size


def get_local_rank() -> int:
    """The rank among those of this machine: the number of its GPU."""
    return 0 if _world is None else _world.local_rank


def barrier() -> None:
    """Wait until every rank is here."""
    if get_world_size() > 1:
        world().together().Barrier()


# ---- together


def all_reduce(tensor: Tensor, op: str = ReduceOp.SUM) -> None:
    """tensor = sum (or mean, least, largest) of the ranks' tensors, in place, the same on all.

    16-bit floats are added in float32.  ValueError for another op.
    """
    if op not in ("sum", "avg", "min", "max"):
        raise ValueError(f"all_reduce: op must be one of ReduceOp's, not {op!r}")
    w = world()
    if w.size == 1:
        return
    array = tensor.array
    if not isinstance(array, np.ndarray):
        w.nccl.all_reduce(array, op)
    else:
        half = is_differentiable(array.dtype) and array.dtype.itemsize == 2
        widened = np.float32 if half else np.uint8 if array.dtype == bool else None
        wide = np.ascontiguousarray(array, widened)
        kind = {"min": w.mpi.MIN, "max": w.mpi.MAX}.get(op, w.mpi.SUM)
        w.together().Allreduce(w.mpi.IN_PLACE, wide, kind)
        array[...] = wide / wide.dtype.type(w.size) if op == "avg" else wide
    stamp(array)


def broadcast(tensor: Tensor, src: int = 0) -> None:
    """tensor = that of rank src, in place."""
    w = world()
    if w.size == 1:
        return
    array = tensor.array
    if not isinstance(array, np.ndarray):
        w.nccl.broadcast(array, src)
    else:
        bytes_ = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        w.together().Bcast(bytes_, src)
        array[...] = bytes_.view(array.dtype).reshape(array.shape)
    stamp(array)


def all_gather(tensor: Tensor) -> list[Tensor]:
    """The tensors of all ranks, of one shape and dtype, in the order of the ranks."""
    w = world()
    if w.size == 1:
        return [Tensor(tensor.array.copy())]
    array = tensor.array
    xp = xp_of(array)
    parts = xp.empty((w.size, *array.shape), array.dtype)
    if xp is not np:
        w.nccl.all_gather(array, parts)
    else:
        sent = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        w.together().Allgather(sent, parts.reshape(-1).view(np.uint8))
    return [Tensor(parts[rank, ...]) for rank in range(w.size)]


def share_json(value: Any, src: int = 0) -> Any:
    """What rank src has, as JSON carries it: numbers (nan and inf too), texts, lists, dictionaries.

    JSON makes lists of tuples and texts of keys, with one rank as with many.  TypeError for values
    of other kinds.
    """
    w = world()
    data = np.zeros(0, np.uint8)
    if w.rank == src:
        try:
            data = np.frombuffer(json.dumps(value).encode(), np.uint8).copy()
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"share_json: {error}; give numbers, texts, lists and dictionaries of them"
            ) from None
    if w.size == 1:
        return json.loads(data.tobytes().decode())
    length = np.array([data.size], np.int64)
    w.together().Bcast(length, src)
    if w.rank != src:
        data = np.empty(int(length[0]), np.uint8)
    w.together().Bcast(data, src)
    return json.loads(data.tobytes().decode())
