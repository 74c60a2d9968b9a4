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
// blockIdx.x: token. A group of threads has UNITS of the token's heads, a stride of groups apart, and reads its angles
// once. positions: null: token t reads row t of cos and sin. half: pairs that are turned (0: none); block: tokens a
// page; strides of pages in elements.
template <int UNITS>
__device__ __forceinline__ void heads_of_a_token(
    const T* __restrict__ qkv, T* __restrict__ q, const W* __restrict__ q_weight, const W* __restrict__ k_weight,
    const float* __restrict__ cos, const float* __restrict__ sin, const i64* __restrict__ positions,
    KV* __restrict__ k_pages, KV* __restrict__ v_pages, const i64* __restrict__ slots,
    int heads, int kv_heads, int dim, int half, int block, int shift,
    float q_eps, float k_eps, i64 k_page, i64 k_place, i64 k_head, i64 v_page, i64 v_place, i64 v_head) {
    const int groups = blockDim.x >> shift, units = heads + 2 * kv_heads;
    const int unit0 = blockIdx.y * groups * UNITS + (threadIdx.x >> shift);
    const int first = (threadIdx.x & ((1 << shift) - 1)) * E;
    const i64 token = blockIdx.x;
    let_next_start();

#if NORM
    // One unit: ahead of time. Several: when each is due, or registers are too few.
    Vec<W, E> by;
    if (UNITS == 1 && first < dim && unit0 < heads + kv_heads)
        by = load_vec<E>((unit0 < heads ? q_weight : k_weight) + first);
#endif
    wait_for_previous();

    Vec<T, E> read[UNITS];
    const T* mine = qkv + token * units * dim + first;
#pragma unroll
    for (int j = 0; j < UNITS; ++j) {
        const int unit = unit0 + j * groups;
        if (first < dim && unit < units) read[j] = load_vec<E>(mine + unit * dim);
    }
    const u32 slot = u32(slots[token]);
    Angles<E, INTERLEAVED != 0> angles;
    if (half) {
        const i64 row = positions ? positions[token] : token;
        angles.load(cos + row * half, sin + row * half, first, half);
    }
    const i64 page = slot / u32(block), place = slot % u32(block);

#pragma unroll
    for (int j = 0; j < UNITS; ++j) {
        const int unit = unit0 + j * groups;
        const bool is_q = unit < heads, is_v = unit >= heads + kv_heads, live = first < dim && unit < units;
        float v[E];
#pragma unroll
        for (int i = 0; i < E; ++i) v[i] = live ? to_float(read[j].v[i]) : 0.f;
#if NORM
        float sum = 0.f;
#pragma unroll
        for (int i = 0; i < E; ++i) sum += v[i] * v[i];
        for (int d = (1 << shift) >> 1; d; d >>= 1) sum += __shfl_xor_sync(~0u, sum, d);
        if (live && !is_v) {
            if (UNITS > 1) by = load_vec<E>((is_q ? q_weight : k_weight) + first);
            const float scale = rsqrtf(sum / float(dim) + (is_q ? q_eps : k_eps));
#pragma unroll
            for (int i = 0; i < E; ++i) v[i] *= scale * to_float(by.v[i]);
        }
#endif
        if (half) angles.turn(v, live && !is_v);
        if (!live) continue;
        if (is_q) {
            Vec<T, E> out;
#pragma unroll
            for (int i = 0; i < E; ++i) out.v[i] = from_float<T>(v[i]);
            store_vec<E>(q + (token * heads + unit) * dim + first, out);
        } else {
            Vec<KV, E> out;
#pragma unroll
            for (int i = 0; i < E; ++i) out.v[i] = from_float<KV>(v[i]);
            KV* to = is_v ? v_pages + page * v_page + place * v_place + (unit - heads - kv_heads) * v_head
                          : k_pages + page * k_page + place * k_place + (unit - heads) * k_head;
            store_vec<E>(to + first, out);
        }
    }
}

#define PARAMETERS const T* qkv, T* q, const W* q_weight, const W* k_weight, const float* cos, const float* sin, \
    const i64* positions, KV* k_pages, KV* v_pages, const i64* slots, int heads, int kv_heads, int dim, int half, \
    int block, int shift, float q_eps, float k_eps, \
    i64 k_page, i64 k_place, i64 k_head, i64 v_page, i64 v_place, i64 v_head
#define ARGUMENTS qkv, q, q_weight, k_weight, cos, sin, positions, k_pages, v_pages, slots, heads, kv_heads, dim, half, \
    block, shift, q_eps, k_eps, k_page, k_place, k_head, v_page, v_place, v_head

// Few tokens: a head a group, for the shortest time.
extern "C" __global__ void __launch_bounds__(256, 4) qk_norm_rope_write(PARAMETERS) { heads_of_a_token<1>(ARGUMENTS); }

// Many tokens: more bytes under way, angles read less often.
extern "C" __global__ void __launch_bounds__(256, 3) qk_norm_rope_write_many(PARAMETERS) {
    heads_of_a_token<4>(ARGUMENTS);
}
