// Lines of logits in tiles of 1,024, each read by a warp; and reductions over a block of 512 threads in a fixed order.
// A tile's numbers do not depend on how many blocks share a line, and so nothing does that is made from them.
#pragma once
#include "common.cuh"

namespace {

constexpr int THREADS = 512, WARPS = THREADS / 32, TILE = 1024, EACH = TILE / 32;
constexpr int NONE = 0x7fffffff;
constexpr float LOWEST = -3.402823466e38f;
#define INFINITE __int_as_float(0x7f800000)

// Bits of the float32 form of a T that are always 0.
template <typename T> struct Low { static constexpr int BITS = 0; };
template <> struct Low<bf16> { static constexpr int BITS = 16; };
template <> struct Low<f16> { static constexpr int BITS = 13; };

// Integers in the order of the floats, without gaps between neighbours of type T. -0 counts as 0: which of the two a
// reduction gives a thread is chance, and all threads of a block must go the same way.
template <typename T> __device__ __forceinline__ u32 key_of(float x) {
    const u32 bits = __float_as_uint(x + 0.f);
    return (bits & 0x80000000u ? ~bits : bits | 0x80000000u) >> Low<T>::BITS;
}
template <typename T> __device__ __forceinline__ float of_key(u32 key) {
    const u32 bits = key << Low<T>::BITS;
    return __uint_as_float(bits & 0x80000000u ? bits & 0x7fffffffu : ~bits & ~((1u << Low<T>::BITS) - 1));
}

__device__ __forceinline__ float exp2_of(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

template <typename T> struct Line {
    const T* at;
    int size;
    bool aligned;  // to 16 bytes

    __device__ Line(const T* logits, i64 stride, int size) : at(logits + stride * blockIdx.y), size(size) {
        aligned = (reinterpret_cast<u64>(at) & 15) == 0;
    }

    // A lane's element e is number ``place(tile, e)`` of the line; -inf behind its end.
    static __device__ __forceinline__ int place(int tile, int e) {
        constexpr int N = Pack<T>::N;
        return tile * TILE + (e / N * 32 + (threadIdx.x & 31)) * N + e % N;
    }

    __device__ __forceinline__ void read(int tile, float (&v)[EACH]) const {
        constexpr int N = Pack<T>::N;
        if (aligned && (tile + 1) * TILE <= size) {
            Pack<T> raw[EACH / N];
#pragma unroll
            for (int j = 0; j < EACH / N; ++j) raw[j] = load(at + place(tile, j * N));
#pragma unroll
            for (int e = 0; e < EACH; ++e) v[e] = to_float(raw[e / N].v[e % N]);
        } else {
#pragma unroll
            for (int e = 0; e < EACH; ++e) v[e] = (*this)[place(tile, e)];
        }
    }

    __device__ __forceinline__ float operator[](int i) const { return i < size ? to_float(at[i]) : -INFINITE; }
};

__device__ __forceinline__ float largest_of(const float (&v)[EACH]) {
    float m = -INFINITE;
#pragma unroll
    for (int e = 0; e < EACH; ++e) m = fmaxf(m, v[e]);
    return warp_max(m);
}

struct Largest { template <typename X> static __device__ __forceinline__ X of(X a, X b) { return b > a ? b : a; } };
struct Least { template <typename X> static __device__ __forceinline__ X of(X a, X b) { return b < a ? b : a; } };
struct Sum { template <typename X> static __device__ __forceinline__ X of(X a, X b) { return a + b; } };

// Known to all threads; ``neutral`` changes nothing. ``scratch``: WARPS * 8 bytes.
template <typename Op, typename X> __device__ __forceinline__ X block_reduce(X x, X neutral, void* scratch) {
    X* of_warp = static_cast<X*>(scratch);
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int d = 16; d; d >>= 1) x = Op::of(x, __shfl_xor_sync(~0u, x, d));
    __syncthreads();  // nobody reads the scratch any more
    if (lane == 0) of_warp[threadIdx.x >> 5] = x;
    __syncthreads();
    x = lane < WARPS ? of_warp[lane] : neutral;
#pragma unroll
    for (int d = 16; d; d >>= 1) x = Op::of(x, __shfl_xor_sync(~0u, x, d));
    return x;
}

// x of this thread and all before it. ``total``: of all. ``scratch``: WARPS * 8 bytes.
__device__ __forceinline__ double block_scan(double x, double& total, void* scratch) {
    double* of_warp = static_cast<double*>(scratch);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
    for (int d = 1; d < 32; d <<= 1) {
        const double y = __shfl_up_sync(~0u, x, d);
        if (lane >= d) x += y;
    }
    __syncthreads();
    if (lane == 31) of_warp[warp] = x;
    __syncthreads();
    double before = 0;
    total = 0;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) {
        if (w == warp) before = total;
        total += of_warp[w];
    }
    return before + x;
}

// The first thread whose share of the running sum holds ``target``; the last with any share if none does (rounding);
// -1 if nobody has a share. ``sum``: this thread's ``block_scan`` of ``own``.
__device__ __forceinline__ int first_beyond(double own, double sum, double target, void* scratch) {
    const int t = threadIdx.x;
    const int first = block_reduce<Least>(own > 0 && sum > target ? t : NONE, NONE, scratch);
    return first != NONE ? first : block_reduce<Largest>(own > 0 ? t : -1, -1, scratch);
}

}  // namespace
