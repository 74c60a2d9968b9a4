// A head's elements in registers, E a thread, turned by its token's angles (arXiv 2104.09864).
#pragma once
#include "common.cuh"

// ``first``: which element of the head v[0] is. ``cos``, ``sin``: the token's row, ``half`` floats.
// PAIRS: neighbours are pairs; else (Neox) (i, i + half) are, and the partner's elements are with the thread half / E
// to the right or left.
// All threads of a warp must come here; those beyond the head turn nothing.
template <int E, bool PAIRS>
__device__ __forceinline__ void turn(float (&v)[E], int first, int half, const float* cos, const float* sin) {
    if constexpr (PAIRS) {
#pragma unroll
        for (int i = 0; i < E; i += 2) {
            const int pair = (first + i) >> 1;
            if (pair < half) {
                const float c = cos[pair], s = sin[pair], a = v[i], b = v[i + 1];
                v[i] = a * c - b * s;
                v[i + 1] = b * c + a * s;
            }
        }
    } else {
        const int lane = threadIdx.x & 31, shift = half / E;
        const bool left = first < half, turned = first < 2 * half;
        const int from = turned ? (left ? lane + shift : lane - shift) : lane;
        float partner[E];
#pragma unroll
        for (int i = 0; i < E; ++i) partner[i] = __shfl_sync(~0u, v[i], from);
        if (turned) {
            const int column = left ? first : first - half;
            const Vec<float, E> c = load_vec<E>(cos + column), s = load_vec<E>(sin + column);
#pragma unroll
            for (int i = 0; i < E; ++i) v[i] = v[i] * c.v[i] + (left ? -partner[i] : partner[i]) * s.v[i];
        }
    }
}
