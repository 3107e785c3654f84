"""NCCL, the GPUs' own network, through CuPy: the collectives of world.py on CuPy arrays.

All is queued on a stream of its own: a reduction overlaps with what is computed meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

ID_BYTES = 128


class Nccl:
    """One communicator over all ranks, on the GPU that is current when it is made."""

    def __init__(self, world: Any) -> None:
        import cupy
        from cupy.cuda import nccl

        if not nccl.available:
            raise RuntimeError(
                "nccl: CuPy finds no libnccl; pip install nvidia-nccl-cu12, or -cu13 with CUDA 13"
            )
        self.cupy, self.nccl, self.world = cupy, nccl, world
        self.device = int(cupy.cuda.runtime.getDevice())
        name = np.zeros(ID_BYTES, np.uint8)
        if world.rank == 0:  # each id starts a thread that listens
            name[:] = np.frombuffer(nccl.get_unique_id(), np.uint8)
        world.together().Bcast(name, 0)
        self.comm = nccl.NcclCommunicator(world.size, name.tobytes(), world.rank)
        self.stream = cupy.cuda.Stream(non_blocking=True)

    def start(self, array: Any, op: str = "sum") -> Any:
        """Begin to reduce a contiguous array in place; answers what `wait` takes.

        Until then nobody may write to the array or let go of it.
        """
        if not array.flags.c_contiguous:
            raise ValueError("nccl: only contiguous arrays can be reduced; use x.contiguous()")
        kind = {"min": self.nccl.NCCL_MIN, "max": self.nccl.NCCL_MAX}.get(op, self.nccl.NCCL_SUM)
        dtype, pointer = self._dtype(array), array.data.ptr

        def reduce(stream: int) -> None:
            self.comm.allReduce(pointer, pointer, array.size, dtype, kind, stream)

        return self._queue(reduce, array)

    def wait(self, event: Any) -> None:
        """Let what is computed from here on see the outcome."""
        self.cupy.cuda.get_current_stream().wait_event(event)

    def all_reduce(self, array: Any, op: str) -> None:
        """array = sum (avg, min, max) over the ranks, in place; 16-bit floats add in float32."""
        half = array.dtype.itemsize == 2 and array.dtype.kind not in "iu"
        wide = self.cupy.ascontiguousarray(array).reshape(-1)
        wide = wide.astype(np.float32) if half else wide
        self.wait(self.start(wide, op))
        if op == "avg":
            wide = wide / wide.dtype.type(self.world.size)
        if wide.data.ptr != array.data.ptr:
            array[...] = wide.reshape(array.shape)

    def broadcast(self, array: Any, src: int) -> None:
        """array = that of rank src, in place."""
        wide = self.cupy.ascontiguousarray(array).reshape(-1)
        self.broadcast_all([(wide, src)])
        if wide.data.ptr != array.data.ptr:
            array[...] = wide.reshape(array.shape)

    def broadcast_all(self, parts: Iterable[tuple[Any, int]]) -> None:
        """Several contiguous arrays at once, each from its own rank."""
        parts = list(parts)

        def send(stream: int) -> None:
            self.nccl.groupStart()
            for part, src in parts:
                self.comm.bcast(part.data.ptr, part.nbytes, self.nccl.NCCL_UINT8, src, stream)
            self.nccl.groupEnd()

        self.wait(self._queue(send, *(part for part, _ in parts)))

    def all_gather(self, array: Any, parts: Any) -> None:
        """parts[r] = the array of rank r; both may be of any dtype."""
        wide = self.cupy.ascontiguousarray(array).reshape(-1)
        size, uint8 = wide.nbytes, self.nccl.NCCL_UINT8

        def gather(stream: int) -> None:
            self.comm.allGather(wide.data.ptr, parts.data.ptr, size, uint8, stream)

        self.wait(self._queue(gather, wide, parts))

    def _queue(self, call: Callable[[int], None], *arrays: Any) -> Any:
        """`call` on the network's stream, behind all that was computed so far; the event after."""
        for array in arrays:
            if array.device.id != self.device:
                raise ValueError(
                    f"nccl: an array is on cuda:{array.device.id} and this rank's GPU is "
                    f"cuda:{self.device}; move the model there"
                )
        self.world.together()
        self.stream.wait_event(self.cupy.cuda.get_current_stream().record())
        call(self.stream.ptr)
        return self.stream.record()

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
