// Softmax and log-softmax of the rows of x (R, C); most = max_c x, sum = sum_c exp(x - most).
//   softmax:      out = exp(x - most) / sum          dx = out (g - sum_c g out)
//   log-softmax:  out = x - most - log(sum)          dx = g - exp(out) sum_c g
#include "common.cuh"

struct Softmax {
    template <typename A> __device__ static A value(A x, LogSumExp<A> z) { return exp(x - z.most) / z.sum; }
    template <typename A> __device__ static A term(A g, A out) { return g * out; }
    template <typename A> __device__ static A dx(A g, A out, A total) { return out * (g - total); }
};

struct LogSoftmax {
    template <typename A> __device__ static A value(A x, LogSumExp<A> z) { return x - z.most - log(z.sum); }
    template <typename A> __device__ static A term(A g, A) { return g; }
    template <typename A> __device__ static A dx(A g, A out, A total) { return g - exp(out) * total; }
};

// Rung 1: one thread per row.
template <typename T, typename Kind>
__global__ void softmax_forward_1(T* out, const T* x, i64 R, i64 C) {
    i64 r = thread_number();
    if (r >= R) return;
    LogSumExp<Acc<T>> z;
    for (i64 i = r * C; i < (r + 1) * C; i++) z.add(load(x[i]));
    for (i64 i = r * C; i < (r + 1) * C; i++) store(out[i], Kind::value(load(x[i]), z));
}

template <typename T, typename Kind>
__global__ void softmax_backward_1(T* dx, const T* g, const T* out, i64 R, i64 C) {
    i64 r = thread_number();
    if (r >= R) return;
    Acc<T> total = 0;
    for (i64 i = r * C; i < (r + 1) * C; i++) total += Kind::term(load(g[i]), load(out[i]));
    for (i64 i = r * C; i < (r + 1) * C; i++) store(dx[i], Kind::dx(load(g[i]), load(out[i]), total));
}

// Rung 2: one block per row.
template <typename T, typename Kind>
__global__ void softmax_forward_2(T* out, const T* x, i64 R, i64 C) {
    Acc<T>* part = shared<Acc<T>>();
    i64 start = blockIdx.x * C;
    LogSumExp<Acc<T>> z;
    for (i64 c = threadIdx.x; c < C; c += blockDim.x) z.add(load(x[start + c]));
    z = block_combine(z, part);
    for (i64 c = threadIdx.x; c < C; c += blockDim.x)
        store(out[start + c], Kind::value(load(x[start + c]), z));
}

template <typename T, typename Kind>
__global__ void softmax_backward_2(T* dx, const T* g, const T* out, i64 R, i64 C) {
    Acc<T>* part = shared<Acc<T>>();
    i64 start = blockIdx.x * C;
    Acc<T> total = 0;
    for (i64 c = threadIdx.x; c < C; c += blockDim.x)
        total += Kind::term(load(g[start + c]), load(out[start + c]));
    total = block_sum(total, part);
    for (i64 c = threadIdx.x; c < C; c += blockDim.x)
        store(dx[start + c], Kind::dx(load(g[start + c]), load(out[start + c]), total));
}
