// What the kernels share: types of storage and of arithmetic, sums and maxima over warps and blocks.
// A kernel stores T and computes in Acc<T>: double for double, float for float, bf16 and f16.
// Its parameters are pointers (const: inputs), i64 sizes and double numbers; no header is needed.
#pragma once

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;

struct bf16 { unsigned short bits; };  // the upper half of a float
struct f16 { unsigned short bits; };   // IEEE binary16

template <typename T> struct Arithmetic { typedef float type; };
template <> struct Arithmetic<double> { typedef double type; };
template <typename T> using Acc = typename Arithmetic<T>::type;

// What a CPU has to say differently; its versions are in the emulator of the tests.
#ifndef TG_EMULATED
__device__ inline float half_to_float(unsigned short bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}
__device__ inline unsigned short float_to_half(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
// The block's dynamic shared memory; its size is part of the launch.
template <typename A> __device__ A* shared() {
    extern __shared__ double memory[];
    return reinterpret_cast<A*>(memory);
}
#endif

__device__ inline float load(float x) { return x; }
__device__ inline double load(double x) { return x; }
__device__ inline float load(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }
__device__ inline float load(f16 x) { return half_to_float(x.bits); }

__device__ inline void store(float& place, float x) { place = x; }
__device__ inline void store(double& place, double x) { place = x; }
__device__ inline void store(f16& place, float x) { place.bits = float_to_half(x); }
__device__ inline void store(bf16& place, float x) {  // to the nearest, ties to even; NaN stays NaN
    u32 u = __float_as_uint(x);
    bool nan = (u & 0x7fffffffu) > 0x7f800000u;
    place.bits = (unsigned short)(nan ? (u >> 16) | 0x40u : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

// The 16 bytes that a thread can load in one instruction, from an address that 16 divides.
template <typename T> struct alignas(16) Pack { T at[16 / sizeof(T)]; };

template <typename T> __device__ Pack<T> load_pack(const T* x) {
    return *reinterpret_cast<const Pack<T>*>(x);
}
template <typename T> __device__ void store_pack(T* place, Pack<T> x) {
    *reinterpret_cast<Pack<T>*>(place) = x;
}

__device__ inline float infinity() { return __int_as_float(0x7f800000); }
__device__ inline i64 thread_number() { return blockIdx.x * i64(blockDim.x) + threadIdx.x; }

// Sums and maxima over the 32 lanes of a warp; every lane gets the result.
const u32 ALL_LANES = 0xffffffffu;

template <typename A> __device__ A warp_sum(A v) {
    for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(ALL_LANES, v, step);
    return v;
}
template <typename A> __device__ A warp_max(A v) {
    for (int step = 16; step > 0; step /= 2) v = fmax(v, __shfl_xor_sync(ALL_LANES, v, step));
    return v;
}

// The same over a block of whole warps: each warp leaves its result in `part` (32 numbers of shared
// memory), then every warp reduces those.  The first barrier lets the last call's readers finish.
template <typename A> __device__ A block_sum(A v, A* part) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    v = warp_sum(v);
    __syncthreads();
    if (lane == 0) part[warp] = v;
    __syncthreads();
    return warp_sum(lane < warps ? part[lane] : A(0));
}
template <typename A> __device__ A block_max(A v, A* part) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    v = warp_max(v);
    __syncthreads();
    if (lane == 0) part[warp] = v;
    __syncthreads();
    return warp_max(lane < warps ? part[lane] : A(-infinity()));
}

// A running log-sum-exp: log(sum exp x) = most + log(sum), where sum counts exp(x - most).
template <typename A> struct LogSumExp {
    A most, sum;
    __device__ LogSumExp() : most(-infinity()), sum(0) {}
    __device__ void add(A x) {
        if (x > most) {
            sum *= exp(most - x);
            most = x;
        }
        if (x != -infinity()) sum += exp(x - most);  // exp(-inf) adds nothing, and -inf - -inf is NaN
    }
    __device__ A value() const { return most + log(sum); }
};
template <typename A> __device__ LogSumExp<A> block_combine(LogSumExp<A> mine, A* part) {
    LogSumExp<A> all;
    all.most = block_max(mine.most, part);
    all.sum = block_sum(mine.sum > 0 ? mine.sum * exp(mine.most - all.most) : mine.sum, part);
    return all;
}
