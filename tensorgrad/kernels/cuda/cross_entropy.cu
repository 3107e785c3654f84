// Cross entropy of rows of logits x (R, C) with class indices t (R), and label smoothing e.
//   loss = lse - (1 - e) x[t] - e mean(x),  lse = log sum_c exp x
//   dx = g (exp(x - lse) - (1 - e) [c = t] - e / C)
// A row with t = ignore has loss and gradient 0.  Any other t outside 0..C-1 gives NaN, and is never read.
#include "common.cuh"

template <typename T>
__device__ Acc<T> row_loss(const T* row, i64 t, Acc<T> lse, Acc<T> sum, i64 C, i64 ignore, Acc<T> e) {
    if (t == ignore) return 0;
    if (t < 0 || t >= C) return infinity() - infinity();
    Acc<T> loss = lse - (1 - e) * load(row[t]);
    return e > 0 ? loss - e * sum / C : loss;  // a logit of -inf would make 0 * -inf
}

template <typename T>
__device__ Acc<T> logit_slope(T x, i64 c, i64 t, Acc<T> lse, i64 C, i64 ignore, Acc<T> e) {
    if (t == ignore) return 0;
    if (t < 0 || t >= C) return infinity() - infinity();
    return exp(load(x) - lse) - (c == t ? 1 - e : 0) - e / C;
}

// Rung 1: one thread per row forward, one per logit backward.
template <typename T>
__global__ void cross_entropy_forward_1(T* loss, Acc<T>* lse, const T* logits, const i64* target,
                                        i64 R, i64 C, i64 ignore, double smoothing) {
    i64 r = thread_number();
    if (r >= R) return;
    const T* row = logits + r * C;
    LogSumExp<Acc<T>> z;
    Acc<T> sum = 0;
    for (i64 c = 0; c < C; c++) {
        z.add(load(row[c]));
        sum += load(row[c]);
    }
    lse[r] = z.value();
    store(loss[r], row_loss(row, target[r], z.value(), sum, C, ignore, Acc<T>(smoothing)));
}

template <typename T>
__global__ void cross_entropy_backward_1(T* dlogits, const T* g, const T* logits, const i64* target,
                                         const Acc<T>* lse, i64 R, i64 C, i64 ignore, double smoothing) {
    i64 i = thread_number();
    if (i >= R * C) return;
    i64 r = i / C, c = i % C;
    Acc<T> slope = logit_slope(logits[i], c, target[r], lse[r], C, ignore, Acc<T>(smoothing));
    store(dlogits[i], load(g[r]) * slope);
}

// Rung 2: one block per row.
template <typename T>
__global__ void cross_entropy_forward_2(T* loss, Acc<T>* lse, const T* logits, const i64* target,
                                        i64 R, i64 C, i64 ignore, double smoothing) {
    Acc<T>* part = shared<Acc<T>>();
    i64 r = blockIdx.x;
    const T* row = logits + r * C;
    LogSumExp<Acc<T>> z;
    Acc<T> sum = 0;
    for (i64 c = threadIdx.x; c < C; c += blockDim.x) {
        z.add(load(row[c]));
        sum += load(row[c]);
    }
    z = block_combine(z, part);
    sum = block_sum(sum, part);
    if (threadIdx.x == 0) {
        lse[r] = z.value();
        store(loss[r], row_loss(row, target[r], z.value(), sum, C, ignore, Acc<T>(smoothing)));
    }
}

template <typename T>
__global__ void cross_entropy_backward_2(T* dlogits, const T* g, const T* logits, const i64* target,
                                         const Acc<T>* lse, i64 R, i64 C, i64 ignore, double smoothing) {
    i64 r = blockIdx.x, t = target[r];
    Acc<T> gr = load(g[r]), z = lse[r];
    for (i64 c = threadIdx.x; c < C; c += blockDim.x) {
        Acc<T> slope = logit_slope(logits[r * C + c], c, t, z, C, ignore, Acc<T>(smoothing));
        store(dlogits[r * C + c], gr * slope);
    }
}
