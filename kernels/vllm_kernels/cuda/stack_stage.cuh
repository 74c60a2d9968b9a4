// Activations of all tokens from the exchange into shared memory, where a product reads them.
#pragma once
#include "stack_exchange.cuh"

#ifndef LOOK
#define LOOK 4  // quads a thread looks for at a time
#endif

// words: [tokens, K / 2]. Every thread takes quads of elements.
template <int K> DEVICE void stage(Shared& s, const u64* words, int tokens, u32 tag) {
    constexpr int QUADS = K / 4, EACH = ceil_div(QUADS, TEAM), ALL = TOKENS * EACH, AT_ONCE = ALL < LOOK ? ALL : LOOK;
    const int thread = this_thread();
#pragma unroll 1
    for (int from = 0; from < ALL; from += AT_ONCE) {
        uint2 got[AT_ONCE];
        take_pairs(got, tag, [&](int i) {
            const int t = (from + i) / EACH, quad = (from + i) % EACH * TEAM + thread;
            return from + i < ALL && t < tokens && quad < QUADS ? words + t * (K / 2) + 2 * quad : nullptr;
        });
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) {
            const int t = (from + i) / EACH, quad = (from + i) % EACH * TEAM + thread;
            if (from + i < ALL && t < tokens && quad < QUADS)
                *reinterpret_cast<uint2*>(s.x + t * pitch(K) + 8 * quad) = got[i];
        }
    }
    team_sync();
}

DEVICE uint2 load_quad(const bf16* p) { return *reinterpret_cast<const uint2*>(p); }

// The residual of all tokens, of which every block keeps a copy, plus what the last product gave (``add``: there was
// one), normed into s.x. A thread has the same quads in every layer. keep: where the sum goes as well, or nullptr.
DEVICE void stage_norm(Shared& s, const u64* words, const bf16* weight, float eps, int tokens, u32 tag, bool add,
                       bf16* keep) {
    constexpr int QUADS = HIDDEN / 4, EACH = ceil_div(QUADS, TEAM), ALL = TOKENS * EACH, AT_ONCE = ALL < LOOK ? ALL : LOOK;
    const int thread = this_thread(), lane = thread & 31, warp = thread >> 5;
    uint2 scale[EACH];
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const int quad = i * TEAM + thread;
        scale[i] = quad < QUADS ? load_quad(weight + 4 * quad) : make_uint2(0, 0);
    }
    float squares[TOKENS];
#pragma unroll
    for (int t = 0; t < TOKENS; ++t) squares[t] = 0.f;
#pragma unroll
    for (int from = 0; from < ALL; from += AT_ONCE) {
        uint2 got[AT_ONCE];
        take_pairs(got, tag, [&](int i) {
            const int t = (from + i) / EACH, quad = (from + i) % EACH * TEAM + thread;
            return add && from + i < ALL && t < tokens && quad < QUADS ? words + t * (HIDDEN / 2) + 2 * quad : nullptr;
        });
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) {
            const int t = (from + i) / EACH, quad = (from + i) % EACH * TEAM + thread;
            if (from + i >= ALL || t >= tokens || quad >= QUADS) continue;
            uint2* place = reinterpret_cast<uint2*>(s.residual[t] + 4 * quad);
            uint2 r = *place;
            if (add) {
                r.x = pack(low(r.x) + low(got[i].x), high(r.x) + high(got[i].x));
                r.y = pack(low(r.y) + low(got[i].y), high(r.y) + high(got[i].y));
                *place = r;
                if (keep) *reinterpret_cast<uint2*>(keep + t * HIDDEN + 4 * quad) = r;
            }
            squares[t] += low(r.x) * low(r.x) + high(r.x) * high(r.x) + low(r.y) * low(r.y) + high(r.y) * high(r.y);
        }
    }
#pragma unroll
    for (int t = 0; t < TOKENS; ++t) {
        const float sum = warp_sum(squares[t]);
        if (lane == 0) s.squares[t][warp] = sum;
    }
    team_sync();
#pragma unroll
    for (int t = 0; t < TOKENS; ++t) {
        if (t >= tokens) break;
        float sum = 0.f;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) sum += s.squares[t][w];
        const float factor = rsqrtf(sum / HIDDEN + eps);
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            const int quad = i * TEAM + thread;
            if (quad >= QUADS) continue;
            const uint2 r = *reinterpret_cast<const uint2*>(s.residual[t] + 4 * quad), w = scale[i];
            *reinterpret_cast<uint2*>(s.x + t * pitch(HIDDEN) + 8 * quad) =
                make_uint2(pack(low(r.x) * factor * low(w.x), high(r.x) * factor * high(w.x)),
                           pack(low(r.y) * factor * low(w.y), high(r.y) * factor * high(w.y)));
        }
    }
    team_sync();
}
