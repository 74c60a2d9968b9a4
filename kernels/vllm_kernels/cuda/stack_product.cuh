// Products of activations in shared memory with weights that stream through a ring of tiles. One warp copies all
// tiles of all layers in the order in which they are used and never waits for activations: while the blocks wait for
// each other, the ring fills. Every other warp takes its columns of each tile; sums over warps follow a few row groups
// later.
#pragma once
#include "stack_exchange.cuh"

// Where a warp stands in the endless sequence of tiles.
struct Turn {
    int slot = 0;
    u32 lap = 0;
    DEVICE void next() {
        if (++slot == STAGES) {
            slot = 0;
            lap ^= 1;
        }
    }
};

// Lanes of the copying warp: all tiles of one product of a layer.
template <int P> DEVICE void copy_weights(Shared& s, Turn& turn, const Share& share, const bf16* weight, u64 policy) {
    constexpr int K = columns(P), GROUPS_OF = units_a_tile(P);
    const int first = share.first[P], count = share.count[P], lane = threadIdx.x & 31;
    for (int g = 0; g * GROUPS_OF < count; ++g) {
        const int row = lane < TILE_ROWS ? weight_row<P>(first, count, g, lane) : -1;
        const int rows = __popc(__ballot_sync(~0u, row >= 0));
        for (int column = 0; column < K; column += CHUNK) {
            const u32 bytes = 2 * (K - column < CHUNK ? K - column : CHUNK);
            barrier_wait(&s.empty[turn.slot], turn.lap ^ 1);
            if (lane == 0) barrier_expect(&s.full[turn.slot], rows * bytes);
            __syncwarp();
            if (row >= 0)
                bulk_copy(s.ring[turn.slot] + lane * TILE_PITCH, weight + i64(row) * K + column, bytes,
                          &s.full[turn.slot], policy);
            turn.next();
        }
    }
}

// s.x [tokens, columns(P)] times this block's rows; ``finish(unit, token, a, b)`` gets both sums of a unit (gate and
// up rows: ``finish(unit, token, gates, ups)``), in a thread each. Reads s.x, and is done with it when it returns.
template <int P, class Finish>
DEVICE void product(Shared& s, Turn& turn, const Share& share, int tokens, int& flip, Finish finish) {
    constexpr int K = columns(P), UNITS = units_a_tile(P), PAIRS = BATCH * UNITS;
    const int count = share.count[P], lane = threadIdx.x & 31, warp = threadIdx.x >> 5, token = lane >> 2;
    const int groups = ceil_div(count, UNITS);
    const char* x = s.x + token * pitch(K) + warp * 64 + (lane & 3) * 16;
    const int weights = (lane >> 2) * TILE_PITCH + warp * 64 + (lane & 3) * 16;
    for (int first = 0; first < groups; first += BATCH) {
        const int batch = groups - first < BATCH ? groups - first : BATCH;
        for (int g = 0; g < batch; ++g) {
            float2 even = make_float2(0.f, 0.f), odd = even;
            for (int column = 0; column < K; column += CHUNK) {
                barrier_wait(&s.full[turn.slot], turn.lap);
                const char* tile = s.ring[turn.slot] + weights;
                constexpr int STEPS = (K < CHUNK ? ceil_div(K, 32 * WARPS) : CHUNK / (32 * WARPS));
                uint4 a[STEPS], b[STEPS];
#pragma unroll
                for (int i = 0; i < STEPS; ++i) {
                    const int at = (i * WARPS + warp) * 32;
                    const bool here = K % CHUNK == 0 || column + at < K;
                    b[i] = a[i] = make_uint4(0, 0, 0, 0);
                    if (here) b[i] = *reinterpret_cast<const uint4*>(tile + i * WARPS * 64);
                    if (here && token < tokens) a[i] = *reinterpret_cast<const uint4*>(x + 2 * column + i * WARPS * 64);
                }
#pragma unroll
                for (int i = 0; i < STEPS; ++i) {
                    multiply(even, a[i].x, a[i].y, b[i].x, b[i].y);
                    multiply(odd, a[i].z, a[i].w, b[i].z, b[i].w);
                }
                __syncwarp();
                if (lane == 0) barrier_arrive(&s.empty[turn.slot]);
                turn.next();
            }
            if (token < tokens)
                *reinterpret_cast<float2*>(&s.partial[flip][g][warp][token][2 * (lane & 3)]) =
                    make_float2(even.x + odd.x, even.y + odd.y);
        }
        team_sync();
        const int pair = threadIdx.x % PAIRS, t = threadIdx.x / PAIRS, unit = first * UNITS + pair;
        if (t < tokens && unit < count) {
            float2 a = make_float2(0.f, 0.f), b = a;
#pragma unroll
            for (int w = 0; w < WARPS; ++w) {
                const float* sums = s.partial[flip][pair / UNITS][w][t] + 2 * (pair % UNITS);
                a.x += sums[0], a.y += sums[1];
                if (P == GATE_UP) b.x += sums[4], b.y += sums[5];
            }
            finish(share.first[P] + unit, t, a, b);
        }
        flip ^= 1;
    }
}

DEVICE float activation(float gate) {
    if (ACT == 0) return gate / (1.f + __expf(-gate));
    if (ACT == 1) return 0.5f * gate * (1.f + erff(gate * 0.70710678f));
    return 0.5f * gate * (1.f + tanhf(0.79788456f * (gate + 0.044715f * gate * gate * gate)));
}
