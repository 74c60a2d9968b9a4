// Attention of one query a sequence over its pages, split over blocks, and the sum over splits.
#pragma once
#include "stack_exchange.cuh"

struct Pages {
    const int* table;  // [tokens, width], page of each block of a token's sequence
    int width, block_bits;
    i64 k_page, k_token, k_head, v_page, v_token, v_head;  // strides in elements
    float scale, qk_eps;
};

#ifndef EXPECT
#define EXPECT 512  // cached tokens of a part that are on their way to the L2 cache a layer ahead
#endif
constexpr int LANES = HEAD_DIM / 8;              // that share a cached token, 8 elements each
constexpr int AT_ONCE = 32 / LANES;              // cached tokens a load
constexpr int LOADS = GROUP <= 2 ? 8 : 4, SPAN = LOADS * AT_ONCE;  // cached tokens a warp has in flight
constexpr float NONE = -1e30f;

// The cache is split so that every part is worth a block, as far as there are blocks.
DEVICE int most_splits(int tokens) {
    const int n = int(gridDim.x) / (tokens * KV_HEADS);
    return n < 1 ? 1 : n > MOST_SPLITS ? MOST_SPLITS : n;
}
DEVICE int splits_of(int cached, int most) {
    const int n = ceil_div(cached, SPLIT);
    return n < 1 ? 1 : n > most ? most : n;
}

// One block's part of the attention of a layer: some cached tokens of a sequence, for one key/value head.
struct Part {
    int head, token, split, splits, begin, end;  // end <= begin: no cached tokens
    // False: there is none with this index.
    DEVICE bool set(const Shared& s, int index, int tokens, int most) {
        head = index % KV_HEADS, token = index / KV_HEADS % tokens, split = index / (KV_HEADS * tokens);
        const int cached = s.lengths[token] - 1;
        splits = splits_of(cached, most);
        const int each = ceil_div(cached, splits);
        begin = split * each;
        end = begin + each < cached ? begin + each : cached;
        return split < splits;
    }
};

// The next layer's keys and values of this block on their way to the L2 cache, as far as the first loads go.
DEVICE void expect_cache(const Shared& s, const LayerRecord& layer, const Pages& pages, int tokens) {
    Part part;
    if (blockIdx.x >= tokens * KV_HEADS * most_splits(tokens)) return;
    if (!part.set(s, blockIdx.x, tokens, most_splits(tokens))) return;
    const int* table = pages.table + i64(part.token) * pages.width;
    constexpr int LINES = ceil_div(2 * HEAD_DIM, 128);
    for (int i = threadIdx.x; i < EXPECT * LINES; i += TEAM) {
        const int at = part.begin + i / LINES, offset = i % LINES * 64;
        if (at >= part.end) break;
        const i64 page = __ldg(table + (at >> pages.block_bits)), token = at & ((1 << pages.block_bits) - 1);
        prefetch_l2(layer.k_pages + page * pages.k_page + token * pages.k_token + part.head * pages.k_head + offset);
        prefetch_l2(layer.v_pages + page * pages.v_page + token * pages.v_token + part.head * pages.v_head + offset);
    }
}

DEVICE void load_span(uint4 (&to)[LOADS], const bf16* pages, i64 page, i64 token, const int* table, int bits, int base,
                      int end) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int i = 0; i < LOADS; ++i) {
        const int at = base + i * AT_ONCE + lane / LANES;
        to[i] = make_uint4(0, 0, 0, 0);
        if (at < end) {
            const bf16* p = pages + i64(__ldg(table + (at >> bits))) * page + i64(at & ((1 << bits) - 1)) * token;
            to[i] = load_once(p + 8 * (lane % LANES));
        }
    }
}

DEVICE void unpack(float (&f)[8], const uint4& x) {
    f[0] = low(x.x), f[1] = high(x.x), f[2] = low(x.y), f[3] = high(x.y);
    f[4] = low(x.z), f[5] = high(x.z), f[6] = low(x.w), f[7] = high(x.w);
}

// Of many heads the queries are read again each time: registers hold them for few only.
DEVICE float query(const float* p) { return GROUP > 4 ? *static_cast<const volatile float*>(p) : *p; }

DEVICE float sum_of_lanes(float x) {
#pragma unroll
    for (int d = LANES / 2; d; d >>= 1) x += __shfl_xor_sync(~0u, x, d);
    return x;
}

// What some lanes have seen of the cache for every query head: a running maximum, and sums relative to it.
struct Seen {
    float maximum[GROUP], weight[GROUP], sums[GROUP][8];
    DEVICE void clear() {
#pragma unroll
        for (int j = 0; j < GROUP; ++j) {
            maximum[j] = NONE, weight[j] = 0.f;
#pragma unroll
            for (int d = 0; d < 8; ++d) sums[j][d] = 0.f;
        }
    }
    // Add the lanes' own other half, d lanes away.
    DEVICE void merge(int d) {
#pragma unroll
        for (int j = 0; j < GROUP; ++j) {
            const float other = __shfl_xor_sync(~0u, maximum[j], d), m = fmaxf(maximum[j], other);
            const float mine = exp2_fast(maximum[j] - m), theirs = exp2_fast(other - m);
            weight[j] = weight[j] * mine + __shfl_xor_sync(~0u, weight[j], d) * theirs;
#pragma unroll
            for (int e = 0; e < 8; ++e) sums[j][e] = sums[j][e] * mine + __shfl_xor_sync(~0u, sums[j][e], d) * theirs;
            maximum[j] = m;
        }
    }
};

// N cached tokens a lane group: their keys and values, and which of them count.
template <int N, class Keys, class Values, class Counts>
DEVICE void see(Seen& seen, const AttentionScratch& a, float scale, Keys keys, Values values, Counts counts) {
    const int part = (threadIdx.x & 31) % LANES * 8;
    float scores[N][GROUP];
#pragma unroll
    for (int i = 0; i < N; ++i) {
        float k[8];
        keys(i, k);
#pragma unroll
        for (int j = 0; j < GROUP; ++j) {
            float dot = 0.f;
#pragma unroll
            for (int d = 0; d < 8; ++d) dot += k[d] * query(a.q[j] + part + d);
            scores[i][j] = sum_of_lanes(dot) * scale;
        }
    }
#pragma unroll
    for (int j = 0; j < GROUP; ++j) {
        float m = seen.maximum[j];
#pragma unroll
        for (int i = 0; i < N; ++i) m = counts(i) ? fmaxf(m, scores[i][j]) : m;
        const float shrink = exp2_fast(seen.maximum[j] - m);
        seen.maximum[j] = m;
        seen.weight[j] *= shrink;
#pragma unroll
        for (int d = 0; d < 8; ++d) seen.sums[j][d] *= shrink;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            scores[i][j] = counts(i) ? exp2_fast(scores[i][j] - m) : 0.f;
            seen.weight[j] += scores[i][j];
        }
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
        float v[8];
        values(i, v);
#pragma unroll
        for (int j = 0; j < GROUP; ++j)
#pragma unroll
            for (int d = 0; d < 8; ++d) seen.sums[j][d] += scores[i][j] * v[d];
    }
}
