// In the place of cuda/common.cuh: what the stack of layers uses of it.
#pragma once
#include "threads.h"

struct bf16 { u16 bits; };
inline float to_float(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }
template <typename T> T from_float(float x);
template <> inline bf16 from_float<bf16>(float x) {
    const u32 bits = __float_as_uint(x);
    return {x != x ? u16(0x7fff) : u16((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
template <typename T> float rounded(float x) { return to_float(from_float<T>(x)); }
inline float warp_sum(float x) {
    for (int d = 16; d; d >>= 1) x += __shfl_xor_sync(~0u, x, d);
    return x;
}
inline float warp_max(float x) {
    for (int d = 16; d; d >>= 1) x = fmaxf(x, __shfl_xor_sync(~0u, x, d));
    return x;
}
