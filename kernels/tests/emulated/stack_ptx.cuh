// In the place of cuda/stack_ptx.cuh: the same functions by emulated threads.
#pragma once
#include "common.cuh"

#define DEVICE inline

DEVICE void not_for_ever(u32&) { emulated::give_way("another block's words"); }
DEVICE void barrier_init(u64* p, int arrivals) {
    auto& b = emulated::barrier(p);
    b.bytes = b.parity = 0;
    b.missing = b.expected = arrivals;
}
DEVICE void barriers_ready() {}
DEVICE void barrier_arrive(u64* p) { emulated::barrier(p).arrive(0); }
DEVICE void barrier_expect(u64* p, u32 bytes) { emulated::barrier(p).arrive(bytes); }
DEVICE void barrier_wait(u64* p, u32 parity) {
    emulated::wait("a barrier in shared memory", [=] { return emulated::barrier(p).parity != parity; });
}
DEVICE u64 streaming_policy() { return 0; }
DEVICE void bulk_copy(void* to, const void* from, u32 bytes, u64* barrier, u64) {
    if (bytes % 16 || u64(to) % 16 || u64(from) % 16) emulated::fail("a bulk copy is not aligned to 16 bytes");
    if (!emulated::is_shared(to) || emulated::is_shared(from)) emulated::fail("a bulk copy is not into shared memory");
    emulated::copies.push_back({to, from, bytes, barrier});
}
DEVICE void prefetch_l2(const void*) {}
DEVICE uint4 load_once(const void* p) {
    if (u64(p) % 16 || emulated::is_shared(p)) emulated::fail("16 aligned bytes of global memory were meant");
    return *static_cast<const uint4*>(p);
}
DEVICE uint4 load_here(const void* p) {
    if (u64(p) % 16 || !emulated::is_shared(p)) emulated::fail("16 aligned bytes of shared memory were meant");
    return *static_cast<const uint4*>(p);
}
DEVICE void load_words(const u64* p, u64& a, u64& b) {
    if (u64(p) % 16) emulated::fail("two words are not aligned to 16 bytes");
    a = p[0], b = p[1];
}
DEVICE u64 load_word(const u64* p) { return *p; }
DEVICE void store_word(u64* p, u64 a) {
    *p = a;
    ++emulated::progress;
}

DEVICE float half_of(u32 x, int i) { return __uint_as_float(i ? x & 0xffff0000u : x << 16); }
DEVICE void multiply(float4& d, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    auto& given = emulated::self->warp->given;
    const int lane = emulated::self->lane, g = lane >> 2, c = lane & 3;
    const u32 mine[6] = {a0, a2, a1, a3, b0, b1};
    std::copy(mine, mine + 6, given[lane]);
    emulated::meet_warp();
    float* result[4] = {&d.x, &d.y, &d.z, &d.w};
    for (int j = 0; j < 4; ++j)
        for (int k = 0; k < 4; ++k)
            for (int i = 0; i < 4; ++i)
                *result[j] += half_of(given[4 * g + k][j / 2 * 2 + i / 2], i % 2) *
                              half_of(given[4 * (2 * c + j % 2) + k][4 + i / 2], i % 2);
    emulated::meet_warp();
}
DEVICE float exp2_fast(float x) { return exp2f(x); }
DEVICE int this_thread() { return threadIdx.x; }
DEVICE void team_sync() { emulated::meet(emulated::self->block->team, 256, "the warps that compute"); }
