"""NCCL, the GPUs' own network, through CuPy: the collectives of world.py on CuPy arrays.

Work is queued on a stream of its own: a reduction overlaps with what is computed meanwhile."""

from __future__ import annotations

from typing import Any

import numpy as np


class Nccl:
    """One communicator over all ranks; this rank's GPU is the one of its local rank."""

    def __init__(self, world: Any) -> None:
        import cupy
        from cupy.cuda import nccl

        self.cupy, self.nccl = cupy, nccl
        cupy.cuda.Device(world.local_rank % cupy.cuda.runtime.getDeviceCount()).use()
        name = np.frombuffer(bytes(x % 256 for x in nccl.get_unique_id()), np.uint8).copy()
        world.comm.Bcast(name, 0)
        signed = tuple(int(x) for x in name.view(np.int8))
        self.comm = nccl.NcclCommunicator(world.size, signed, world.rank)
        self.size = world.size
        self.stream = cupy.cuda.Stream(non_blocking=True)

    def _dtype(self, array: Any) -> int:
        names = {
            "float16": "NCCL_FLOAT16", "float32": "NCCL_FLOAT32", "float64": "NCCL_FLOAT64",
            "bfloat16": "NCCL_BFLOAT16", "int8": "NCCL_INT8", "uint8": "NCCL_UINT8",
            "int32": "NCCL_INT32", "int64": "NCCL_INT64", "bool": "NCCL_UINT8",
        }  # fmt: skip
        try:
            return int(getattr(self.nccl, names[array.dtype.name]))
        except KeyError:
            raise TypeError(f"nccl: no type for {array.dtype}; convert it first") from None

    def start(self, array: Any, op: str = "sum") -> Any:
        """Begin to reduce a contiguous array in place; answers what `wait` takes."""
        if not array.flags.c_contiguous:
            raise ValueError("nccl: only contiguous arrays can be reduced; use x.contiguous()")
        kind = {"min": self.nccl.NCCL_MIN, "max": self.nccl.NCCL_MAX}.get(op, self.nccl.NCCL_SUM)
        ready = self.cupy.cuda.get_current_stream().record()
        self.stream.wait_event(ready)
        pointer = array.data.ptr
        self.comm.allReduce(pointer, pointer, array.size, self._dtype(array), kind, self.stream.ptr)
        return self.stream.record()

    def wait(self, event: Any) -> None:
        """Let what is queued from here on see the reduced array."""
        self.cupy.cuda.get_current_stream().wait_event(event)

    def all_reduce(self, array: Any, op: str) -> None:
        wide = self.cupy.ascontiguousarray(array)
        self.wait(self.start(wide, op))
        if op == "avg":
            wide /= wide.dtype.type(self.size)
        if wide is not array:
            array[...] = wide

    def broadcast(self, array: Any, src: int) -> None:
        wide = self.cupy.ascontiguousarray(array)
        stream = self.cupy.cuda.get_current_stream()
        self.comm.bcast(wide.data.ptr, wide.size, self._dtype(wide), src, stream.ptr)
        if wide is not array:
            array[...] = wide

    def all_gather(self, array: Any, parts: Any) -> None:
        wide = self.cupy.ascontiguousarray(array)
        stream = self.cupy.cuda.get_current_stream()
        self.comm.allGather(wide.data.ptr, parts.data.ptr, wide.size, self._dtype(wide), stream.ptr)
