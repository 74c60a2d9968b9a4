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

// How fast the copying warp goes. Not more than WINDOW tiles are on their way at a time, nor more than one in PACE
// cycles: what the blocks tell each other would queue behind them.
struct Speed {
    Turn landed;
    int under_way = 0;
    u32 last = 0;
    DEVICE void wait(Shared& s) {
        if (under_way == WINDOW) {
            barrier_wait(&s.full[landed.slot], landed.lap);
            landed.next();
        } else
            ++under_way;
#if PACE
        while (u32(clock()) - last < PACE) {}
        last = u32(clock());
#endif
    }
};

// Lanes of the copying warp: all tiles of one product of a layer.
template <int P>
DEVICE void copy_weights(Shared& s, Turn& turn, Speed& speed, const bf16* weight, u64 policy) {
    constexpr int K = columns(P), GROUPS_OF = units_a_tile(P);
    const int first = s.share.first[P], count = s.share.count[P], lane = threadIdx.x & 31;
    for (int g = 0; g * GROUPS_OF < count; ++g) {
        const int row = lane < TILE_ROWS ? weight_row<P>(first, count, g, lane) : -1;
        const int rows = __popc(__ballot_sync(~0u, row >= 0));
        for (int column = 0; column < K; column += CHUNK) {
            const u32 bytes = 2 * (K - column < CHUNK ? K - column : CHUNK);
            speed.wait(s);
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

// Sums of a tile's rows for four tokens. A product has 16 rows of weights and 8 columns of activations: the 16 bytes a
// lane reads of a row lie in two of them, so a token has two columns with its activations for either half.
struct Sums {
    float4 of[ceil_div(TOKENS, 4)] = {};
    DEVICE float token(int quad) const { return of[quad].x + of[quad].w; }
    DEVICE void add(const Sums& other) {
#pragma unroll
        for (int i = 0; i < ceil_div(TOKENS, 4); ++i) of[i].x += other.of[i].x, of[i].w += other.of[i].w;
    }
};

template <int P> struct Operands {
    static constexpr int K = columns(P), WIDTH = K < CHUNK ? K : CHUNK, QUADS = ceil_div(TOKENS, 4);
    static constexpr int STEPS = ceil_div(WIDTH, 32 * WARPS), STEP = 64 * WARPS;  // of a tile; bytes of a row a step
    uint2 x[STEPS][QUADS];
    uint4 w[STEPS];
    int thread;

    // Of the tile from this column on; lane (g, c) has token g / 2 of each quad.
    DEVICE bool here(int column, int i) const {
        return K % CHUNK == 0 || 2 * column + i * STEP + (thread >> 5) * 64 < 2 * K;
    }
    DEVICE int mine() const { return (thread >> 5) * 64 + (thread & 3) * 16; }  // bytes into a step

    DEVICE void load_activations(const Shared& s, int column, int tokens) {
        const int g = (thread & 31) >> 2;
#pragma unroll
        for (int i = 0; i < STEPS; ++i)
#pragma unroll
            for (int quad = 0; quad < QUADS; ++quad) {
                const int token = 4 * quad + g / 2;
                x[i][quad] = make_uint2(0, 0);
                if (token >= tokens || !here(column, i)) continue;
                const char* at = s.x + token * pitch(K) + 2 * column + i * STEP + mine();
                const uint4 all = *reinterpret_cast<const uint4*>(at);
                x[i][quad] = g % 2 ? make_uint2(all.y, all.w) : make_uint2(all.x, all.z);
            }
    }
    DEVICE void load_weights(const Shared& s, int slot, int column) {
        const char* at = s.ring[slot] + ((thread & 31) >> 2) * TILE_PITCH + mine();
#pragma unroll
        for (int i = 0; i < STEPS; ++i) {
            w[i] = make_uint4(0, 0, 0, 0);
            if (here(column, i)) w[i] = *reinterpret_cast<const uint4*>(at + i * STEP);
        }
    }
    DEVICE void add_to(Sums& sums, const uint2 (&x)[STEPS][QUADS]) const {
#pragma unroll
        for (int i = 0; i < STEPS; ++i)
#pragma unroll
            for (int quad = 0; quad < QUADS; ++quad)
                multiply(sums.of[quad], w[i].x, w[i].y, w[i].z, w[i].w, x[i][quad].x, x[i][quad].y);
    }
};

DEVICE void give_back(Shared& s, int slot) {
    __syncwarp();
    if ((threadIdx.x & 31) == 0) barrier_arrive(&s.empty[slot]);
}

// This warp's share of the sums of row groups ``first`` to ``first + batch`` into s.partial[flip]. Two tiles at a
// time, so that one's reads go on while the other is waited for.
template <int P>
DEVICE void multiply_batch(Shared& s, Turn& turn, Operands<P> (&two)[2], int tokens, int batch, int flip) {
    constexpr int K = columns(P);
    const int lane = two[0].thread & 31, warp = two[0].thread >> 5;
    const auto save = [&](const Sums& sums, int group) {
#pragma unroll
        for (int quad = 0; quad < ceil_div(TOKENS, 4); ++quad)
            if (const int token = 4 * quad + (lane & 3); token < tokens)
                s.partial[flip][group].of[warp][token][lane >> 2] = sums.token(quad);
    };
    const auto load = [&](int i, int column) {
        const int slot = turn.slot;
        barrier_wait(&s.full[slot], turn.lap);
        if (K > CHUNK) two[i].load_activations(s, column, tokens);
        two[i].load_weights(s, slot, column);
        turn.next();
        return slot;
    };
    const auto one_tile = [&](Sums& sums, int column) {
        const int slot = load(0, column);
        two[0].add_to(sums, two[0].x);
        give_back(s, slot);
    };
    const auto two_tiles = [&](Sums& first_sums, Sums& second_sums, int column, int second_column) {
        const int first = load(0, column), second = load(1, second_column);
        two[0].add_to(first_sums, two[0].x);
        give_back(s, first);
        two[1].add_to(second_sums, two[K > CHUNK].x);
        give_back(s, second);
    };
    if (K > CHUNK) {
        for (int g = 0; g < batch; ++g) {
            Sums sums, others;
            for (int column = 0; column + CHUNK < K; column += 2 * CHUNK)
                two_tiles(sums, others, column, column + CHUNK);
            if (ceil_div(K, CHUNK) % 2) one_tile(sums, (K - 1) / CHUNK * CHUNK);
            sums.add(others);
            save(sums, g);
        }
    } else {
        for (int g = 0; g + 1 < batch; g += 2) {
            Sums first, second;
            two_tiles(first, second, 0, 0);
            save(first, g);
            save(second, g + 1);
        }
        if (batch % 2) {
            Sums last;
            one_tile(last, 0);
            save(last, batch - 1);
        }
    }
}

// s.x [tokens, columns(P)] times this block's rows; ``finish(unit, token, a, b)`` gets both sums of a unit (gate and
// up rows: ``finish(unit, token, gates, ups)``), in a thread each. Reads s.x, and is done with it when it returns.
template <int P, class Finish>
DEVICE void product(Shared& s, Turn& turn, int tokens, int& flip, Finish finish) {
    constexpr int UNITS = units_a_tile(P), PAIRS = BATCH * UNITS;
    const int count = s.share.count[P], groups = ceil_div(count, UNITS);
    Operands<P> two[2];
    const int thread = two[0].thread = two[1].thread = this_thread();
    if (columns(P) <= CHUNK) two[0].load_activations(s, 0, tokens);
    for (int first = 0; first < groups; first += BATCH) {
        multiply_batch<P>(s, turn, two, tokens, groups - first < BATCH ? groups - first : BATCH, flip);
        team_sync();
        const int pair = thread % PAIRS, t = thread / PAIRS, unit = first * UNITS + pair;
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
