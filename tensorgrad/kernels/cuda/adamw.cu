// One step of AdamW, Loshchilov and Hutter 2019, in place; k counts the steps from 1.
//   g <- g s,  p <- p (1 - lr decay),  m <- m + (1 - b1) (g - m),  v <- v + (1 - b2) (g^2 - v)
//   p <- p - lr / (1 - b1^k) m / (sqrt(v) / sqrt(1 - b2^k) + eps)
#include "common.cuh"

template <typename A> struct AdamW {
    // s, 1 - lr decay, 1 - b1, 1 - b2, lr / (1 - b1^k), sqrt(1 - b2^k), eps
    A scale, keep, new_m, new_v, rate, root, eps;
    __device__ void step(A& p, A g, A& m, A& v) const {
        g *= scale;
        m += new_m * (g - m);
        v += new_v * (g * g - v);
        p = p * keep - rate * m / (sqrt(v) / root + eps);
    }
};

template <typename T>
__device__ void adamw_element(const AdamW<Acc<T>>& rule, T& p, T g, T& m, T& v) {
    Acc<T> wide_p = load(p), wide_m = load(m), wide_v = load(v);
    rule.step(wide_p, load(g), wide_m, wide_v);
    store(p, wide_p);
    store(m, wide_m);
    store(v, wide_v);
}

// Rung 1: one thread per parameter.
template <typename T>
__global__ void adamw_step_1(T* p, T* m, T* v, const T* g, i64 n, double scale, double keep,
                             double new_m, double new_v, double rate, double root, double eps) {
    typedef Acc<T> A;
    AdamW<A> rule = {A(scale), A(keep), A(new_m), A(new_v), A(rate), A(root), A(eps)};
    i64 i = thread_number();
    if (i < n) adamw_element(rule, p[i], g[i], m[i], v[i]);
}

// Rung 2: one thread per 16 bytes of each array.
template <typename T>
__global__ void adamw_step_2(T* p, T* m, T* v, const T* g, i64 n, double scale, double keep,
                             double new_m, double new_v, double rate, double root, double eps) {
    typedef Acc<T> A;
    AdamW<A> rule = {A(scale), A(keep), A(new_m), A(new_v), A(rate), A(root), A(eps)};
    const int W = 16 / sizeof(T);
    i64 first = thread_number() * W;
    if (first + W <= n) {
        Pack<T> ps = load_pack(p + first), ms = load_pack(m + first), vs = load_pack(v + first);
        Pack<T> gs = load_pack(g + first);
        for (int k = 0; k < W; k++) adamw_element(rule, ps.at[k], gs.at[k], ms.at[k], vs.at[k]);
        store_pack(p + first, ps);
        store_pack(m + first, ms);
        store_pack(v + first, vs);
    } else {
        for (i64 i = first; i < n; i++) adamw_element(rule, p[i], g[i], m[i], v[i]);
    }
}
