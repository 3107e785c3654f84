// Layer normalisation of the rows of x (R, C), Ba, Kiros and Hinton 2016.
//   xhat = (x - mean) rstd,  y = xhat w + b,  rstd = 1 / sqrt(mean((x - mean)^2) + eps)
//   dx = rstd (h - mean(h) - xhat mean(h xhat)), h = g w;   dw = sum_r g xhat,  db = sum_r g
// weight and bias may be null; dx, or dw and db, are made by kernels of their own.
#include "common.cuh"

// Rung 1: one thread per row, and per column for dw and db.
template <typename T>
__global__ void layer_norm_forward_1(T* y, Acc<T>* mean, Acc<T>* rstd, const T* x, const T* weight,
                                     const T* bias, i64 R, i64 C, double eps) {
    i64 r = thread_number();
    if (r >= R) return;
    const T* row = x + r * C;
    Acc<T> m = 0, v = 0;
    for (i64 c = 0; c < C; c++) m += load(row[c]);
    m /= C;
    for (i64 c = 0; c < C; c++) v += (load(row[c]) - m) * (load(row[c]) - m);
    Acc<T> s = 1 / sqrt(v / C + Acc<T>(eps));
    for (i64 c = 0; c < C; c++) {
        Acc<T> w = weight ? load(weight[c]) : 1, b = bias ? load(bias[c]) : 0;
        store(y[r * C + c], (load(row[c]) - m) * s * w + b);
    }
    mean[r] = m;
    rstd[r] = s;
}

template <typename T>
__global__ void layer_norm_dx_1(T* dx, const T* g, const T* x, const T* weight, const Acc<T>* mean,
                                const Acc<T>* rstd, i64 R, i64 C) {
    i64 r = thread_number();
    if (r >= R) return;
    Acc<T> m = mean[r], s = rstd[r], sum_h = 0, sum_hx = 0;
    for (i64 i = r * C; i < (r + 1) * C; i++) {
        Acc<T> h = load(g[i]) * (weight ? load(weight[i - r * C]) : 1);
        sum_h += h;
        sum_hx += h * (load(x[i]) - m) * s;
    }
    for (i64 i = r * C; i < (r + 1) * C; i++) {
        Acc<T> h = load(g[i]) * (weight ? load(weight[i - r * C]) : 1);
        store(dx[i], s * (h - sum_h / C - (load(x[i]) - m) * s * sum_hx / C));
    }
}

template <typename T>
__global__ void layer_norm_dwdb_1(T* dw, T* db, const T* g, const T* x, const Acc<T>* mean,
                                  const Acc<T>* rstd, i64 R, i64 C) {
    i64 c = thread_number();
    if (c >= C) return;
    Acc<T> w = 0, b = 0;
    for (i64 r = 0; r < R; r++) {
        Acc<T> gi = load(g[r * C + c]);
        w += gi * (load(x[r * C + c]) - mean[r]) * rstd[r];
        b += gi;
    }
    store(dw[c], w);
    store(db[c], b);
}

// Rung 2: one block per row; neighbouring threads read neighbouring columns.
template <typename T>
__global__ void layer_norm_forward_2(T* y, Acc<T>* mean, Acc<T>* rstd, const T* x, const T* weight,
                                     const T* bias, i64 R, i64 C, double eps) {
    Acc<T>* part = shared<Acc<T>>();
    i64 r = blockIdx.x;
    const T* row = x + r * C;
    Acc<T> m = 0, v = 0;
    for (i64 c = threadIdx.x; c < C; c += blockDim.x) m += load(row[c]);
    m = block_sum(m, part) / C;
    for (i64 c = threadIdx.x; c < C; c += blockDim.x) v += (load(row[c]) - m) * (load(row[c]) - m);
    Acc<T> s = 1 / sqrt(block_sum(v, part) / C + Acc<T>(eps));
    for (i64 c = threadIdx.x; c < C; c += blockDim.x) {
        Acc<T> w = weight ? load(weight[c]) : 1, b = bias ? load(bias[c]) : 0;
        store(y[r * C + c], (load(row[c]) - m) * s * w + b);
    }
    if (threadIdx.x == 0) {
        mean[r] = m;
        rstd[r] = s;
    }
}

template <typename T>
__global__ void layer_norm_dx_2(T* dx, const T* g, const T* x, const T* weight, const Acc<T>* mean,
                                const Acc<T>* rstd, i64 R, i64 C) {
    Acc<T>* part = shared<Acc<T>>();
    i64 start = blockIdx.x * C;
    Acc<T> m = mean[blockIdx.x], s = rstd[blockIdx.x], sum_h = 0, sum_hx = 0;
    for (i64 c = threadIdx.x; c < C; c += blockDim.x) {
        Acc<T> h = load(g[start + c]) * (weight ? load(weight[c]) : 1);
        sum_h += h;
        sum_hx += h * (load(x[start + c]) - m) * s;
    }
    sum_h = block_sum(sum_h, part);
    sum_hx = block_sum(sum_hx, part);
    for (i64 c = threadIdx.x; c < C; c += blockDim.x) {
        Acc<T> h = load(g[start + c]) * (weight ? load(weight[c]) : 1);
        store(dx[start + c], s * (h - sum_h / C - (load(x[start + c]) - m) * s * sum_hx / C));
    }
}

// dw and db in two stages, so that the order of every sum is fixed: a block of 32 columns by
// blockDim.y rows sums its slab of `slab` rows, then one thread per column sums the slabs.
template <typename T>
__global__ void layer_norm_slabs_2(Acc<T>* dw_part, Acc<T>* db_part, const T* g, const T* x,
                                   const Acc<T>* mean, const Acc<T>* rstd, i64 R, i64 C, i64 slab) {
    Acc<T>* w_sums = shared<Acc<T>>();              // (blockDim.y, 32)
    Acc<T>* b_sums = w_sums + 32 * blockDim.y;      // (blockDim.y, 32)
    i64 c = blockIdx.x * i64(32) + threadIdx.x, first = blockIdx.y * slab;
    i64 last = first + slab < R ? first + slab : R;
    Acc<T> w = 0, b = 0;
    if (c < C) {
        for (i64 r = first + threadIdx.y; r < last; r += blockDim.y) {
            Acc<T> gi = load(g[r * C + c]);
            w += gi * (load(x[r * C + c]) - mean[r]) * rstd[r];
            b += gi;
        }
    }
    w_sums[threadIdx.y * 32 + threadIdx.x] = w;
    b_sums[threadIdx.y * 32 + threadIdx.x] = b;
    __syncthreads();
    if (threadIdx.y > 0 || c >= C) return;
    for (int k = 1; k < blockDim.y; k++) {
        w += w_sums[k * 32 + threadIdx.x];
        b += b_sums[k * 32 + threadIdx.x];
    }
    dw_part[blockIdx.y * C + c] = w;
    db_part[blockIdx.y * C + c] = b;
}

template <typename T>
__global__ void layer_norm_dwdb_2(T* dw, T* db, const Acc<T>* dw_part, const Acc<T>* db_part,
                                  i64 slabs, i64 C) {
    i64 c = thread_number();
    if (c >= C) return;
    Acc<T> w = 0, b = 0;
    for (i64 k = 0; k < slabs; k++) {
        w += dw_part[k * C + c];
        b += db_part[k * C + c];
    }
    store(dw[c], w);
    store(db[c], b);
}
