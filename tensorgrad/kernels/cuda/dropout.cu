// Dropout with the counter-based generator Philox4x32-10, Salmon et al. 2011.
//   y[i] = x[i] scale where word(i) < threshold, else 0;  threshold = (1 - p) 2^32, scale = 1 / (1 - p)
//   word(i) = philox(key = seed, counter = offset + i / 4)[i % 4]
// Nothing is kept for backward: the same call on the gradient draws the same words.
#include "common.cuh"

struct Philox {
    u32 word[4];
    __device__ Philox(u64 seed, u64 counter) : word{u32(counter), u32(counter >> 32), 0, 0} {
        u32 key0 = u32(seed), key1 = u32(seed >> 32);
        for (int round = 0; round < 10; round++) {
            u64 a = u64(0xD2511F53u) * word[0], b = u64(0xCD9E8D57u) * word[2];
            word[0] = u32(b >> 32) ^ word[1] ^ key0;
            word[1] = u32(b);
            word[2] = u32(a >> 32) ^ word[3] ^ key1;
            word[3] = u32(a);
            key0 += 0x9E3779B9u;
            key1 += 0xBB67AE85u;
        }
    }
};

template <typename T>
__device__ void drop(T& y, T x, u32 word, i64 threshold, double scale) {
    store(y, load(x) * Acc<T>(word < threshold ? scale : 0));
}

// Rung 1: one thread per element; three of its four words go unused.
template <typename T>
__global__ void dropout_1(T* y, const T* x, i64 n, i64 seed, i64 offset, i64 threshold, double scale) {
    i64 i = thread_number();
    if (i < n) drop(y[i], x[i], Philox(seed, u64(offset) + i / 4).word[i % 4], threshold, scale);
}

// Rung 2: one thread per four elements.
template <typename T>
__global__ void dropout_2(T* y, const T* x, i64 n, i64 seed, i64 offset, i64 threshold, double scale) {
    i64 block = thread_number(), first = 4 * block;
    if (first >= n) return;
    Philox draw(seed, u64(offset) + block);
    for (int k = 0; k < 4; k++)
        if (first + k < n) drop(y[first + k], x[first + k], draw.word[k], threshold, scale);
}
