// The op rotary.
//
// TYPE         of x
// WIDTH        elements a thread: a head is 1 << shift threads side by side
// INTERLEAVED  1: pairs are neighbours
#include "turn.cuh"

typedef TYPE T;
constexpr int E = WIDTH;

// x [tokens, heads, ...], of a head the first 2 * half elements, is turned where it lies. cos, sin [tokens, half].
extern "C" __global__ void __launch_bounds__(256) rotary(
    T* x, const float* __restrict__ cos, const float* __restrict__ sin,
    int heads, int dim, int half, int shift, i64 token_stride, i64 head_stride) {
    const int head = (blockIdx.y * blockDim.x + threadIdx.x) >> shift;
    const int first = (threadIdx.x & ((1 << shift) - 1)) * E;
    const bool live = first < 2 * half && head < heads;
    const i64 token = blockIdx.x;
    let_next_start();
    wait_for_previous();
    float v[E];
    T* p = x + token * token_stride + head * head_stride + first;
    if (live) {
        const Vec<T, E> read = load_vec<E>(p);
#pragma unroll
        for (int i = 0; i < E; ++i) v[i] = to_float(read.v[i]);
    } else {
#pragma unroll
        for (int i = 0; i < E; ++i) v[i] = 0.f;
    }
    turn<E, INTERLEAVED>(v, live ? first : 2 * half, half, cos + token * half, sin + token * half);
    if (!live) return;
    Vec<T, E> out;
#pragma unroll
    for (int i = 0; i < E; ++i) out.v[i] = from_float<T>(v[i]);
    store_vec<E>(p, out);
}
