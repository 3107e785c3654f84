"""A CuPy of lists of deferred work: streams run late, in an order that only events constrain.

What waits for the wrong event, or for none, computes with numbers that are not there yet."""

import sys
import types

import numpy as np

RANKS, NEAR_ID = 2, bytes(range(128, 256))


class Stream:
    """Work not yet done.  An eager stream runs what it can at once, a lazy one when it must."""

    eager = False
    next_ptr = 1

    def __init__(self, non_blocking=False):
        self.non_blocking, self.work = non_blocking, []
        self.ptr = Stream.next_ptr = Stream.next_ptr + 1
        gpu.streams[self.ptr] = self

    def push(self, call):
        self.work.append(call)
        if self.eager:
            self.run()

    def run(self):
        while self.work:
            self.work.pop(0)()

    def record(self):
        done = []
        self.push(lambda: done.append(True))
        return types.SimpleNamespace(stream=self, done=done)

    def wait_event(self, event):
        def wait():
            while not event.done:
                event.stream.work.pop(0)()

        self.push(wait)


class ndarray:
    """An array whose every operation is queued on the current stream."""

    def __init__(self, a):
        self.a = a
        known = gpu.arrays.get(self.data.ptr)
        if known is None or known.size < a.size:  # not the view that begins where its base does
            gpu.arrays[self.data.ptr] = a

    dtype = property(lambda self: self.a.dtype)
    shape = property(lambda self: self.a.shape)
    size = property(lambda self: self.a.size)
    nbytes = property(lambda self: self.a.nbytes)
    ndim = property(lambda self: self.a.ndim)
    flags = property(lambda self: self.a.flags)
    base = property(lambda self: None if self.a.base is None else self)
    strides = property(lambda self: self.a.strides)
    itemsize = property(lambda self: self.a.itemsize)
    device = types.SimpleNamespace(id=1)

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.a.__array_interface__["data"][0])

    def reshape(self, *shape):
        return ndarray(self.a.reshape(*shape))

    def __getitem__(self, key):
        return ndarray(self.a[key])

    def __setitem__(self, key, value):
        gpu.now.push(lambda: self.a.__setitem__(key, getattr(value, "a", value)))

    def __imul__(self, factor):
        gpu.now.push(lambda: np.multiply(self.a, factor, out=self.a))
        return self

    def __truediv__(self, number):
        return self._later(lambda a: a / number, self.a.dtype)

    def astype(self, dtype):
        return self._later(lambda a: a, dtype)

    def _later(self, f, dtype):
        out = ndarray(np.full(self.shape, 99, dtype))
        gpu.now.push(lambda: out.a.__setitem__(..., f(self.a)))
        return out

    def get(self):
        gpu.now.run()
        return self.a.copy()

    def tolist(self):
        return self.get().tolist()


ndarray.__module__ = "cupy"


class Communicator:
    """Rank 0 of two; the other one always brings the same, plus one hundred."""

    def __init__(self, size, name, rank):
        if not isinstance(name, bytes):
            raise TypeError(f"Argument 'commId' has incorrect type (expected bytes, got {name!r})")
        self.made = size, name, rank

    def allReduce(self, sent, received, count, dtype, op, stream):
        assert sent == received

        def reduce():
            a = self.flat(sent, count, dtype)
            a[...] = {0: a + (a + 100), 2: a + 100, 3: a}[op]

        gpu.streams[stream].push(reduce)

    def bcast(self, pointer, count, dtype, src, stream):
        assert gpu.in_group and dtype == nccl.NCCL_UINT8
        if src == 1:
            gpu.streams[stream].push(lambda: self.bytes(pointer, count).fill(7))

    def allGather(self, sent, received, count, dtype, stream):
        assert dtype == nccl.NCCL_UINT8

        def gather():
            both = self.bytes(received, 2 * count)
            both[:count] = self.bytes(sent, count)
            both[count:] = 7

        gpu.streams[stream].push(gather)

    def bytes(self, pointer, count):
        a = gpu.arrays[pointer].reshape(-1).view(np.uint8)
        assert a.size >= count
        return a[:count]

    def flat(self, pointer, count, dtype):
        a = gpu.arrays[pointer].reshape(-1)
        assert a.size >= count and a.dtype.name == nccl.names[dtype]
        return a[:count]


def use(number):
    gpu.device = number


def in_group(inside):
    assert gpu.in_group is not inside
    gpu.in_group = inside


gpu = types.SimpleNamespace(streams={}, arrays={}, device=None, in_group=False, now=None)
nccl = types.ModuleType("cupy.cuda.nccl")
nccl.available, nccl.names = True, {7: "float32", 8: "float64", 4: "int64"}
nccl.NCCL_UINT8, nccl.NCCL_FLOAT16, nccl.NCCL_BFLOAT16 = 1, 6, 9
nccl.NCCL_FLOAT32, nccl.NCCL_FLOAT64, nccl.NCCL_INT64 = 7, 8, 4
nccl.NCCL_SUM, nccl.NCCL_MAX, nccl.NCCL_MIN = 0, 2, 3
nccl.NcclCommunicator, nccl.get_unique_id = Communicator, lambda: NEAR_ID
nccl.groupStart, nccl.groupEnd = lambda: in_group(True), lambda: in_group(False)


def install(monkeypatch, eager):
    """`import cupy` gives this; the streams made from here on are eager or lazy as told."""
    cupy, cuda = types.ModuleType("cupy"), types.ModuleType("cupy.cuda")
    gpu.streams, gpu.arrays, gpu.device, gpu.in_group = {}, {}, 1, False
    gpu.now = Stream()
    gpu.now.eager = eager == "compute"

    def network_stream(non_blocking=False):
        stream = Stream(non_blocking)
        stream.eager = eager == "network"
        return stream

    cuda.nccl, cuda.Stream, cuda.get_current_stream = nccl, network_stream, lambda: gpu.now
    cuda.runtime = types.SimpleNamespace(getDevice=lambda: gpu.device, getDeviceCount=lambda: 4)
    cupy.cuda, cupy.ndarray = cuda, ndarray
    cupy.ascontiguousarray = lambda x: x if x.flags.c_contiguous else ndarray(x.a.copy())
    cupy.zeros = lambda shape, dtype: ndarray(np.zeros(shape, dtype))
    cupy.empty = lambda shape, dtype: ndarray(np.empty(shape, dtype))
    for name, module in (("cupy", cupy), ("cupy.cuda", cuda), ("cupy.cuda.nccl", nccl)):
        monkeypatch.setitem(sys.modules, name, module)
    return cupy
