// act(x) and act(gate) * up (arXiv 2002.05202), in float32, rounded once.
//
// TYPE    of x
// WIDTH   elements of an access: 16 bytes of TYPE, or 1
// ACT     SILU, GELU, GELU_TANH or RELU
#include "common.cuh"

typedef TYPE T;
constexpr int E = WIDTH;

#define SILU 0
#define GELU 1
#define GELU_TANH 2
#define RELU 3

// 1 / (1 + e^-x); with two bytes the fast exponential is exact enough.
__device__ __forceinline__ float sigmoid(float x) {
    return sizeof(T) == 2 ? __fdividef(1.f, 1.f + __expf(-x)) : 1.f / (1.f + expf(-x));
}

__device__ __forceinline__ float act(float x) {
    // 0.5 (1 + tanh(u)) is sigmoid(2u). __fdividef gives 0 beyond 2^126, which is what the limit is.
    if (ACT == SILU) return x * sigmoid(x);
    if (ACT == GELU) return 0.5f * x * (1.f + erff(x * 0.70710678118654752f));
    if (ACT == GELU_TANH) return x * sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x));
    return x < 0.f ? 0.f : x;  // NaN stays
}

// x [rows, 2n] = (gate, up) -> out [rows, n]. blockIdx.x: row; blockIdx.y: part of it.
extern "C" __global__ void __launch_bounds__(256) act_and_mul(const T* __restrict__ x, T* __restrict__ out, int n) {
    const int first = (blockIdx.y * blockDim.x + threadIdx.x) * E;
    let_next_start();
    wait_for_previous();
    if (first >= n) return;
    const T* gate = x + i64(blockIdx.x) * 2 * n + first;
    const Vec<T, E> a = load_vec<E>(gate), b = load_vec<E>(gate + n);
    Vec<T, E> y;
#pragma unroll
    for (int i = 0; i < E; ++i) y.v[i] = from_float<T>(act(to_float(a.v[i])) * to_float(b.v[i]));
    store_vec<E>(out + i64(blockIdx.x) * n + first, y);
}

// x, out [count].
extern "C" __global__ void __launch_bounds__(256) act_alone(const T* __restrict__ x, T* __restrict__ out, i64 count) {
    const i64 first = (i64(blockIdx.x) * blockDim.x + threadIdx.x) * E;
    let_next_start();
    wait_for_previous();
    if (first >= count) return;
    const Vec<T, E> a = load_vec<E>(x + first);
    Vec<T, E> y;
#pragma unroll
    for (int i = 0; i < E; ++i) y.v[i] = from_float<T>(act(to_float(a.v[i])));
    store_vec<E>(out + first, y);
}
