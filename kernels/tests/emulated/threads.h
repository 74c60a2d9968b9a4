// CUDA threads on one CPU thread: each is a coroutine that gives way where it would wait. A round runs all warps in a
// random order and holds one block back now and then; copies land at random times. What CUDA promises holds here too,
// and nothing more, so a missing barrier shows as a wrong result for some seeds and a missing arrival as a deadlock.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <ucontext.h>
#include <vector>

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
typedef unsigned short u16;
struct uint2 { u32 x, y; };
struct alignas(16) uint4 { u32 x, y, z, w; };
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline uint2 make_uint2(u32 x, u32 y) { return {x, y}; }
inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulated {
struct Meeting { int here = 0, times = 0; };  // of as many threads as are expected
struct Warp : Meeting { u32 given[32][6]; };
struct Index { u32 x; };
struct Block {
    std::unique_ptr<char[]> room;
    char* memory;  // shared memory
    Index index;
    std::vector<Warp> warps;
    Meeting team, all;
};
struct Thread {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    Block* block;
    Warp* warp;
    Index index;
    int lane;
    bool ended = false;
    const char* waits_for = "";
};
struct Copy { void* to; const void* from; u32 bytes; u64* barrier; };

inline Thread* self;
inline Index grid, block_size;
inline ucontext_t scheduler;
inline u64 progress;
inline std::vector<Copy> copies;

inline void give_way(const char* waits_for) {
    self->waits_for = waits_for;
    swapcontext(&self->context, &scheduler);
}
template <class Over> void wait(const char* what, Over over) {
    while (!over()) give_way(what);
    ++progress;
}
inline void meet(Meeting& m, int expected, const char* what) {
    const int times = m.times;
    if (++m.here < expected) return wait(what, [&] { return m.times != times; });
    m.here = 0;
    ++m.times;
}
inline void meet_warp() { meet(*self->warp, 32, "the rest of the warp"); }
[[noreturn]] inline void fail(const char* why) {
    fprintf(stderr, "block %u, thread %u: %s\n", self->block->index.x, self->index.x, why);
    exit(3);
}
inline u32 from_lane(u32 x, int lane) {
    self->warp->given[self->lane][0] = x;
    meet_warp();
    const u32 result = self->warp->given[lane & 31][0];
    meet_warp();
    return result;
}
inline bool is_shared(const void* p) {
    const char *at = static_cast<const char*>(p), *memory = self->block->memory;
    return at >= memory && at < memory + SHARED;
}

// An mbarrier in its 8 bytes: bytes under way, parity, arrivals missing and expected.
struct Barrier {
    int bytes : 24;
    unsigned parity : 8;
    u16 missing, expected;
    void arrive(int new_bytes) {
        if (!missing) fail("a barrier has more arrivals than it expects");
        bytes += new_bytes;
        --missing;
        turn();
    }
    void turn() {
        if (missing || bytes) return;
        parity ^= 1;
        missing = expected;
    }
};
static_assert(sizeof(Barrier) == 8);
inline Barrier& barrier(u64* p) { return *reinterpret_cast<Barrier*>(p); }

inline void land_some(std::mt19937& random) {
    for (size_t i = 0; i < copies.size();) {
        if (random() % 3) {
            ++i;
            continue;
        }
        const Copy copy = copies[i];
        memcpy(copy.to, copy.from, copy.bytes);
        barrier(copy.barrier).bytes -= copy.bytes;
        barrier(copy.barrier).turn();
        copies[i] = copies.back();
        copies.pop_back();
        ++progress;
    }
}

inline std::function<void()> body;
inline void start() {
    body();
    self->ended = true;
    ++progress;
    while (true) give_way("nothing");
}

// 0: all threads ended; 1: nobody goes on; 2: copies are left.
inline int run(int blocks, int threads, int seed, std::function<void()> kernel) {
    body = std::move(kernel);
    grid.x = blocks, block_size.x = threads;
    copies.clear();
    std::mt19937 random(seed);
    const int warps = threads / 32;
    std::vector<Block> all(blocks);
    std::vector<std::unique_ptr<Thread>> made;
    for (int b = 0; b < blocks; ++b) {
        Block& block = all[b];
        block.room.reset(new char[SHARED + 128]);
        block.memory = block.room.get() + (128 - u64(block.room.get()) % 128) % 128;
        memset(block.memory, 0xff, SHARED);  // NaN: whoever reads what was not written is found out
        block.index.x = b;
        block.warps.resize(warps);
        for (int t = 0; t < threads; ++t) {
            auto thread = std::make_unique<Thread>();
            thread->stack.reset(new char[1 << 17]);
            thread->block = &block, thread->warp = &block.warps[t / 32], thread->index.x = t, thread->lane = t % 32;
            getcontext(&thread->context);
            thread->context.uc_stack.ss_sp = thread->stack.get();
            thread->context.uc_stack.ss_size = 1 << 17;
            makecontext(&thread->context, start, 0);
            made.push_back(std::move(thread));
        }
    }
    std::vector<int> order(blocks * warps);
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    int idle = 0, left = 1;
    while (left) {
        left = 0;
        const u64 before = progress;
        std::shuffle(order.begin(), order.end(), random);
        const int held = random() % (2 * blocks);
        for (const int warp : order)
            for (int lane = 0; lane < 32; ++lane) {
                self = made[warp * 32 + lane].get();
                if (warp / warps != held && !self->ended) swapcontext(&scheduler, &self->context);
                left += !self->ended;
            }
        land_some(random);
        idle = progress == before ? idle + 1 : 0;
        if (idle < 400) continue;
        for (const auto& t : made)
            if (!t->ended && t->lane == 0)
                fprintf(stderr, "block %u, warp %u waits for %s\n", t->block->index.x, t->index.x / 32, t->waits_for);
        return 1;
    }
    return copies.empty() ? 0 : 2;
}
}  // namespace emulated

#define threadIdx (emulated::self->index)
#define blockIdx (emulated::self->block->index)
#define gridDim (emulated::grid)
#define memory (emulated::self->block->memory)
#define __device__
#define __global__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)

inline float __uint_as_float(u32 x) { float y; memcpy(&y, &x, 4); return y; }
inline u32 __float_as_uint(float x) { u32 y; memcpy(&y, &x, 4); return y; }
inline float __shfl_xor_sync(u32, float x, int d) {
    return __uint_as_float(emulated::from_lane(__float_as_uint(x), emulated::self->lane ^ d));
}
inline float __shfl_down_sync(u32, float x, int d) {
    const int lane = emulated::self->lane;
    return __uint_as_float(emulated::from_lane(__float_as_uint(x), lane + d < 32 ? lane + d : lane));
}
inline float __shfl_sync(u32, float x, int lane) {
    return __uint_as_float(emulated::from_lane(__float_as_uint(x), lane));
}
inline u32 __ballot_sync(u32, bool x) {
    u32 all = 0;
    emulated::self->warp->given[emulated::self->lane][0] = x;
    emulated::meet_warp();
    for (int i = 0; i < 32; ++i) all |= emulated::self->warp->given[i][0] << i;
    emulated::meet_warp();
    return all;
}
inline void __syncwarp() { emulated::meet_warp(); }
inline void __syncthreads() { emulated::meet(emulated::self->block->all, emulated::block_size.x, "the whole block"); }
inline void __nanosleep(int) {}
inline int __popc(u32 x) { return __builtin_popcount(x); }
inline u32 __byte_perm(u32 a, u32 b, u32 selector) {
    const u64 bytes = u64(b) << 32 | a;
    u32 result = 0;
    for (int i = 0; i < 4; ++i) result |= u32(bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
    return result;
}
inline int __ldg(const int* p) { return *p; }
inline float __expf(float x) { return expf(x); }
inline float rsqrtf(float x) { return 1.f / sqrtf(x); }
