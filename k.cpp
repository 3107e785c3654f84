#define __global__
struct D{unsigned int x;}; static D blockIdx, blockDim, threadIdx;

extern "C" __global__
void philox(unsigned int* out, unsigned long long n,
            unsigned long long seed, unsigned long long offset) {
    unsigned long long i = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x;
    if (4 * i >= n) return;
    unsigned long long place = offset + i;
    unsigned int a = place, b = place >> 32, c = 0, d = 0, k = seed, l = seed >> 32;
    for (int round = 0; round < 10; ++round) {
        unsigned long long p = 0xD2511F53ull * a, q = 0xCD9E8D57ull * c;
        a = (unsigned int)(q >> 32) ^ b ^ k;
        b = q;
        c = (unsigned int)(p >> 32) ^ d ^ l;
        d = p;
        k += 0x9E3779B9u;
        l += 0xBB67AE85u;
    }
    unsigned int block[4] = {a, b, c, d};
    for (int j = 0; j < 4 && 4 * i + j < n; ++j) out[4 * i + j] = block[j];
}

extern "C" void run(unsigned* out, unsigned long long n, unsigned long long seed, unsigned long long off, unsigned grid){
 blockDim.x=128; for(blockIdx.x=0;blockIdx.x<grid;blockIdx.x++) for(threadIdx.x=0;threadIdx.x<128;threadIdx.x++) philox(out,n,seed,off);}