// Lines of logits in tiles of 1,024, each read by a warp; and reductions over a block of 512 threads in a fixed order.
// A tile's numbers do not depend on how many blocks share a line, and so nothing does that is made from them.
#pragma once
#include "common.cuh"

namespace {

constexpr int THREADS = 512, WARPS = THREADS / 32, TILE = 1024, EACH = TILE / 32;
constexpr int NONE = 0x7fffffff;
constexpr float LOWEST = -3.402823466e38f;
#define INFINITE __int_as_float(0x7f800000)

enum Kind { BF16, F16, F32 };  // of logits; known at run time, so that one compilation serves all

// Integers in the order of the floats. -0 counts as 0: which of the two a reduction gives a thread is chance, and all
// threads of a block must go the same way. ``spare``: bits of the float32 form that are always 0, so that neighbours of
// the logits' type have neighbouring keys.
__device__ __forceinline__ u32 key_of(float x, int spare) {
    const u32 bits = __float_as_uint(x + 0.f);
    return (bits & 0x80000000u ? ~bits : bits | 0x80000000u) >> spare;
}
__device__ __forceinline__ float of_key(u32 key, int spare) {
    const u32 bits = key << spare;
    return __uint_as_float(bits & 0x80000000u ? bits & 0x7fffffffu : ~bits & ~((1u << spare) - 1));
}

__device__ __forceinline__ float exp2_of(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

struct Line {
    const void* at;
    int size, kind;
    bool aligned;  // to 16 bytes

    __device__ __forceinline__ Line(const void* logits, i64 stride, int size, int kind) : size(size), kind(kind) {
        at = static_cast<const char*>(logits) + stride * blockIdx.y * (kind == F32 ? 4 : 2);
        aligned = (reinterpret_cast<u64>(at) & 15) == 0;
    }

    __device__ __forceinline__ int spare() const { return kind == BF16 ? 16 : kind == F16 ? 13 : 0; }

    // A lane's element e is number ``place(tile, e)`` of the line; -inf behind its end.
    static __device__ __forceinline__ int place(int tile, int e) {
        return tile * TILE + (e / 8 * 32 + (threadIdx.x & 31)) * 8 + e % 8;
    }

    __device__ __forceinline__ void read(int tile, float (&v)[EACH]) const {
        if (!aligned || (tile + 1) * TILE > size) {
            const bool wide = kind == F32;
#pragma unroll
            for (int e = 0; e < EACH; ++e) v[e] = wide ? one_wide(place(tile, e)) : one_narrow(place(tile, e));
        } else if (kind == F32) {
#pragma unroll
            for (int e = 0; e < EACH; e += 4) {
                const Pack<float> four = load(static_cast<const float*>(at) + place(tile, e));
#pragma unroll
                for (int i = 0; i < 4; ++i) v[e + i] = four.v[i];
            }
        } else {
            uint4 raw[EACH / 8];
#pragma unroll
            for (int j = 0; j < EACH / 8; ++j) {
                raw[j] = *reinterpret_cast<const uint4*>(static_cast<const u16*>(at) + place(tile, j * 8));
            }
            if (kind == BF16) unpack<bf16>(raw, v);
            else unpack<f16>(raw, v);
        }
    }

    __device__ __forceinline__ float operator[](int i) const { return kind == F32 ? one_wide(i) : one_narrow(i); }

private:
    __device__ __forceinline__ float one_wide(int i) const {
        return i < size ? static_cast<const float*>(at)[i] : -INFINITE;
    }
    __device__ __forceinline__ float one_narrow(int i) const {
        if (i >= size) return -INFINITE;
        const u16 bits = static_cast<const u16*>(at)[i];
        return kind == BF16 ? to_float(bf16{bits}) : to_float(f16{bits});
    }
    template <typename T>
    static __device__ __forceinline__ void unpack(const uint4 (&raw)[EACH / 8], float (&v)[EACH]) {
#pragma unroll
        for (int j = 0; j < EACH / 8; ++j) {
            const u32 pairs[4] = {raw[j].x, raw[j].y, raw[j].z, raw[j].w};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                v[j * 8 + 2 * i] = to_float(T{u16(pairs[i])});
                v[j * 8 + 2 * i + 1] = to_float(T{u16(pairs[i] >> 16)});
            }
        }
    }
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
