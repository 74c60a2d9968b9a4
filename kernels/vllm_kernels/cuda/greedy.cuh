// The first of a line's largest logits: one pass, in which every warp keeps its best.
#pragma once
#include "lines.cuh"

namespace {

// A logit with its token, such that the largest number is the first of the largest logits; 0 is nothing.
__device__ __forceinline__ u64 ranked(float x, int id) { return u64(key_of(x, 0)) << 32 | (0xffffffffu - id); }

__device__ __forceinline__ u64 warp_largest(u64 x) {
#pragma unroll
    for (int d = 16; d; d >>= 1) x = Largest::of(x, __shfl_xor_sync(~0u, x, d));
    return x;
}

// All of a greedy line by its blocks. ``found``: work space, a number a block.
__device__ __forceinline__ void take_largest(const Line& line, int tiles, u64* found, int* arrived, i64* token,
                                             float4* facts, u64* scratch) {
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, blocks = gridDim.x;
    u64 best = 0;
    for (int tile = blockIdx.x * WARPS + warp; tile < tiles; tile += blocks * WARPS) {
        float v[EACH];
        line.read(tile, v);
        const float m = largest_of(v);
        if (best && key_of(m, 0) <= u32(best >> 32)) continue;
        int id = NONE;
#pragma unroll
        for (int e = EACH - 1; e >= 0; --e) id = v[e] == m ? Line::place(tile, e) : id;
        id = __reduce_min_sync(~0u, id);
        if (id < line.size) best = ranked(m, id);  // else all of it is NaN
    }
    if (lane == 0) scratch[warp] = best;
    __syncthreads();
    if (warp) return;
    best = warp_largest(lane < WARPS ? scratch[lane] : 0);
    if (blocks > 1) {
        int before = 0;
        if (lane == 0) {
            __stcg(found + blockIdx.x, best);
            __threadfence();
            before = atomicAdd(arrived, 1);
        }
        if (__shfl_sync(~0u, before, 0) != blocks - 1) return;
        __threadfence();
        best = 0;
        for (int i = lane; i < blocks; i += 32) best = Largest::of(best, __ldcg(found + i));
        best = warp_largest(best);
        if (lane == 0) *arrived = 0;
    }
    if (lane == 0) {
        *token = best ? 0xffffffffu - u32(best) : 0;
        if (facts != nullptr) *facts = make_float4(of_key(u32(best >> 32), 0), -INFINITE, 0.f, 0.f);
    }
}

}  // namespace
