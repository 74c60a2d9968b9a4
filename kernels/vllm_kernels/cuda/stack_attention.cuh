// Attention of one query a sequence over its pages, split over blocks, and the sum over splits.
#pragma once
#include "stack_exchange.cuh"

struct Pages {
    const int* table;  // [tokens, width], page of each block of a token's sequence
    int width, block_bits;
    i64 k_page, v_page;                    // strides in elements
    int k_token, k_head, v_token, v_head;
    float scale, qk_eps;
};

#ifndef EXPECT
#define EXPECT 512  // cached tokens of a part that are on their way to the L2 cache a layer ahead
#endif
constexpr int SPAN = 16;                 // cached tokens of a tile: a warp's, at a time
constexpr int K_LOADS = HEAD_DIM / 32;   // of 16 bytes a lane, for 8 tokens' keys
constexpr int V_LOADS = HEAD_DIM / 64;   // for a token's values
constexpr float NONE = -1e30f;

// The cache is split so that every part is worth a block, as far as there are blocks. Once a launch, by one thread.
DEVICE void set_parts(Shared& s, int tokens) {
    int most = int(gridDim.x) / (tokens * KV_HEADS);
    most = most < 1 ? 1 : most > MOST_SPLITS ? MOST_SPLITS : most;
    for (int t = 0; t < tokens; ++t) {
        const int wanted = ceil_div(s.lengths[t] - 1, SPLIT);
        s.splits[t] = wanted < 1 ? 1 : wanted > most ? most : wanted;
    }
    s.num_parts = 0;
    for (int i = blockIdx.x; i < tokens * KV_HEADS * most; i += gridDim.x) {
        const int token = i / KV_HEADS % tokens, split = i / (KV_HEADS * tokens), splits = s.splits[token];
        if (split >= splits) continue;
        const int cached = s.lengths[token] - 1;
        const int each = ceil_div(ceil_div(cached, splits), SPAN) * SPAN, begin = split * each;  // no tile in two pages
        const int end = begin + each < cached ? begin + each : cached;
        s.parts[s.num_parts++] = {i % KV_HEADS, token, split, splits, begin, end};
    }
}

// The next layer's keys and values of this block on their way to the L2 cache, as far as the first loads go.
DEVICE void expect_cache(const Shared& s, const LayerRecord& layer, const Pages& pages) {
    if (s.num_parts == 0) return;
    const Part part = s.parts[0];
    const int* table = pages.table + i64(part.token) * pages.width;
    constexpr int LINES = ceil_div(2 * HEAD_DIM, 128);
    for (int i = threadIdx.x; i < EXPECT * LINES; i += TEAM) {
        const int at = part.begin + i / LINES, offset = i % LINES * 64;
        if (at >= part.end) break;
        const i64 page = __ldg(table + (at >> pages.block_bits));
        const int token = at & ((1 << pages.block_bits) - 1);
        prefetch_l2(layer.k_pages + page * pages.k_page + token * pages.k_token + part.head * pages.k_head + offset);
        prefetch_l2(layer.v_pages + page * pages.v_page + token * pages.v_token + part.head * pages.v_head + offset);
    }
}

// A tile of keys and values as the products want them. Lane (g = lane / 4, c = lane % 4) has of the keys of tokens g
// and 8 + g the elements 32 i + 8 c and on, and of the values of tokens 2c, 2c + 1, 2c + 8 and 2c + 9 the elements
// 64 i + 8 g and on. Beyond the end there are zeros: whatever lies there is not read.
struct Tile {
    uint4 k[2][K_LOADS], v[4][V_LOADS];

    // from: the tile's first key, of which ``tokens`` count.
    DEVICE void load_keys(const bf16* from, int stride, int tokens) {
        const int thread = this_thread(), g = (thread & 31) >> 2, c = thread & 3;
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
            for (int i = 0; i < K_LOADS; ++i) {
                k[h][i] = make_uint4(0, 0, 0, 0);
                if (8 * h + g < tokens) k[h][i] = load_once(from + (8 * h + g) * stride + 32 * i + 8 * c);
            }
    }
    // Of one token only, from shared memory.
    DEVICE void set(const bf16* key, const bf16* value) {
        const int thread = this_thread(), g = (thread & 31) >> 2, c = thread & 3;
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
            for (int i = 0; i < K_LOADS; ++i)
                k[h][i] = h == 0 && g == 0 ? load_here(key + 32 * i + 8 * c) : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int h = 0; h < 4; ++h)
#pragma unroll
            for (int i = 0; i < V_LOADS; ++i)
                v[h][i] = h == 0 && c == 0 ? load_here(value + 64 * i + 8 * g) : make_uint4(0, 0, 0, 0);
    }
    DEVICE void load_values(const bf16* from, int stride, int tokens) {
        const int thread = this_thread(), g = (thread & 31) >> 2, c = thread & 3;
#pragma unroll
        for (int h = 0; h < 4; ++h)
#pragma unroll
            for (int i = 0; i < V_LOADS; ++i) {
                const int token = 2 * c + (h & 1) + 8 * (h >> 1);
                v[h][i] = make_uint4(0, 0, 0, 0);
                if (token < tokens) v[h][i] = load_once(from + token * stride + 64 * i + 8 * g);
            }
    }
};

// Element e of lane's values of two tokens, in one word.
DEVICE u32 pair_of(const uint4 (&a)[V_LOADS], const uint4 (&b)[V_LOADS], int e) {
    const uint4 &x = a[e / 8], &y = b[e / 8];
    const int word = e % 8 / 2;
    const u32 first = word == 0 ? x.x : word == 1 ? x.y : word == 2 ? x.z : x.w;
    const u32 second = word == 0 ? y.x : word == 1 ? y.y : word == 2 ? y.z : y.w;
    return __byte_perm(first, second, e % 2 ? 0x7632 : 0x5410);
}

// What a warp has seen of the cache. Lane (g, c) knows of query head g a running maximum of its scores, in powers of
// two, and its lanes' share of the weights relative to it; of query heads 2c (x, z) and 2c + 1 (y, w) elements
// t (x, y) and t + EACH (z, w) of those that it loads of the values, weighted and summed.
struct Seen {
    static constexpr int EACH = 4 * V_LOADS;
    float maximum = NONE, weight = 0.f;
    float4 sums[EACH] = {};

    // Weights of the tile's tokens, as the product with values wants them.
    DEVICE uint2 look(const Tile& tile, const AttentionScratch& a, float scale, int tokens) {
        const int thread = this_thread(), g = (thread & 31) >> 2, c = thread & 3;
        float4 scores[2][2] = {};
#pragma unroll
        for (int i = 0; i < K_LOADS; ++i) {
            const uint4 q = g < GROUP ? load_here(a.q[g] + 32 * i + 8 * c) : make_uint4(0, 0, 0, 0);
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                multiply(scores[h][0], q.x, 0, q.y, 0, tile.k[h][i].x, tile.k[h][i].y);
                multiply(scores[h][1], q.z, 0, q.w, 0, tile.k[h][i].z, tile.k[h][i].w);
            }
        }
        float p[4] = {scores[0][0].x + scores[0][1].x, scores[0][0].y + scores[0][1].y,
                      scores[1][0].x + scores[1][1].x, scores[1][0].y + scores[1][1].y};
        float most = maximum;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            p[i] = 2 * c + (i & 1) + 8 * (i >> 1) < tokens ? p[i] * scale : NONE;
            most = fmaxf(most, p[i]);
        }
        most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
        most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
        const float shrink = exp2_fast(maximum - most);
        maximum = most;
        weight *= shrink;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            p[i] = exp2_fast(p[i] - most);
            weight += p[i];
        }
        const float even = __shfl_sync(~0u, shrink, 8 * c), odd = __shfl_sync(~0u, shrink, 8 * c + 4);
#pragma unroll
        for (int t = 0; t < EACH; ++t)
            sums[t] = make_float4(sums[t].x * even, sums[t].y * odd, sums[t].z * even, sums[t].w * odd);
        return make_uint2(pack(p[0], p[1]), pack(p[2], p[3]));
    }

    DEVICE void add(const Tile& tile, uint2 p) {
#pragma unroll
        for (int t = 0; t < EACH; ++t)
            multiply(sums[t], pair_of(tile.v[0], tile.v[1], t), pair_of(tile.v[0], tile.v[1], t + EACH),
                     pair_of(tile.v[2], tile.v[3], t), pair_of(tile.v[2], tile.v[3], t + EACH), p.x, p.y);
    }

    DEVICE void save(AttentionScratch& a) {
        const int thread = this_thread(), lane = thread & 31, warp = thread >> 5, g = lane >> 2, c = lane & 3;
        weight += __shfl_xor_sync(~0u, weight, 1);
        weight += __shfl_xor_sync(~0u, weight, 2);
        if (c == 0 && g < GROUP) a.maximum[warp][g] = maximum, a.weight[warp][g] = weight;
#pragma unroll
        for (int t = 0; t < EACH; ++t) {
            const int first = 64 * (t / 8) + 8 * g + t % 8, second = 64 * ((t + EACH) / 8) + 8 * g + (t + EACH) % 8;
            if (2 * c < GROUP) a.sums[warp][2 * c][first] = sums[t].x, a.sums[warp][2 * c][second] = sums[t].z;
            if (2 * c + 1 < GROUP)
                a.sums[warp][2 * c + 1][first] = sums[t].y, a.sums[warp][2 * c + 1][second] = sums[t].w;
        }
    }
};
