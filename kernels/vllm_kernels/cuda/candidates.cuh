// A list of a line's logits within bounds, in shared memory, and how each stands in it.
#pragma once
#include "lines.cuh"

namespace {

constexpr int LIST = THREADS;
constexpr double UNIT = 0x1p40;  // fixed point: sums do not depend on the order of a list that atomics made

struct Shared {
    double scratch[WARPS];
    double share, weights[3][WARPS];
    u64 weight[LIST];
    float logit[LIST];
    int id[LIST];
    int tile, listed, counts[3][WARPS];
    bool last;
};

struct Candidates {
    const Line& line;
    const float* largest;  // [tiles]
    int tiles;
    float top, rate;  // largest logit; log2(e) / temperature
    Shared& shared;

    __device__ __forceinline__ float weight(float x) const { return exp2_of((x - top) * rate); }

    // Logits in [from, below) with their tokens and weights, in any order; shared.listed may exceed what is kept.
    __device__ void gather(float from, float below) {
        if (threadIdx.x == 0) shared.listed = 0;
        __syncthreads();
        for (int tile = threadIdx.x >> 5; tile < tiles; tile += WARPS) {
            if (largest[tile] < from) continue;
            float v[EACH];
            line.read(tile, v);
            u32 chosen = 0;
#pragma unroll
            for (int e = 0; e < EACH; ++e) chosen |= u32(v[e] >= from && v[e] < below) << e;
            if (!chosen) continue;
            int at = atomicAdd(&shared.listed, __popc(chosen));
            for (; chosen && at < LIST; chosen &= chosen - 1, ++at) {
                const int id = Line::place(tile, __ffs(chosen) - 1);
                const float x = line[id];
                shared.id[at] = id;
                shared.logit[at] = x;
                shared.weight[at] = __float2ull_rn(weight(x) * float(UNIT));
            }
        }
        __syncthreads();
    }

    // Of the listed logits: how many are at or above the thread's own, and their weight.
    __device__ __forceinline__ void rank(int& count, u64& sum, float& mine) {
        const int n = shared.listed, i = threadIdx.x;
        mine = i < n ? shared.logit[i] : -INFINITE;
        count = 0, sum = 0;
        if (i >= n) return;
#pragma unroll 4
        for (int j = 0; j < n; ++j) {
            if (shared.logit[j] >= mine) ++count, sum += shared.weight[j];
        }
    }
};

}  // namespace
