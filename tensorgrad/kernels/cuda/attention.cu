// Scaled dot-product attention, Vaswani et al. 2017, of every head: q (L, D), k and v (S, D).
//   s = scale q k^T,  lse_i = log sum_j exp s_ij,  p = exp(s - lse),  o = p v
//   delta_i = sum_d g_id o_id,  ds = p (g v^T - delta),  dq = scale ds k,  dk = scale ds^T q,  dv = p^T g
// Where causal, query i sees the keys j <= i.  Only o and lse are kept: backward computes p again.
// A query that sees no key gets o = 0 and lse = -inf.
#include "common.cuh"

__device__ inline i64 keys_seen(i64 i, i64 S, i64 causal) { return causal && i + 1 < S ? i + 1 : S; }
__device__ inline i64 first_query(i64 j, i64 causal) { return causal ? j : 0; }

template <typename A> __device__ A probability(A score, A lse) {
    return lse == -infinity() ? 0 : exp(score - lse);
}
template <typename T> __device__ Acc<T> dot(const T* x, const T* y, i64 D) {
    Acc<T> sum = 0;
    for (i64 d = 0; d < D; d++) sum += load(x[d]) * load(y[d]);
    return sum;
}

// Rung 1: the formulas, one thread per number of the result; every score is computed D times over.
template <typename T>
__global__ void attention_lse_1(Acc<T>* lse, const T* q, const T* k, i64 heads, i64 L, i64 S, i64 D,
                                i64 causal, double scale) {
    i64 row = thread_number(), head = row / L;
    if (row >= heads * L) return;
    LogSumExp<Acc<T>> z;
    for (i64 j = 0; j < keys_seen(row % L, S, causal); j++)
        z.add(Acc<T>(scale) * dot(q + row * D, k + (head * S + j) * D, D));
    lse[row] = z.value();
}

template <typename T>
__global__ void attention_forward_1(T* o, const Acc<T>* lse, const T* q, const T* k, const T* v,
                                    i64 heads, i64 L, i64 S, i64 D, i64 causal, double scale) {
    i64 row = thread_number() / D, d = thread_number() % D, head = row / L;
    if (row >= heads * L) return;
    Acc<T> sum = 0;
    for (i64 j = 0; j < keys_seen(row % L, S, causal); j++) {
        i64 key = head * S + j;
        Acc<T> p = probability(Acc<T>(scale) * dot(q + row * D, k + key * D, D), lse[row]);
        sum += p * load(v[key * D + d]);
    }
    store(o[row * D + d], sum);
}

template <typename T>
__global__ void attention_dq_1(T* dq, const T* g, const T* q, const T* k, const T* v,
                               const Acc<T>* lse, const Acc<T>* delta, i64 heads, i64 L, i64 S, i64 D,
                               i64 causal, double scale) {
    i64 row = thread_number() / D, d = thread_number() % D, head = row / L;
    if (row >= heads * L) return;
    Acc<T> sum = 0;
    for (i64 j = 0; j < keys_seen(row % L, S, causal); j++) {
        i64 key = head * S + j;
        Acc<T> p = probability(Acc<T>(scale) * dot(q + row * D, k + key * D, D), lse[row]);
        sum += p * (dot(g + row * D, v + key * D, D) - delta[row]) * load(k[key * D + d]);
    }
    store(dq[row * D + d], Acc<T>(scale) * sum);
}

template <typename T>
__global__ void attention_dkdv_1(T* dk, T* dv, const T* g, const T* q, const T* k, const T* v,
                                 const Acc<T>* lse, const Acc<T>* delta, i64 heads, i64 L, i64 S, i64 D,
                                 i64 causal, double scale) {
    i64 key = thread_number() / D, d = thread_number() % D, head = key / S;
    if (key >= heads * S) return;
    Acc<T> sum_k = 0, sum_v = 0;
    for (i64 i = first_query(key % S, causal); i < L; i++) {
        i64 row = head * L + i;
        Acc<T> p = probability(Acc<T>(scale) * dot(q + row * D, k + key * D, D), lse[row]);
        sum_v += p * load(g[row * D + d]);
        sum_k += p * (dot(g + row * D, v + key * D, D) - delta[row]) * load(q[row * D + d]);
    }
    store(dk[key * D + d], Acc<T>(scale) * sum_k);
    store(dv[key * D + d], sum_v);
}

// delta, for both rungs: one warp per query.
template <typename T>
__global__ void attention_delta(Acc<T>* delta, const T* g, const T* o, i64 rows, i64 D) {
    i64 row = thread_number() / 32;
    if (row >= rows) return;
    Acc<T> sum = 0;
    for (i64 d = threadIdx.x % 32; d < D; d += 32) sum += load(g[row * D + d]) * load(o[row * D + d]);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) delta[row] = sum;
}

// Rung 2: a block is blockDim.y warps, each with one row of its own (a query; for dk and dv a key), and
// walks the other side in tiles of 32 rows in shared memory.  In a tile each lane computes the score of one
// row of the tile; then each lane owns the columns d = lane, lane + 32, ... of the warp's result.
// Tiles are D + 1 wide, so that the lanes, each in a row of its own, read from different banks.
template <typename T> __device__ void load_tile(Acc<T>* tile, const T* x, i64 start, i64 rows, i64 D) {
    for (i64 t = threadIdx.y * 32 + threadIdx.x; t < 32 * D; t += 32 * blockDim.y) {
        i64 row = t / D, d = t % D;
        tile[row * (D + 1) + d] = start + row < rows ? load(x[(start + row) * D + d]) : 0;
    }
}
template <typename T> __device__ void load_row(Acc<T>* place, const T* x, bool exists, i64 D) {
    for (i64 d = threadIdx.x; d < D; d += 32) place[d] = exists ? load(x[d]) : 0;
}

template <typename T>
__global__ void attention_forward_2(T* o, Acc<T>* lse, const T* q, const T* k, const T* v, i64 heads,
                                    i64 L, i64 S, i64 D, i64 causal, double scale) {
    typedef Acc<T> A;
    int lane = threadIdx.x, warps = blockDim.y;
    i64 blocks = (L + warps - 1) / warps, head = blockIdx.x / blocks, first = blockIdx.x % blocks * warps;
    i64 i = first + threadIdx.y, row = head * L + i;
    A* k_tile = shared<A>();                            // (32, D + 1)
    A* v_tile = k_tile + 32 * (D + 1);                  // (32, D + 1)
    A* own = v_tile + 32 * (D + 1) + threadIdx.y * (2 * D + 32);
    A *my_q = own, *my_o = own + D, *my_p = own + 2 * D;  // (D), (D), (32)
    load_row(my_q, q + row * D, i < L, D);
    for (i64 d = lane; d < D; d += 32) my_o[d] = 0;

    A most = -infinity(), sum = 0;  // of the scores so far: the largest, and the sum of exp(score - most)
    i64 end = keys_seen(first + warps - 1, S, causal);
    for (i64 start = 0; start < end; start += 32) {
        __syncthreads();  // no warp still reads the last tile
        load_tile(k_tile, k + head * S * D, start, S, D);
        load_tile(v_tile, v + head * S * D, start, S, D);
        __syncthreads();
        bool seen = start + lane < keys_seen(i, S, causal);
        A score = seen ? A(scale) * dot(my_q, k_tile + lane * (D + 1), D) : A(-infinity());
        A new_most = fmax(most, warp_max(score));
        A p = score == -infinity() ? 0 : exp(score - new_most);
        A shrink = most == -infinity() ? 0 : exp(most - new_most);
        sum = sum * shrink + warp_sum(p);
        most = new_most;
        my_p[lane] = p;
        __syncwarp();
        for (i64 d = lane; d < D; d += 32) {
            A more = 0;
            for (int j = 0; j < 32; j++) more += my_p[j] * v_tile[j * (D + 1) + d];
            my_o[d] = my_o[d] * shrink + more;
        }
    }
    if (i >= L) return;
    for (i64 d = lane; d < D; d += 32) store(o[row * D + d], sum == 0 ? 0 : my_o[d] / sum);
    if (lane == 0) lse[row] = most + log(sum);
}

template <typename T>
__global__ void attention_dq_2(T* dq, const T* g, const T* q, const T* k, const T* v,
                               const Acc<T>* lse, const Acc<T>* delta, i64 heads, i64 L, i64 S, i64 D,
                               i64 causal, double scale) {
    typedef Acc<T> A;
    int lane = threadIdx.x, warps = blockDim.y;
    i64 blocks = (L + warps - 1) / warps, head = blockIdx.x / blocks, first = blockIdx.x % blocks * warps;
    i64 i = first + threadIdx.y, row = head * L + i;
    A* k_tile = shared<A>();                            // (32, D + 1)
    A* v_tile = k_tile + 32 * (D + 1);                  // (32, D + 1)
    A* own = v_tile + 32 * (D + 1) + threadIdx.y * (3 * D + 32);
    A *my_q = own, *my_g = own + D, *my_dq = own + 2 * D, *my_ds = own + 3 * D;  // (D) x 3, (32)
    load_row(my_q, q + row * D, i < L, D);
    load_row(my_g, g + row * D, i < L, D);
    for (i64 d = lane; d < D; d += 32) my_dq[d] = 0;
    A my_lse = i < L ? lse[row] : 0, my_delta = i < L ? delta[row] : 0;

    i64 end = keys_seen(first + warps - 1, S, causal);
    for (i64 start = 0; start < end; start += 32) {
        __syncthreads();
        load_tile(k_tile, k + head * S * D, start, S, D);
        load_tile(v_tile, v + head * S * D, start, S, D);
        __syncthreads();
        A ds = 0;
        if (i < L && start + lane < keys_seen(i, S, causal)) {
            A p = probability(A(scale) * dot(my_q, k_tile + lane * (D + 1), D), my_lse);
            ds = p * (dot(my_g, v_tile + lane * (D + 1), D) - my_delta);
        }
        my_ds[lane] = ds;
        __syncwarp();
        for (i64 d = lane; d < D; d += 32)
            for (int j = 0; j < 32; j++) my_dq[d] += my_ds[j] * k_tile[j * (D + 1) + d];
    }
    if (i >= L) return;
    for (i64 d = lane; d < D; d += 32) store(dq[row * D + d], A(scale) * my_dq[d]);
}

template <typename T>
__global__ void attention_dkdv_2(T* dk, T* dv, const T* g, const T* q, const T* k, const T* v,
                                 const Acc<T>* lse, const Acc<T>* delta, i64 heads, i64 L, i64 S, i64 D,
                                 i64 causal, double scale) {
    typedef Acc<T> A;
    int lane = threadIdx.x, warps = blockDim.y;
    i64 blocks = (S + warps - 1) / warps, head = blockIdx.x / blocks, first = blockIdx.x % blocks * warps;
    i64 j = first + threadIdx.y, row = head * S + j;
    A* q_tile = shared<A>();                            // (32, D + 1)
    A* g_tile = q_tile + 32 * (D + 1);                  // (32, D + 1)
    A* own = g_tile + 32 * (D + 1) + threadIdx.y * (4 * D + 64);
    A *my_k = own, *my_v = own + D, *my_dk = own + 2 * D, *my_dv = own + 3 * D;  // (D) x 4
    A *my_p = own + 4 * D, *my_ds = my_p + 32;                                   // (32) x 2
    load_row(my_k, k + row * D, j < S, D);
    load_row(my_v, v + row * D, j < S, D);
    for (i64 d = lane; d < D; d += 32) my_dk[d] = my_dv[d] = 0;

    for (i64 start = first_query(first, causal) / 32 * 32; start < L; start += 32) {
        __syncthreads();
        load_tile(q_tile, q + head * L * D, start, L, D);
        load_tile(g_tile, g + head * L * D, start, L, D);
        __syncthreads();
        A p = 0, ds = 0;
        i64 i = start + lane;
        if (j < S && i < L && i >= first_query(j, causal)) {
            p = probability(A(scale) * dot(my_k, q_tile + lane * (D + 1), D), lse[head * L + i]);
            ds = p * (dot(my_v, g_tile + lane * (D + 1), D) - delta[head * L + i]);
        }
        my_p[lane] = p;
        my_ds[lane] = ds;
        __syncwarp();
        for (i64 d = lane; d < D; d += 32)
            for (int t = 0; t < 32; t++) {
                my_dv[d] += my_p[t] * g_tile[t * (D + 1) + d];
                my_dk[d] += my_ds[t] * q_tile[t * (D + 1) + d];
            }
    }
    if (j >= S) return;
    for (i64 d = lane; d < D; d += 32) {
        store(dk[row * D + d], A(scale) * my_dk[d]);
        store(dv[row * D + d], my_dv[d]);
    }
}
