// Norms of rows: RMS (arXiv 1910.07467) and layer norm (arXiv 1607.06450), alone or after a sum with the residual.
//
// TYPE, W_TYPE   of activations and of weights
// WIDTH          elements of an access: 16 bytes of TYPE, or 1
// MEAN           0: rms_norm and add_rms_norm; 1: layer_norm and add_layer_norm
// ACCESSES       a thread at most: a row is held in registers; 0: it is read as often as it is needed
//
// A row is one block's (blockDim.x > 32) or one warp's (then a block has blockDim.y rows). The order of its sums is
// fixed by its size and blockDim.x, which the caller takes from the size.
#include "common.cuh"

typedef TYPE T;
typedef W_TYPE W;
constexpr int E = WIDTH, A = ACCESSES;

__device__ __forceinline__ float row_sum(float x, float* scratch) {
    return blockDim.x > 32 ? block_sum(x, scratch) : warp_sum(x);
}

// ADD: of x + residual, which is rounded to T and stored in the residual's place.
template <bool ADD>
__device__ __forceinline__ void norm_row(
    const T* x, T* residual, T* out, const W* weight, const W* bias, int n, bool there, float eps) {
    __shared__ float scratch[64];
    const int parts = n / E;

#if ACCESSES > 0
    let_next_start();
    Vec<W, E> w[A], b[A];
#pragma unroll
    for (int j = 0; j < A; ++j) {
        const int part = threadIdx.x + j * blockDim.x;
        if (weight && part < parts) w[j] = load_vec<E>(weight + part * E);
        if (MEAN && bias && part < parts) b[j] = load_vec<E>(bias + part * E);
    }
    wait_for_previous();
    Vec<T, E> mine[A];
    if constexpr (ADD) {
        Vec<T, E> other[A];
#pragma unroll
        for (int j = 0; j < A; ++j) {
            const int part = threadIdx.x + j * blockDim.x;
            if (there && part < parts) {
                mine[j] = load_vec<E>(x + part * E);
                other[j] = load_vec<E>(residual + part * E);
            }
        }
#pragma unroll
        for (int j = 0; j < A; ++j) {
            const int part = threadIdx.x + j * blockDim.x;
            if (there && part < parts) {
#pragma unroll
                for (int i = 0; i < E; ++i)
                    mine[j].v[i] = from_float<T>(to_float(mine[j].v[i]) + to_float(other[j].v[i]));
                store_vec<E>(residual + part * E, mine[j]);
            }
        }
    } else {
#pragma unroll
        for (int j = 0; j < A; ++j) {
            const int part = threadIdx.x + j * blockDim.x;
            if (there && part < parts) mine[j] = load_vec<E>(x + part * E);
        }
    }
#define EACH_PART _Pragma("unroll") for (int j = 0; j < A; ++j) \
        if (const int part = threadIdx.x + j * blockDim.x; there && part < parts)
#define MINE mine[j]
#define WEIGHT w[j]
#define BIAS b[j]
#else
    let_next_start();
    wait_for_previous();
    if constexpr (ADD) {
        for (int part = threadIdx.x; there && part < parts; part += blockDim.x) {
            Vec<T, E> a = load_vec<E>(x + part * E);
            const Vec<T, E> b = load_vec<E>(residual + part * E);
#pragma unroll
            for (int i = 0; i < E; ++i) a.v[i] = from_float<T>(to_float(a.v[i]) + to_float(b.v[i]));
            store_vec<E>(residual + part * E, a);  // read again by this thread only
        }
        x = residual;
    }
#define EACH_PART for (int part = threadIdx.x; there && part < parts; part += blockDim.x)
#define MINE load_vec<E>(x + part * E)
#define WEIGHT load_vec<E>(weight + part * E)
#define BIAS load_vec<E>(bias + part * E)
#endif

#if MEAN
    float all = 0.f;
    EACH_PART {
        const Vec<T, E> a = MINE;
#pragma unroll
        for (int i = 0; i < E; ++i) all += to_float(a.v[i]);
    }
    const float mean = row_sum(all, scratch + 32) / float(n);
#else
    constexpr float mean = 0.f;
#endif
    float sum = 0.f;
    EACH_PART {
        const Vec<T, E> a = MINE;
#pragma unroll
        for (int i = 0; i < E; ++i) {
            const float d = to_float(a.v[i]) - mean;
            sum += d * d;
        }
    }
    const float scale = rsqrtf(row_sum(sum, scratch) / float(n) + eps);
    EACH_PART {
        const Vec<T, E> a = MINE;
        Vec<W, E> by, plus;
        if (weight) by = WEIGHT;
        if (MEAN && bias) plus = BIAS;
        Vec<T, E> y;
#pragma unroll
        for (int i = 0; i < E; ++i) {
            float value = (to_float(a.v[i]) - mean) * scale;
            if (weight) value *= to_float(by.v[i]);
            if (MEAN && bias) value += to_float(plus.v[i]);
            y.v[i] = from_float<T>(value);
        }
        store_vec<E>(out + part * E, y);
    }
}

// x: row r lies at (r / inner) * outer + (r % inner) * step; out [rows, n].
// add_*: residual becomes x + residual, x its norm; both [rows, n].
#if MEAN
extern "C" __global__ void __launch_bounds__(512) layer_norm(
    const T* x, T* out, const W* weight, const W* bias, int rows, int n, int inner, i64 outer, i64 step, float eps) {
    const int row = blockIdx.x * blockDim.y + threadIdx.y;
    const T* mine = x + i64(row / inner) * outer + i64(row % inner) * step;
    norm_row<false>(mine, nullptr, out + i64(row) * n, weight, bias, n, row < rows, eps);
}

extern "C" __global__ void __launch_bounds__(512) add_layer_norm(
    T* x, T* residual, const W* weight, const W* bias, int rows, int n, float eps) {
    const int row = blockIdx.x * blockDim.y + threadIdx.y;
    const i64 at = i64(row) * n;
    norm_row<true>(x + at, residual + at, x + at, weight, bias, n, row < rows, eps);
}
#else
extern "C" __global__ void __launch_bounds__(512) rms_norm(
    const T* x, T* out, const W* weight, int rows, int n, int inner, i64 outer, i64 step, float eps) {
    const int row = blockIdx.x * blockDim.y + threadIdx.y;
    const T* mine = x + i64(row / inner) * outer + i64(row % inner) * step;
    norm_row<false>(mine, nullptr, out + i64(row) * n, weight, nullptr, n, row < rows, eps);
}

extern "C" __global__ void __launch_bounds__(512) add_rms_norm(
    T* x, T* residual, const W* weight, int rows, int n, float eps) {
    const int row = blockIdx.x * blockDim.y + threadIdx.y;
    const i64 at = i64(row) * n;
    norm_row<true>(x + at, residual + at, x + at, weight, nullptr, n, row < rows, eps);
}
#endif
