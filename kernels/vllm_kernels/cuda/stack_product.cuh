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
// Not more than WINDOW tiles are on their way at a time: more would not come faster, and all that the blocks tell
// each other would queue behind them.
template <int P>
DEVICE void copy_weights(Shared& s, Turn& turn, Turn& landed, int& under_way, const bf16* weight, u64 policy) {
    constexpr int K = columns(P), GROUPS_OF = units_a_tile(P);
    const int first = s.share.first[P], count = s.share.count[P], lane = threadIdx.x & 31;
    for (int g = 0; g * GROUPS_OF < count; ++g) {
        const int row = lane < TILE_ROWS ? weight_row<P>(first, count, g, lane) : -1;
        const int rows = __popc(__ballot_sync(~0u, row >= 0));
        for (int column = 0; column < K; column += CHUNK) {
            const u32 bytes = 2 * (K - column < CHUNK ? K - column : CHUNK);
            if (under_way == WINDOW) {
                barrier_wait(&s.full[landed.slot], landed.lap);
                landed.next();
            } else
                ++under_way;
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
DEVICE void product(Shared& s, Turn& turn, int tokens, int& flip, Finish finish) {
    constexpr int K = columns(P), UNITS = units_a_tile(P), PAIRS = BATCH * UNITS;
    constexpr int STEPS = ceil_div(K < CHUNK ? K : CHUNK, 32 * WARPS), STEP = 64 * WARPS;  // of a tile; bytes
    const int count = s.share.count[P], lane = threadIdx.x & 31, warp = threadIdx.x >> 5, token = lane >> 2;
    const int groups = ceil_div(count, UNITS), mine = warp * 64 + (lane & 3) * 16;  // bytes into a step
    const char *x = s.x + token * pitch(K) + mine, *weights = s.ring[0] + (lane >> 2) * TILE_PITCH + mine;
    const auto here = [&](int column, int i) { return K % CHUNK == 0 || 2 * column + i * STEP + warp * 64 < 2 * K; };
    uint4 a[STEPS], b[STEPS];
    const auto activations = [&](int column) {
#pragma unroll
        for (int i = 0; i < STEPS; ++i) {
            a[i] = make_uint4(0, 0, 0, 0);
            if (token < tokens && here(column, i)) a[i] = *reinterpret_cast<const uint4*>(x + 2 * column + i * STEP);
        }
    };
    if (K <= CHUNK) activations(0);
    for (int first = 0; first < groups; first += BATCH) {
        const int batch = groups - first < BATCH ? groups - first : BATCH;
        for (int g = 0; g < batch; ++g) {
            float2 sums[4] = {};
            for (int column = 0; column < K; column += CHUNK) {
                if (K > CHUNK) activations(column);
                barrier_wait(&s.full[turn.slot], turn.lap);
#pragma unroll
                for (int i = 0; i < STEPS; ++i) {
                    b[i] = make_uint4(0, 0, 0, 0);
                    if (here(column, i))
                        b[i] = *reinterpret_cast<const uint4*>(weights + turn.slot * TILE_BYTES + i * STEP);
                }
                __syncwarp();
                if (lane == 0) barrier_arrive(&s.empty[turn.slot]);
                turn.next();
#pragma unroll
                for (int i = 0; i < STEPS; ++i) {
                    multiply(sums[i % 2 * 2], a[i].x, a[i].y, b[i].x, b[i].y);
                    multiply(sums[i % 2 * 2 + 1], a[i].z, a[i].w, b[i].z, b[i].w);
                }
            }
            if (token < tokens)
                *reinterpret_cast<float2*>(&s.partial[flip][g].of[warp][token][2 * (lane & 3)]) =
                    make_float2(sums[0].x + sums[1].x + sums[2].x + sums[3].x,
                                sums[0].y + sums[1].y + sums[2].y + sums[3].y);
        }
        team_sync();
        const int pair = threadIdx.x % PAIRS, t = threadIdx.x / PAIRS, unit = first * UNITS + pair;
        if (t < tokens && unit < count) {
            float2 a = make_float2(0.f, 0.f), b = a;
#pragma unroll
            for (int w = 0; w < WARPS; ++w) {
                const float* sums = s.partial[flip][pair / UNITS].of[w][t] + 2 * (pair % UNITS);
                a.x += sums[0], a.y += sums[1];
                if (P == GATE_UP) b.x += sums[4], b.y += sums[5];
            }
            finish(s.share.first[P] + unit, t, a, b);
        }
        flip ^= 1;
    }
}

DEVICE float activation(float gate) {
    if (ACT == 0) return gate / (1.f + __expf(-gate));
    if (ACT == 1) return 0.5f * gate * (1.f + erff(gate * 0.70710678f));
    return 0.5f * gate * (1.f + tanhf(0.79788456f * (gate + 0.044715f * gate * gate * gate)));
}
