"""NCCL's calls against a CuPy that checks them: arguments as CuPy 14 has them, and whether whatever
runs late runs late enough.  That the network itself works can only be seen on GPUs."""

import types

import ml_dtypes
import numpy as np
import pytest

from tensorgrad.distributed import buckets, nccl, world
from tensorgrad.tensor import Tensor
from tests.distributed import fake_cupy
from tests.distributed.fake_cupy import gpu, ndarray


class Comm:
    """MPI's handle of rank 0: it hands its own id on."""

    def Bcast(self, array, src):
        assert src == 0 and bytes(array) == fake_cupy.NEAR_ID
        self.sent = bytes(array)


@pytest.fixture(params=["network", "compute"])
def job(request, monkeypatch):
    """Rank 0 of two on GPU 1; whichever stream is not eager runs as late as it may."""
    fake_cupy.install(monkeypatch, request.param)
    calls = []
    comm = Comm()
    w = types.SimpleNamespace(rank=0, size=2, together=lambda: calls.append(1) or comm)
    w.nccl, w.calls = nccl.Nccl(w), calls
    monkeypatch.setattr(world, "_world", w)
    return w


def on_gpu(values, dtype=np.float32):
    """An array that is computed late: until then it holds 99."""
    a = np.array(values, dtype)
    out = ndarray(np.full_like(a, 99))
    gpu.now.push(lambda: out.a.__setitem__(..., a))
    return out


def test_the_id_goes_round_as_bytes(job):
    assert job.nccl.comm.made == (2, fake_cupy.NEAR_ID, 0)
    assert job.nccl.stream.non_blocking and job.nccl.device == 1


@pytest.mark.parametrize(
    "op, expected", [("sum", [102, 104]), ("avg", [51, 52]), ("min", [1, 2]), ("max", [101, 102])]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16, np.float16])
def test_all_reduce(job, op, expected, dtype):
    x = on_gpu([1, 2], dtype)
    where = x.data.ptr
    job.nccl.all_reduce(x, op)  # 16 bits: Communicator.flat accepts float32 alone
    assert x.tolist() == expected and x.data.ptr == where and x.dtype == dtype


def test_a_strided_array_and_a_single_number(job):
    whole = ndarray(np.arange(6.0).reshape(2, 3))
    job.nccl.all_reduce(column := whole[:, 1], "sum")
    assert column.tolist() == [102, 108] and whole.tolist()[0][0] == 0
    x = on_gpu(5.0)
    job.nccl.all_reduce(x, "avg")
    assert x.tolist() == 55


def test_broadcasts_go_as_bytes_in_one_group(job):
    a, b = on_gpu([1, 2], np.int64), on_gpu([3], np.float16)
    job.nccl.broadcast_all([(a, 0), (b, 1)])
    assert a.tolist() == [1, 2] and b.get().view(np.uint8).tolist() == [7, 7]
    assert not gpu.in_group


def test_all_gather(job):
    parts = ndarray(np.full((2, 3), -1, np.int16))
    job.nccl.all_gather(on_gpu([1, 2, 3], np.int16), parts)
    assert parts.tolist() == [[1, 2, 3], [0x0707] * 3]


def test_a_bucket_averages_behind_the_gradients_and_ahead_of_the_optimiser(job):
    params = [Tensor(ndarray(np.zeros(n, np.float32))) for n in (2, 3)]
    bucket = buckets.Bucket(params)
    params[0].grad = Tensor(on_gpu([1, 2]))
    bucket.take(0)
    bucket.start()
    unrelated = on_gpu([5.0])  # computed meanwhile
    bucket.finish()
    step = ndarray(np.zeros(2, np.float32))
    step[...] = params[0].grad.array  # what the optimiser reads
    assert step.tolist() == [51, 52] and unrelated.tolist() == [5]
    assert params[1].grad.tolist() == [50, 50, 50]  # the other rank has one


def test_every_call_counts_as_one_that_the_others_must_join(job):
    before = len(job.calls)
    job.nccl.all_reduce(on_gpu([1]), "sum")
    job.nccl.broadcast(on_gpu([1]), 0)
    assert len(job.calls) == before + 2


def test_what_cannot_be(job, monkeypatch):
    far = on_gpu([1])
    far.device = types.SimpleNamespace(id=0)
    with pytest.raises(ValueError, match=r"an array is on cuda:0 and this rank's GPU is cuda:1"):
        job.nccl.start(far)
    with pytest.raises(ValueError, match=r"only contiguous arrays"):
        job.nccl.start(ndarray(np.zeros((2, 2), np.float32))[:, 1])
    with pytest.raises(TypeError, match=r"nccl: no type for uint16"):
        job.nccl.start(on_gpu([1], np.uint16))
    monkeypatch.setattr(fake_cupy.nccl, "available", False)
    with pytest.raises(RuntimeError, match=r"finds no libnccl; pip install nvidia-nccl-cu12"):
        nccl.Nccl(job)
