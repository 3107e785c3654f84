"""The emulator itself: what it must catch, and what it must get right."""

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tensorgrad.kernels.cuda import geometry
from tests.kernels.emulator import EmulatorError, Kernels, poisoned, why_not

Array = np.ndarray[Any, Any]

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
BF16, F16 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16)

PLANTED = """
#include "common.cuh"
template <typename T> __global__ void divergent(T* y) {
    if (threadIdx.x < 40) __syncthreads();
    y[threadIdx.x] = T();
}
template <typename T> __global__ void returns_early(T* y, i64 n) {
    if (threadIdx.x >= n) return;
    Acc<T> sum = warp_sum(Acc<T>(1));
    store(y[threadIdx.x], sum);
}
template <typename T> __global__ void two_lines(T* y) {
    if (threadIdx.x < 32) __syncthreads();
    else
        __syncthreads();
    y[threadIdx.x] = T();
}
template <typename T> __global__ void race(T* y) {  // without the barrier that `reversed` has
    Acc<T>* memory = shared<Acc<T>>();
    memory[threadIdx.x] = threadIdx.x;
    store(y[threadIdx.x], memory[blockDim.x - 1 - threadIdx.x]);
}
template <typename T> __global__ void reversed(T* y) {
    Acc<T>* memory = shared<Acc<T>>();
    memory[threadIdx.x] = threadIdx.x;
    __syncthreads();
    store(y[threadIdx.x], memory[blockDim.x - 1 - threadIdx.x]);
}
template <typename T> __global__ void turns(T* y, i64 barrier) {  // twice through the same memory
    Acc<T>* memory = shared<Acc<T>>();
    memory[threadIdx.x] = threadIdx.x;
    __syncthreads();
    Acc<T> mine = warp_sum(memory[blockDim.x - 1 - threadIdx.x]);
    if (barrier) __syncthreads();
    memory[threadIdx.x] = 0;
    __syncthreads();
    store(y[threadIdx.x], mine + memory[blockDim.x - 1 - threadIdx.x]);
}
template <typename T> __global__ void overrun(T* y, i64 n) {
    if (threadIdx.x < n) store(y[threadIdx.x], 1);
}
template <typename T> __global__ void overread(T* y, const T* x, i64 n) {
    if (threadIdx.x < n) y[threadIdx.x] = x[threadIdx.x + 1];
}
template <typename T> __global__ void round(T* y, const Acc<T>* x, i64 n) {
    i64 i = thread_number();
    if (i < n) store(y[i], x[i]);
}
template <typename T> __global__ void widen(Acc<T>* y, const T* x, i64 n) {
    i64 i = thread_number();
    if (i < n) y[i] = load(x[i]);
}
template <typename T> __global__ void sums(T* sum, T* most, const T* x) {
    Acc<T>* part = shared<Acc<T>>();
    store(sum[threadIdx.x], block_sum(load(x[threadIdx.x]), part));
    store(most[threadIdx.x], block_max(load(x[threadIdx.x]), part));
}
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    if why_not():
        pytest.skip(why_not())
    file = tmp_path_factory.mktemp("planted") / "planted.cu"
    file.write_text(PLANTED, encoding="utf-8")
    return Kernels([file], file.parent)


BLOCK = geometry.Geometry((1, 1, 1), (64, 1, 1), 64 * 4)


def launched(planted: Kernels, name: str, *args: Any, seed: int = 0, how: Any = BLOCK) -> Array:
    y = poisoned(64 * 4).view(F32)
    planted.launch(f"{name}<float>", how, (y, *args), seed)
    return y


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "name, args, words",
    [
        ("divergent", (), r"divergent .* \(0, 0, 0\): 24 threads have returned; 40 .*:4$"),
        ("returns_early", (40,), r"divergent .* 8 threads wait for their warp at .*common.cuh"),
        ("two_lines", (), r"32 threads wait for their block at .*:13; 32 .*:15$"),
        ("overrun", (65,), "a write outside of an array"),
    ],
)
def test_emulator_catches(planted, name, args, words, seed):
    how = BLOCK if name != "overrun" else geometry.Geometry((1, 1, 1), (96, 1, 1))
    with pytest.raises(EmulatorError, match=words):
        launched(planted, name, *args, seed=seed, how=how)


def test_emulator_shows_races_and_strays(planted):
    order = np.arange(64, dtype=F32)[::-1]
    runs = [launched(planted, "race", seed=seed) for seed in range(3)]
    assert all(np.isnan(run).any() for run in runs)  # where the other thread had yet to write
    for seed in range(3):
        np.testing.assert_array_equal(launched(planted, "reversed", seed=seed), order)
    sums = np.repeat([sum(range(32, 64)), sum(range(32))], 32)
    for seed in range(3):
        np.testing.assert_array_equal(launched(planted, "turns", 1, seed=seed), sums)
    late = [launched(planted, "turns", 0, seed=seed) for seed in (1, 2)]  # one warp runs ahead
    assert all((run != sums).any() for run in late)
    short = BLOCK._replace(shared=32 * 4)
    with pytest.raises(EmulatorError, match="a write past the 128 bytes of shared memory"):
        launched(planted, "reversed", how=short)
    assert np.isnan(launched(planted, "overread", np.zeros(64, F32), 64)[63])


def test_emulator_checks_arguments(planted):
    x = np.zeros(64, F32)
    for args, words in [
        ((x.astype(F64), 64), r"overread<float>: argument 1 is float64\*, not const float32\*"),
        ((x, 64.0), "argument 2 is float64, not int64"),
        ((x, None), "argument 2 is None, not int64"),
        ((x,), "2 arguments, not 3"),
        ((np.zeros((64, 2), F32)[:, 0], 64), "argument 1 is not contiguous or not aligned"),
        ((poisoned(65 * 4).view(F32)[1:], 64), "argument 1 is not contiguous or not aligned"),
    ]:
        with pytest.raises(EmulatorError, match=words):
            launched(planted, "overread", *args)


@pytest.mark.parametrize("dtype, c", [(BF16, "bf16"), (F16, "f16")])
def test_half_types_convert_as_numpy_does(planted, dtype, c):
    """Every value; when rounding, also the points half-way, their neighbours, and overflow."""
    every = np.arange(2**16, dtype=np.uint16).view(dtype)
    widened = np.zeros(2**16, F32)
    planted.launch(f"widen<{c}>", geometry.threads(2**16, 1024), (widened, every, 2**16))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(widened, every.astype(F32))
        finite = np.unique(widened[np.isfinite(widened)])
        half = finite[:-1] / 2 + finite[1:] / 2
        beside = [np.nextafter(half, F32.type(to)) for to in (-math.inf, math.inf)]
        beyond = np.array([65519.99, 65520, 3.3e38, 3.4e38], F32)
        x = np.concatenate([widened, half, *beside, beyond, -beyond])
        rounded = np.zeros(x.size, dtype)
        planted.launch(f"round<{c}>", geometry.threads(x.size, 1024), (rounded, x, x.size))
        np.testing.assert_array_equal(rounded.astype(F32), x.astype(dtype).astype(F32))


def test_reductions_over_a_block(planted):
    x = np.random.default_rng(0).standard_normal(1024)
    for warps in (1, 2, 31, 32):
        n = 32 * warps
        total, most = np.zeros(n), np.zeros(n)
        how = geometry.Geometry((1, 1, 1), (n, 1, 1), 32 * 8)
        planted.launch("sums<double>", how, (total, most, x[:n].copy()), seed=warps)
        np.testing.assert_allclose(total, x[:n].sum(), rtol=1e-12)
        assert (most == x[:n].max()).all()
