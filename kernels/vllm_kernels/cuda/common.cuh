// What every kernel file here shares: element types, 16-byte accesses, reductions, dependent launches.
// No header of the CUDA toolkit is included, so that NVRTC alone compiles these files.
#pragma once

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
typedef unsigned short u16;
typedef unsigned char u8;

struct bf16 { u16 bits; };
struct f16 { u16 bits; };
struct e4m3 { u8 bits; };  // float8_e4m3fn: no infinity, largest 448

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }
__device__ __forceinline__ float to_float(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
template <> __device__ __forceinline__ f16 from_float<f16>(float x) {
    f16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// Beyond +-448: +-448 (torch makes NaN of it).
template <> __device__ __forceinline__ e4m3 from_float<e4m3>(float x) {
    e4m3 y;
#if __CUDA_ARCH__ >= 890
    u16 two;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(two) : "f"(0.f), "f"(x));
    y.bits = u8(two);
#else
    const u32 bits = __float_as_uint(x), sign = (bits >> 24) & 0x80u;
    u32 high = bits & 0x7fffffffu, out;
    if (high > 0x7f800000u) {
        out = 0x7fu;
    } else if (high < (121u << 23)) {  // below 2^-6: multiples of 2^-9, which is the last place of 2^14
        out = __float_as_uint(__uint_as_float(high) + 16384.f) - (141u << 23);
    } else {
        high += 0x7ffffu + ((high >> 20) & 1u) - (120u << 23);  // to nearest, ties to even
        out = high >> 20 < 0x7eu ? high >> 20 : 0x7eu;
    }
    y.bits = u8(out | sign);
#endif
    return y;
}
__device__ __forceinline__ float to_float(e4m3 x) {
    const u32 sign = u32(x.bits & 0x80) << 24, rest = x.bits & 0x7f;
    const float small = float(rest) * 0.001953125f;  // multiples of 2^-9
    const u32 big = rest == 0x7f ? 0x7fc00000u : (rest << 20) + (120u << 23);
    return __uint_as_float((rest < 8 ? __float_as_uint(small) : big) | sign);
}

// What a value is after it has been stored in T and read again.
template <typename T> __device__ __forceinline__ float rounded(float x) { return to_float(from_float<T>(x)); }

// 16 bytes at a time: 8 elements of two bytes, 4 of four.
template <typename T> struct alignas(16) Pack {
    static constexpr int N = 16 / sizeof(T);
    T v[N];
};

template <typename T> __device__ __forceinline__ Pack<T> load(const T* p) {
    Pack<T> x;
    *reinterpret_cast<uint4*>(&x) = *reinterpret_cast<const uint4*>(p);
    return x;
}

// N elements, at most 16 bytes at a time; N * sizeof(T) is 2, 4, 8, 16 or a multiple of 16, and p aligned to it (to 16).
template <int BYTES> struct RawOf { typedef uint4 type; };
template <> struct RawOf<1> { typedef u8 type; };
template <> struct RawOf<2> { typedef u16 type; };
template <> struct RawOf<4> { typedef u32 type; };
template <> struct RawOf<8> { typedef uint2 type; };

template <typename T, int N> struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Vec {
    T v[N];
    typedef typename RawOf<int(N * sizeof(T))>::type Raw;
    static constexpr int PARTS = N * sizeof(T) / sizeof(Raw);
};

template <int N, typename T> __device__ __forceinline__ Vec<T, N> load_vec(const T* p) {
    typedef typename Vec<T, N>::Raw Raw;
    Vec<T, N> x;
#pragma unroll
    for (int i = 0; i < Vec<T, N>::PARTS; ++i)
        reinterpret_cast<Raw*>(&x)[i] = reinterpret_cast<const Raw*>(p)[i];
    return x;
}

template <int N, typename T> __device__ __forceinline__ void store_vec(T* p, const Vec<T, N>& x) {
    typedef typename Vec<T, N>::Raw Raw;
#pragma unroll
    for (int i = 0; i < Vec<T, N>::PARTS; ++i)
        reinterpret_cast<Raw*>(p)[i] = reinterpret_cast<const Raw*>(&x)[i];
}

// Read once and by nobody else: weights.
template <typename T> __device__ __forceinline__ Pack<T> load_stream(const T* p) {
    uint4 r;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w) : "l"(p));
    Pack<T> x;
    *reinterpret_cast<uint4*>(&x) = r;
    return x;
}

template <typename T> __device__ __forceinline__ void store(T* p, const Pack<T>& x) {
    *reinterpret_cast<uint4*>(p) = *reinterpret_cast<const uint4*>(&x);
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int d = 16; d; d >>= 1) x += __shfl_xor_sync(~0u, x, d);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int d = 16; d; d >>= 1) x = fmaxf(x, __shfl_xor_sync(~0u, x, d));
    return x;
}

// Sum over a block of at most 1,024 threads, known to all of them; the order is fixed by the block's size.
// ``scratch``: 32 floats of shared memory, free again after the next barrier.
__device__ __forceinline__ float block_sum(float x, float* scratch) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (blockDim.x + 31) >> 5;
    x = warp_sum(x);
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    return warp_sum(lane < warps ? scratch[lane] : 0.f);
}

// Programmatic dependent launch (sm_90 and on; elsewhere nothing): results of the kernel before may be read only
// after ``wait_for_previous``; the next kernel may start once every block has called ``let_next_start`` or ended.
__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
