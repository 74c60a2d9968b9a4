// The op write_kv.
//
// TYPE, KV_TYPE  of keys and values, of pages
// WIDTH          elements of an access
#include "common.cuh"

typedef TYPE T;
typedef KV_TYPE KV;
constexpr int E = WIDTH;

// k [tokens, kv_heads, k_dim] and v [.., v_dim] into the slots' pages; blockIdx.x: token. All sizes multiples of E.
extern "C" __global__ void __launch_bounds__(256) write_kv(
    const T* __restrict__ k, const T* __restrict__ v, KV* __restrict__ k_pages, KV* __restrict__ v_pages,
    const i64* __restrict__ slots, int kv_heads, int k_dim, int v_dim, int block,
    i64 k_token, i64 k_from, i64 v_token, i64 v_from,
    i64 k_page, i64 k_place, i64 k_head, i64 v_page, i64 v_place, i64 v_head) {
    const i64 token = blockIdx.x;
    const int k_parts = kv_heads * (k_dim / E), v_parts = kv_heads * (v_dim / E);
    int part = blockIdx.y * blockDim.x + threadIdx.x;
    let_next_start();
    wait_for_previous();
    if (part >= k_parts + v_parts) return;
    const u32 slot = u32(slots[token]);
    const i64 page = slot / u32(block), place = slot % u32(block);
    const bool is_k = part < k_parts;
    if (!is_k) part -= k_parts;
    const int a_head = (is_k ? k_dim : v_dim) / E, head = part / a_head, first = (part % a_head) * E;
    const Vec<T, E> read = is_k ? load_vec<E>(k + token * k_token + head * k_from + first)
                                : load_vec<E>(v + token * v_token + head * v_from + first);
    Vec<KV, E> out;
#pragma unroll
    for (int i = 0; i < E; ++i) out.v[i] = from_float<KV>(to_float(read.v[i]));
    store_vec<E>(is_k ? k_pages + page * k_page + place * k_place + head * k_head + first
                      : v_pages + page * v_page + place * v_place + head * v_head + first, out);
}
