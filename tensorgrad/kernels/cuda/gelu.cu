// GELU, Hendrycks and Gimpel 2016, and its tanh form.
//   erf:   gelu(x) = x Phi(x)                      gelu'(x) = Phi(x) + x phi(x)
//   tanh:  gelu(x) = x (1 + t) / 2                 gelu'(x) = (1 + t) / 2 + x (1 - t^2) u' / 2
//          t = tanh(u), u = sqrt(2/pi) (x + 0.044715 x^3), u' = sqrt(2/pi) (1 + 3 0.044715 x^2)
#include "common.cuh"

struct Erf {
    template <typename A> __device__ static A Phi(A x) {
        return A(0.5) * (1 + erf(x * A(0.70710678118654752440)));
    }
    template <typename A> __device__ static A value(A x) { return x * Phi(x); }
    template <typename A> __device__ static A slope(A x) {
        return Phi(x) + x * A(0.39894228040143267794) * exp(A(-0.5) * x * x);
    }
};

struct Tanh {
    template <typename A> __device__ static A t(A x) {
        return tanh(A(0.79788456080286535588) * x * (1 + A(0.044715) * x * x));
    }
    template <typename A> __device__ static A value(A x) { return A(0.5) * x * (1 + t(x)); }
    template <typename A> __device__ static A slope(A x) {
        A tx = t(x), du = A(0.79788456080286535588) * (1 + A(3 * 0.044715) * x * x);
        return A(0.5) * (1 + tx) + A(0.5) * x * (1 - tx * tx) * du;
    }
};

// Rung 1: one thread per element.
template <typename T, typename Form>
__global__ void gelu_forward_1(T* y, const T* x, i64 n) {
    i64 i = thread_number();
    if (i < n) store(y[i], Form::value(load(x[i])));
}

template <typename T, typename Form>
__global__ void gelu_backward_1(T* dx, const T* g, const T* x, i64 n) {
    i64 i = thread_number();
    if (i < n) store(dx[i], load(g[i]) * Form::slope(load(x[i])));
}

// Rung 2: one thread per 16 bytes, so that a warp moves 512 bytes at once; the last thread takes the rest.
template <typename T, typename Form>
__global__ void gelu_forward_2(T* y, const T* x, i64 n) {
    const int W = 16 / sizeof(T);
    i64 first = thread_number() * W;
    if (first + W <= n) {
        Pack<T> in = load_pack(x + first), out;
        for (int k = 0; k < W; k++) store(out.at[k], Form::value(load(in.at[k])));
        store_pack(y + first, out);
    } else {
        for (i64 i = first; i < n; i++) store(y[i], Form::value(load(x[i])));
    }
}

template <typename T, typename Form>
__global__ void gelu_backward_2(T* dx, const T* g, const T* x, i64 n) {
    const int W = 16 / sizeof(T);
    i64 first = thread_number() * W;
    if (first + W <= n) {
        Pack<T> in_g = load_pack(g + first), in_x = load_pack(x + first), out;
        for (int k = 0; k < W; k++) store(out.at[k], load(in_g.at[k]) * Form::slope(load(in_x.at[k])));
        store_pack(dx + first, out);
    } else {
        for (i64 i = first; i < n; i++) store(dx[i], load(g[i]) * Form::slope(load(x[i])));
    }
}
