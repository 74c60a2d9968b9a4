// The op rotary.
//
// TYPE         of x
// WIDTH        elements a thread: a head is 1 << shift threads side by side
// INTERLEAVED  1: pairs are neighbours
#include "turn.cuh"

typedef TYPE T;
constexpr int E = WIDTH, UNITS = 4;

// x [tokens, heads, ...], of a head the first 2 * half elements, is turned where it lies. cos, sin [tokens, half].
// blockIdx.x: token. A group of threads has UNITS heads, a stride of groups apart, and reads its angles once.
extern "C" __global__ void __launch_bounds__(256, 1) rotary(
    T* x, const float* __restrict__ cos, const float* __restrict__ sin,
    int heads, int half, int shift, i64 token_stride, i64 head_stride) {
    const int groups = blockDim.x >> shift;
    const int head0 = blockIdx.y * groups * UNITS + (threadIdx.x >> shift);
    const int first = (threadIdx.x & ((1 << shift) - 1)) * E;
    const bool within = first < 2 * half;
    const i64 token = blockIdx.x;
    T* mine = x + token * token_stride + first;
    let_next_start();
    wait_for_previous();
    Vec<T, E> read[UNITS];
#pragma unroll
    for (int j = 0; j < UNITS; ++j) {
        const int head = head0 + j * groups;
        if (within && head < heads) read[j] = load_vec<E>(mine + head * head_stride);
    }
    Angles<E, INTERLEAVED != 0> angles;
    angles.load(cos + token * half, sin + token * half, first, half);
#pragma unroll
    for (int j = 0; j < UNITS; ++j) {
        const int head = head0 + j * groups;
        const bool live = within && head < heads;
        float v[E];
#pragma unroll
        for (int i = 0; i < E; ++i) v[i] = live ? to_float(read[j].v[i]) : 0.f;
        angles.turn(v, live);
        if (!live) continue;
        Vec<T, E> out;
#pragma unroll
        for (int i = 0; i < E; ++i) out.v[i] = from_float<T>(v[i]);
        store_vec<E>(mine + head * head_stride, out);
    }
}
