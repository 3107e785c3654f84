// The CUDA device language on one CPU thread, for tests: each CUDA thread is a fiber, blocks run in turn.
// A fiber runs until a barrier or its end.  A barrier that some thread of its block (or warp) never reaches,
// or reaches on another line, is an error that names the lines.  With a seed the order of threads and warps
// is shuffled, and each warp runs ahead of the others as far as it can.
#pragma once

#define TG_EMULATED 1

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <setjmp.h>
#include <string>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static  // blocks run in turn, so one copy serves all

using std::erf, std::exp, std::fmax, std::fmin, std::log, std::sqrt, std::tanh;

struct Index { unsigned x, y, z; };
inline Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

enum class State { ready, block_barrier, warp_barrier, done };

struct Fiber {
    static const size_t STACK = 64 * 1024;
    ucontext_t start;
    jmp_buf resume;
    std::unique_ptr<char[]> stack{new char[STACK]};
    bool started;
    State state;
    const char* file;  // where it waits
    int line;
    Index thread;
    int number, turn;           // its number in the block; which of its two exchange slots is next
    unsigned char slot[2][16];  // what it shows to the other lanes of its warp
};

template <class P> const char* name_of_type();  // for each type that a parameter can have

const size_t SHARED_LIMIT = 48 * 1024, GUARD = 1024;
inline double shared_memory[(SHARED_LIMIT + GUARD) / sizeof(double)];
inline std::vector<Fiber> fibers;
inline Fiber* current;
inline jmp_buf scheduler;
inline void (*body)(void**);
inline void** arguments;

// setjmp and longjmp switch in nanoseconds; makecontext only gives each fiber its first stack frame.
inline void wait(State state, const char* file, int line) {
    Fiber* me = current;
    me->state = state;
    me->file = file;
    me->line = line;
    if (!_setjmp(me->resume)) _longjmp(scheduler, 1);
}

inline void run_to_end() {
    body(arguments);
    current->state = State::done;
    _longjmp(scheduler, 1);
}

inline void resume(Fiber& fiber) {
    current = &fiber;
    threadIdx = fiber.thread;
    if (_setjmp(scheduler)) return;
    if (fiber.started) _longjmp(fiber.resume, 1);
    fiber.started = true;
    setcontext(&fiber.start);
}

inline void prepare(Fiber& fiber, int number) {
    int x = blockDim.x, y = blockDim.y;
    fiber.thread = {unsigned(number % x), unsigned(number / x % y), unsigned(number / (x * y))};
    fiber.number = number;
    fiber.turn = 0;
    fiber.started = false;
    fiber.state = State::ready;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get();
    fiber.start.uc_stack.ss_size = Fiber::STACK;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, run_to_end, 0);
}

// Lets the fibers [begin, end) pass if all of them wait at one and the same barrier.
inline bool release(int begin, int end, State barrier) {
    for (int i = begin; i < end; i++)
        if (fibers[i].state != barrier || fibers[i].line != fibers[begin].line) return false;
    for (int i = begin; i < end; i++) fibers[i].state = State::ready;
    return true;
}

inline std::string where_threads_stand(int n) {
    std::map<std::string, int> standing;
    for (int i = 0; i < n; i++) {
        const Fiber& fiber = fibers[i];
        std::string place = std::string(fiber.file ? fiber.file : "") + ":" + std::to_string(fiber.line);
        if (fiber.state == State::done) standing["have returned"]++;
        if (fiber.state == State::block_barrier) standing["wait for their block at " + place]++;
        if (fiber.state == State::warp_barrier) standing["wait for their warp at " + place]++;
    }
    std::string text = "divergent barrier in block (" + std::to_string(blockIdx.x) + ", " +
                       std::to_string(blockIdx.y) + ", " + std::to_string(blockIdx.z) + "):";
    for (auto& [what, count] : standing) text += " " + std::to_string(count) + " threads " + what + ";";
    text.pop_back();
    return text;
}

// 0, 1, ..., n - 1, shuffled if there is a seed.
inline std::vector<int> order_of(int n, unsigned seed) {
    std::vector<int> order(n);
    for (int i = 0; i < n; i++) order[i] = i;
    for (int i = n - 1; seed && i > 0; i--) {
        seed = seed * 1664525u + 1013904223u;
        std::swap(order[i], order[(seed >> 8) % (i + 1)]);
    }
    return order;
}

// Lets the threads of a warp run up to their next barrier; whether they may then go on at once.
inline bool run_warp(int first, int n, const std::vector<int>& lanes) {
    for (int lane : lanes) {
        int i = first + lane;
        if (i < n && fibers[i].state == State::ready) resume(fibers[i]);
    }
    return first + 32 <= n && release(first, first + 32, State::warp_barrier);
}

// Runs the threads of one block; returns an error, or nothing.
inline std::string run_block(size_t shared_bytes, unsigned seed) {
    int n = blockDim.x * blockDim.y * blockDim.z;
    if (int(fibers.size()) < n) fibers.resize(n);
    for (int i = 0; i < n; i++) prepare(fibers[i], i);
    std::vector<int> lanes = order_of(32, seed), warps = order_of((n + 31) / 32, seed);
    memset(shared_memory, 0xff, sizeof shared_memory);  // NaN until written

    auto all_done = [n] {
        auto done = [](const Fiber& fiber) { return fiber.state == State::done; };
        return std::all_of(fibers.begin(), fibers.begin() + n, done);
    };
    while (!all_done()) {
        bool moved = false;
        for (int w : warps)
            while (run_warp(32 * w, n, lanes)) {
                moved = true;
                if (!seed) break;
            }
        moved |= release(0, n, State::block_barrier);
        if (!moved && !all_done()) return where_threads_stand(n);
    }
    const unsigned char* bytes = reinterpret_cast<const unsigned char*>(shared_memory);
    for (size_t i = shared_bytes; i < sizeof shared_memory; i++)
        if (bytes[i] != 0xff)
            return "a write past the " + std::to_string(shared_bytes) + " bytes of shared memory";
    return "";
}

// A launch, with arguments as cuLaunchKernel takes them: an array of pointers to their values.
struct Launch {
    Index grid, block;
    uint64_t shared_bytes, seed;
};

template <class... P, size_t... N>
void call(void (*kernel)(P...), void** args, std::index_sequence<N...>) {
    kernel(*static_cast<P*>(args[N])...);
}

// Runs all blocks; returns an error, or "".
inline const char* run(void (*call_kernel)(void**), const Launch& launch, void** args) {
    static std::string error;
    error = launch.shared_bytes > SHARED_LIMIT ? "more than 48 KB of shared memory" : "";
    gridDim = launch.grid;
    blockDim = launch.block;
    body = call_kernel;
    arguments = args;
    for (unsigned z = 0; z < gridDim.z; z++)
        for (unsigned y = 0; y < gridDim.y; y++)
            for (unsigned x = 0; x < gridDim.x && error.empty(); x++) {
                blockIdx = {x, y, z};
                error = run_block(launch.shared_bytes, launch.seed ? launch.seed + x : 0);
            }
    return error.c_str();
}

// One kernel, and the types of its parameters, as "float32*,const bfloat16*,int64,float64,".
template <auto kernel> struct Kernel;
template <class... P, void (*kernel)(P...)> struct Kernel<kernel> {
    static void call(void** args) { emulator::call(kernel, args, std::index_sequence_for<P...>()); }
    static const char* signature() {
        static std::string text;
        text = "";
        ((text += name_of_type<P>()), ...);
        return text.c_str();
    }
};

// The lanes of a warp show each other a value; two slots in turns, so that one barrier is enough.
template <class A> A exchange(A v, int lane, const char* file, int line) {
    Fiber* me = current;
    int turn = me->turn, first = me->number / 32 * 32;
    me->turn = 1 - turn;
    memcpy(me->slot[turn], &v, sizeof v);
    wait(State::warp_barrier, file, line);
    memcpy(&v, fibers[first + lane].slot[turn], sizeof v);
    return v;
}

}  // namespace emulator

#define HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(HERE) { emulator::wait(emulator::State::block_barrier, file, line); }
inline void __syncwarp(unsigned = ~0u, HERE) { emulator::wait(emulator::State::warp_barrier, file, line); }

inline int this_lane() { return emulator::current->number % 32; }
template <class A> A __shfl_sync(unsigned, A v, int from, HERE) {
    return emulator::exchange(v, from % 32, file, line);
}
template <class A> A __shfl_xor_sync(unsigned, A v, int mask, HERE) {
    return emulator::exchange(v, this_lane() ^ mask, file, line);
}
template <class A> A __shfl_down_sync(unsigned, A v, int by, HERE) {
    return emulator::exchange(v, this_lane() + by < 32 ? this_lane() + by : this_lane(), file, line);
}

template <class A> A atomicAdd(A* place, A v) {
    A before = *place;
    *place += v;
    return before;
}

template <class To, class From> To same_bits(From x) {
    static_assert(sizeof(To) == sizeof(From));
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}
inline float __int_as_float(int x) { return same_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return same_bits<float>(x); }
inline unsigned __float_as_uint(float x) { return same_bits<unsigned>(x); }
inline float half_to_float(unsigned short bits) { return float(same_bits<_Float16>(bits)); }
inline unsigned short float_to_half(float x) { return same_bits<unsigned short>(_Float16(x)); }
template <class A> A* shared() { return reinterpret_cast<A*>(emulator::shared_memory); }
