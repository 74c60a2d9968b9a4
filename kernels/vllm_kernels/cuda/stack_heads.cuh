// Query, key and value heads of a token from the exchange: their norms and rotation, and the write to the pages.
#pragma once
#include "stack_attention.cuh"

// Norm and rotation of one head, whose elements 4 * lane and on a lane has in x. scale: weights of the norm for these.
DEVICE void turn_head(Shared& s, float (&x)[4], float* place, uint2 scale, float eps, int t) {
    const int at = 4 * (threadIdx.x & 31);
    const bool here = at < HEAD_DIM;
    if (QK_NORM) {
        const float sum = warp_sum(here ? x[0] * x[0] + x[1] * x[1] + x[2] * x[2] + x[3] * x[3] : 0.f);
        const float factor = rsqrtf(sum / HEAD_DIM + eps);
        const float weights[4] = {low(scale.x), high(scale.x), low(scale.y), high(scale.y)};
#pragma unroll
        for (int i = 0; i < 4; ++i) x[i] = rounded<bf16>(x[i] * factor * weights[i]);
    }
    if (ROTARY == 0) return;
#pragma unroll
    for (int i = 0; i < 4; ++i)
        if (here) place[at + i] = x[i];
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int e = at + i;
        if (e >= ROTARY || !here) continue;
        const int pair = INTERLEAVED ? e / 2 : e % (ROTARY / 2);
        const bool second = INTERLEAVED ? e & 1 : e >= ROTARY / 2;
        const float other = place[INTERLEAVED ? e ^ 1 : second ? e - ROTARY / 2 : e + ROTARY / 2];
        const float c = s.cos[t][pair], n = s.sin[t][pair];
        x[i] = second ? x[i] * c + other * n : x[i] * c - other * n;
    }
}

// Query heads of key/value head h into the scratch; with ``whole``, its key and value too, which go to the pages.
DEVICE void take_heads(Shared& s, const u64* words, const LayerRecord& layer, const Pages& pages, int t, int h,
                       bool whole, u32 tag) {
    AttentionScratch& a = s.attention;
    const int thread = this_thread(), lane = thread & 31, warp = thread >> 5, at = 4 * lane;
    for (int item = warp; item < GROUP + 2 * whole; item += WARPS) {
        const int head = item < GROUP ? h * GROUP + item : HEADS + (item - GROUP) * KV_HEADS + h;
        uint2 got[1], scale = make_uint2(0, 0);
        if (QK_NORM && at < HEAD_DIM && item <= GROUP)
            scale = *reinterpret_cast<const uint2*>((item < GROUP ? layer.q_norm : layer.k_norm) + at);
        take_pairs(got, tag, [&](int) {
            return at < HEAD_DIM ? words + (t * QKV_ROWS + head * HEAD_DIM + at) / 2 : nullptr;
        });
        float x[4] = {low(got[0].x), high(got[0].x), low(got[0].y), high(got[0].y)};
        if (item <= GROUP) turn_head(s, x, a.turning[item], scale, pages.qk_eps, t);
        if (at >= HEAD_DIM) continue;
        const uint2 made = make_uint2(pack(x[0], x[1]), pack(x[2], x[3]));
        *reinterpret_cast<uint2*>((item < GROUP ? a.q[item] : item == GROUP ? a.k : a.v) + at) = made;
        if (item < GROUP) continue;
        const i64 page = s.slots[t] >> pages.block_bits;
        const int token = int(s.slots[t]) & ((1 << pages.block_bits) - 1);
        bf16* to = item == GROUP ? layer.k_pages + page * pages.k_page + token * pages.k_token + h * pages.k_head
                                 : layer.v_pages + page * pages.v_page + token * pages.v_token + h * pages.v_head;
        *reinterpret_cast<uint2*>(to + at) = made;
    }
    team_sync();
}

// This block's parts of the attention of a layer, if it has any.
DEVICE void attend(Shared& s, const Exchange& ex, const LayerRecord& layer, const Pages& pages, u32 tag) {
    AttentionScratch& a = s.attention;
    const int thread = this_thread(), warp = thread >> 5;
    for (int i = 0; i < s.num_parts; ++i) {
        const Part part = s.parts[i];
        const int h = part.head, t = part.token, split = part.split, splits = part.splits, end = part.end;
        const int* table = pages.table + i64(t) * pages.width;
        const bf16 *keys = layer.k_pages + h * pages.k_head, *values = layer.v_pages + h * pages.v_head;
        const auto first_key = [&](i64 page, int at) {
            return keys + page * pages.k_page + (at & ((1 << pages.block_bits) - 1)) * pages.k_token;
        };
        const auto first_value = [&](i64 page, int at) {
            return values + page * pages.v_page + (at & ((1 << pages.block_bits) - 1)) * pages.v_token;
        };
        Tile tile;
        int base = part.begin + warp * SPAN, page = base < end ? __ldg(table + (base >> pages.block_bits)) : 0;
        // Also when there are none: registers that only some paths set would be kept through the whole kernel.
        tile.load_keys(first_key(page, base), pages.k_token, end - base);
        tile.load_values(first_value(page, base), pages.v_token, end - base);
        take_heads(s, ex.qkv, layer, pages, t, h, split == splits - 1, tag);
        Seen seen;
        while (base < end) {
            const int next = base + WARPS * SPAN, tokens_here = end - base;
            page = next < end ? __ldg(table + (next >> pages.block_bits)) : 0;
            const uint2 p = seen.look(tile, a, pages.scale, tokens_here);
            if (next < end) tile.load_keys(first_key(page, next), pages.k_token, end - next);
            seen.add(tile, p);
            if (next < end) tile.load_values(first_value(page, next), pages.v_token, end - next);
            base = next;
        }
        if (split == splits - 1 && warp == WARPS - 1) {  // the new token, which need not be in its page yet
            tile.set(a.k, a.v);
            seen.add(tile, seen.look(tile, a, pages.scale, 1));
        }
        seen.save(a);
        team_sync();
        for (int e = thread; e < GROUP * HEAD_DIM; e += TEAM) {
            const int j = e / HEAD_DIM, d = e % HEAD_DIM, head = h * GROUP + j;
            float m = NONE, weight = 0.f, sum = 0.f;
#pragma unroll
            for (int w = 0; w < WARPS; ++w) m = fmaxf(m, a.maximum[w][j]);
#pragma unroll
            for (int w = 0; w < WARPS; ++w) {
                const float factor = exp2_fast(a.maximum[w][j] - m);
                weight += a.weight[w][j] * factor;
                sum += a.sums[w][j][d] * factor;
            }
            if (splits == 1) {
                const float mine = sum / weight, next = __shfl_down_sync(~0u, mine, 1);
                if (d % 2 == 0) put(ex.attention + (t * Q_SIZE + head * HEAD_DIM + d) / 2, pack(mine, next), tag);
                continue;
            }
            u64* to = ex.partial + i64((t * HEADS + head) * MOST_SPLITS + split) * PARTIAL;
            put(to + d, __float_as_uint(sum), tag);
            if (d == 0) {
                put(to + HEAD_DIM, __float_as_uint(m), tag);
                put(to + HEAD_DIM + 1, __float_as_uint(weight), tag);
            }
        }
        team_sync();
    }
}

// The parts of a sequence's attention together: a warp for 32 elements of a head.
DEVICE void join_splits(Shared& s, const Exchange& ex, int tokens, u32 tag) {
    const int thread = this_thread(), lane = thread & 31, warp = thread >> 5;
    constexpr int PARTS = HEAD_DIM / 32;
    for (int i = warp * gridDim.x + blockIdx.x; i < tokens * HEADS * PARTS; i += WARPS * gridDim.x) {
        const int part = i % PARTS, head = i / PARTS % HEADS, t = i / (PARTS * HEADS);
        const int splits = s.splits[t];
        if (splits == 1) continue;
        const u64* from = ex.partial + i64((t * HEADS + head) * MOST_SPLITS) * PARTIAL;
        uint2 its[1];
        take_pairs(its, tag, [&](int) { return lane < splits ? from + lane * PARTIAL + HEAD_DIM : nullptr; });
        const float maximum = lane < splits ? __uint_as_float(its[0].x) : NONE, m = warp_max(maximum);
        const float factor = lane < splits ? exp2_fast(maximum - m) : 0.f;
        const float weight = warp_sum(factor * __uint_as_float(its[0].y));
        float sum = 0.f;
        for (int first = 0; first < splits; first += 8) {
            u32 got[8];
            take(got, tag, [&](int n) {
                return first + n < splits ? from + (first + n) * PARTIAL + part * 32 + lane : nullptr;
            });
#pragma unroll
            for (int n = 0; n < 8; ++n) sum += __uint_as_float(got[n]) * __shfl_sync(~0u, factor, (first + n) & 31);
        }
        const float mine = sum / weight, next = __shfl_down_sync(~0u, mine, 1);
        if (lane % 2 == 0)
            put(ex.attention + (t * Q_SIZE + head * HEAD_DIM + part * 32 + lane) / 2, pack(mine, next), tag);
    }
}
