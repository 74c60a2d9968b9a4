// From the product with W_qkv to the input of attention.
//
// TYPE, KV_TYPE  of activations, of pages
// W_TYPE         of the norms' weights; not defined: heads are not normed
// WIDTH          elements a thread: a head is 1 << shift threads side by side, the first dim / WIDTH of which have some
// INTERLEAVED    1: pairs of rotary are neighbours
#include "turn.cuh"

typedef TYPE T;
typedef KV_TYPE KV;
#ifdef W_TYPE
#define NORM 1
typedef W_TYPE W;
#else
#define NORM 0
typedef float W;
#endif
constexpr int E = WIDTH;

// qkv [tokens, (heads + 2 * kv_heads) * dim] -> q [tokens, heads, dim], k and v in the slots' pages.
// One thread group a head and token; blockIdx.x: token. positions: null: token t reads row t of cos and sin.
// half: pairs that are turned (0: none); block: tokens a page; strides of pages in elements.
extern "C" __global__ void __launch_bounds__(256) qk_norm_rope_write(
    const T* __restrict__ qkv, T* __restrict__ q, const W* __restrict__ q_weight, const W* __restrict__ k_weight,
    const float* __restrict__ cos, const float* __restrict__ sin, const i64* __restrict__ positions,
    KV* __restrict__ k_pages, KV* __restrict__ v_pages, const i64* __restrict__ slots,
    int tokens, int heads, int kv_heads, int dim, int half, int block, int shift,
    float q_eps, float k_eps, i64 k_page, i64 k_place, i64 k_head, i64 v_page, i64 v_place, i64 v_head) {
    const int unit = (blockIdx.y * blockDim.x + threadIdx.x) >> shift;
    const int first = (threadIdx.x & ((1 << shift) - 1)) * E;
    const bool is_q = unit < heads, is_v = unit >= heads + kv_heads;
    const bool live = first < dim && unit < heads + 2 * kv_heads;
    const i64 token = blockIdx.x;
    let_next_start();

#if NORM
    float w[E];
    if (live && !is_v) {
        const Vec<W, E> read = load_vec<E>((is_q ? q_weight : k_weight) + first);
#pragma unroll
        for (int i = 0; i < E; ++i) w[i] = to_float(read.v[i]);
    } else {
#pragma unroll
        for (int i = 0; i < E; ++i) w[i] = 0.f;
    }
#endif
    wait_for_previous();

    float v[E];
#pragma unroll
    for (int i = 0; i < E; ++i) v[i] = 0.f;
    i64 row = token;
    u32 slot = 0;
    if (live) {
        if (half && positions) row = positions[token];
        if (!is_q) slot = u32(slots[token]);
        const Vec<T, E> read = load_vec<E>(qkv + (token * (heads + 2 * kv_heads) + unit) * dim + first);
#pragma unroll
        for (int i = 0; i < E; ++i) v[i] = to_float(read.v[i]);
    }
#if NORM
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < E; ++i) sum += v[i] * v[i];
    for (int d = (1 << shift) >> 1; d; d >>= 1) sum += __shfl_xor_sync(~0u, sum, d);
    if (!is_v) {
        const float scale = rsqrtf(sum / float(dim) + (is_q ? q_eps : k_eps));
#pragma unroll
        for (int i = 0; i < E; ++i) v[i] *= scale * w[i];
    }
#endif
    if (half) {
        // Every thread of a warp, for the exchange of partners; a value's head and what lies beyond are not turned.
        const int at = is_v || !live ? 2 * half : first;
        turn<E, INTERLEAVED>(v, at, half, cos + row * half, sin + row * half);
    }
    if (!live) return;
    if (is_q) {
        Vec<T, E> out;
#pragma unroll
        for (int i = 0; i < E; ++i) out.v[i] = from_float<T>(v[i]);
        store_vec<E>(q + (token * heads + unit) * dim + first, out);
        return;
    }
    const i64 page = slot / u32(block), place = slot % u32(block);
    Vec<KV, E> out;
#pragma unroll
    for (int i = 0; i < E; ++i) out.v[i] = from_float<KV>(v[i]);
    if (is_v)
        store_vec<E>(v_pages + page * v_page + place * v_place + (unit - heads - kv_heads) * v_head + first, out);
    else
        store_vec<E>(k_pages + page * k_page + place * k_place + (unit - heads) * k_head + first, out);
}
