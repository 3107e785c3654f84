// The gradient of looking up N rows of a table (V, C): out[v] = sum of g[n] over all n with index[n] = v.
// Row `skip` (the padding) receives nothing, and an index outside 0..V-1 adds to no row.
#include "common.cuh"

// Rung 1: one thread per element of the table reads all of the index.  V N comparisons per column.
template <typename T>
__global__ void embedding_backward_1(T* out, const T* g, const i64* index, i64 N, i64 V, i64 C,
                                     i64 skip) {
    i64 i = thread_number();
    if (i >= V * C) return;
    i64 v = i / C, c = i % C;
    Acc<T> sum = 0;
    for (i64 n = 0; n < N; n++)
        if (index[n] == v && v != skip) sum += load(g[n * C + c]);
    store(out[i], sum);
}

// Rung 2: `order` sorts the index stably, so equal indices stand together in their old order.  One block
// per place in that order; the block that stands where a new index begins sums all of its rows.
// `out` arrives full of zeros.
template <typename T>
__global__ void embedding_backward_2(T* out, const T* g, const i64* index, const i64* order,
                                     i64 N, i64 V, i64 C, i64 skip) {
    i64 first = blockIdx.x, v = index[order[first]];
    if (v < 0 || v >= V || v == skip) return;
    if (first > 0 && index[order[first - 1]] == v) return;
    for (i64 c = threadIdx.x; c < C; c += blockDim.x) {
        Acc<T> sum = 0;
        for (i64 k = first; k < N && index[order[k]] == v; k++) sum += load(g[order[k] * C + c]);
        store(out[v * C + c], sum);
    }
}

// Rung 3: one thread per element of g adds it where it belongs, in whatever order they come: fast where few
// indices repeat, but the last bits differ from run to run.  `out` arrives full of zeros.
template <typename T>
__global__ void embedding_backward_3(Acc<T>* out, const T* g, const i64* index, i64 N, i64 V, i64 C,
                                     i64 skip) {
    i64 i = thread_number();
    if (i >= N * C) return;
    i64 v = index[i / C];
    if (v >= 0 && v < V && v != skip) atomicAdd(&out[v * C + i % C], load(g[i]));
}
