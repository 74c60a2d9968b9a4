// A head's elements in registers, E a thread, turned by its token's angles (arXiv 2104.09864).
#pragma once
#include "common.cuh"

// What a thread whose first element is number ``first`` of the head needs of its token's row, ``half`` floats each.
// PAIRS: neighbours are pairs; else (Neox) (i, i + half) are, and the partner's elements are with the thread half / E
// to the right or left.
template <int E, bool PAIRS> struct Angles {
    static constexpr int N = PAIRS ? E / 2 : E;
    float cos[N], sin[N];
    int from;     // the partner's lane
    bool turned;  // Neox: whether these elements are; PAIRS: angles beyond the rotated part turn nothing

    __device__ __forceinline__ void load(const float* cos_row, const float* sin_row, int first, int half) {
        if constexpr (PAIRS) {
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const int pair = (first >> 1) + i;
                cos[i] = pair < half ? cos_row[pair] : 1.f;
                sin[i] = pair < half ? sin_row[pair] : 0.f;
            }
        } else {
            const int lane = threadIdx.x & 31, shift = half / E;
            const bool left = first < half;
            turned = first < 2 * half;
            from = turned ? (left ? lane + shift : lane - shift) : lane;
            if (turned) {
                const int column = left ? first : first - half;
                const Vec<float, E> c = load_vec<E>(cos_row + column), s = load_vec<E>(sin_row + column);
#pragma unroll
                for (int i = 0; i < E; ++i) {
                    cos[i] = c.v[i];
                    sin[i] = left ? -s.v[i] : s.v[i];
                }
            }
        }
    }

    // All threads of a warp must come here; ``wanted``: whether this one's head is turned.
    __device__ __forceinline__ void turn(float (&v)[E], bool wanted) const {
        if constexpr (PAIRS) {
            if (wanted) {
#pragma unroll
                for (int i = 0; i < N; ++i) {
                    const float a = v[2 * i], b = v[2 * i + 1];
                    v[2 * i] = a * cos[i] - b * sin[i];
                    v[2 * i + 1] = b * cos[i] + a * sin[i];
                }
            }
        } else {
            float partner[E];
#pragma unroll
            for (int i = 0; i < E; ++i) partner[i] = __shfl_sync(~0u, v[i], from);
            if (wanted && turned) {
#pragma unroll
                for (int i = 0; i < E; ++i) v[i] = v[i] * cos[i] + partner[i] * sin[i];
            }
        }
    }
};
