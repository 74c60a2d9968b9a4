// What CUDA C++ gives a kernel, on a CPU: a block's threads are fibers that take turns at barriers, its blocks run one
// after the other. Only what sampling.cu, logprobs.cu, edits.cu and steps.cu use; no cooperative and no asynchronous
// instructions. FIBERS_REVERSE in the environment reverses both orders, so that a missing barrier shows.
#pragma once
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __shared__ static  // one block at a time
#define __launch_bounds__(...)

struct Place { int x = 1, y = 1, z = 1; };
static Place threadIdx, blockIdx, blockDim, gridDim;
static char* dynamic_shared;

struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
static float2 make_float2(float a, float b) { return {a, b}; }
static float4 make_float4(float a, float b, float c, float d) { return {a, b, c, d}; }

template <typename To, typename From> static To bits_as(From x) {
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}
static float __uint_as_float(unsigned x) { return bits_as<float>(x); }
static float __int_as_float(int x) { return bits_as<float>(x); }
static unsigned __float_as_uint(float x) { return bits_as<unsigned>(x); }
static float f16_as_float(unsigned short x) { return float(bits_as<_Float16>(x)); }
static unsigned short float_as_bf16(float x) {
    const unsigned bits = bits_as<unsigned>(x);
    return x != x ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
static unsigned short float_as_f16(float x) { return bits_as<unsigned short>(_Float16(x)); }
static unsigned long long __float2ull_rn(float x) { return llrintf(x); }
static int __popc(unsigned x) { return __builtin_popcount(x); }
static int __ffs(unsigned x) { return __builtin_ffs(x); }
static float __fdiv_rn(float a, float b) { return a / b; }
static float __fmul_rn(float a, float b) { return a * b; }
static float __fsub_rn(float a, float b) { return a - b; }
template <typename A, typename B> static auto min(A a, B b) { return a < b ? a : b; }
template <typename A, typename B> static auto max(A a, B b) { return a > b ? a : b; }

// Fibers.
constexpr int STACK = 1 << 16, LANES = 32, MOST_WARPS = 32;
struct Fiber {
    ucontext_t context;
    char* stack = static_cast<char*>(malloc(STACK));
    bool done;
};
static ucontext_t scheduler;
static std::vector<Fiber> fibers;
static int current, alive, moves;  // arrivals at barriers and ends of threads
static void (*body)();

struct Barrier {
    int arrived = 0, turn = 0;
    void wait(int all) {
        const int mine = turn;
        ++moves;
        if (++arrived == all) arrived = 0, ++turn;
        while (turn == mine) swapcontext(&fibers[current].context, &scheduler);
    }
};
static Barrier of_block, of_warp[MOST_WARPS];
static char slots[2][MOST_WARPS][LANES][16];  // of two turns: a lane may be one ahead

static void __syncthreads() { of_block.wait(alive); }
static int __syncthreads_or(int x) {
    static int any;
    __syncthreads();
    any = 0;
    __syncthreads();
    any |= x != 0;
    __syncthreads();
    const int result = any;
    __syncthreads();  // nobody asks again before all have read
    return result;
}

template <typename X> static X from_lane(X x, int lane) {
    const int warp = threadIdx.x / LANES, turn = of_warp[warp].turn & 1;
    memcpy(slots[turn][warp][threadIdx.x % LANES], &x, sizeof x);
    of_warp[warp].wait(LANES);
    memcpy(&x, slots[turn][warp][lane], sizeof x);
    return x;
}
template <typename X> static X __shfl_sync(unsigned, X x, int lane) { return from_lane(x, lane); }
template <typename X> static X __shfl_xor_sync(unsigned, X x, int d) { return from_lane(x, threadIdx.x % LANES ^ d); }
template <typename X> static X __shfl_up_sync(unsigned, X x, int d) {
    const int lane = threadIdx.x % LANES;
    return from_lane(x, lane >= d ? lane - d : lane);
}
static int __reduce_add_sync(unsigned, int x) {
    for (int d = 16; d; d >>= 1) x += __shfl_xor_sync(~0u, x, d);
    return x;
}
static int __reduce_min_sync(unsigned, int x) {
    for (int d = 16; d; d >>= 1) x = min(x, __shfl_xor_sync(~0u, x, d));
    return x;
}
static void __threadfence() {}
template <typename X, typename Y> static X atomicAdd(X* at, Y y) {
    const X before = *at;
    *at += y;
    return before;
}
static unsigned atomicOr(unsigned* at, unsigned y) {
    const unsigned before = *at;
    *at |= y;
    return before;
}
template <typename X> static X __ldcg(const X* at) { return *at; }
template <typename X> static void __stcg(X* at, X x) { *at = x; }

static void one_thread() {
    body();
    fibers[current].done = true;
    --alive, ++moves;
    if (alive && of_block.arrived == alive) of_block.arrived = 0, ++of_block.turn;
    swapcontext(&fibers[current].context, &scheduler);
}

// Whether all threads came to their end: not if some wait for others for ever.
template <typename Call> static bool run_grid(int grid_x, int grid_y, int threads, size_t shared, Call call) {
    static Call* kernel;
    kernel = &call;
    body = [] { (*kernel)(); };
    gridDim.x = grid_x, gridDim.y = grid_y, blockDim.x = threads;
    dynamic_shared = static_cast<char*>(malloc(shared + 16));
    if (int(fibers.size()) < threads) fibers.resize(threads);
    const bool reverse = getenv("FIBERS_REVERSE") != nullptr;
    for (int b = 0; b < grid_x * grid_y; ++b) {
        const int block = reverse ? grid_x * grid_y - 1 - b : b;
        blockIdx.x = block % grid_x, blockIdx.y = block / grid_x;
        alive = threads, of_block = {};
        memset(dynamic_shared, 0xff, shared);  // whatever was there before
        for (Barrier& barrier : of_warp) barrier = {};
        for (int t = 0; t < threads; ++t) {
            Fiber& fiber = fibers[t];
            fiber.done = false;
            getcontext(&fiber.context);
            fiber.context.uc_stack.ss_sp = fiber.stack;
            fiber.context.uc_stack.ss_size = STACK;
            fiber.context.uc_link = &scheduler;
            makecontext(&fiber.context, one_thread, 0);
        }
        for (int before = -1; alive && moves != before;) {
            before = moves;
            for (int i = 0; i < threads; ++i) {
                const int t = reverse ? threads - 1 - i : i;
                if (fibers[t].done) continue;
                current = threadIdx.x = t;
                swapcontext(&scheduler, &fibers[t].context);
            }
        }
        if (alive) return false;
    }
    free(dynamic_shared);
    return true;
}
