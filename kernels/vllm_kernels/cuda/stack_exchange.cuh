// Words that carry their own flag: the reader polls the data itself, so that an exchange between all blocks costs
// one store and one load. (NCCL's low-latency protocol does so between devices.)
// Why one buffer a product is enough: a block writes product p of the next layer after it has read all of the
// products between, and of those every block wrote its part after it had read p of this layer.
#pragma once
#include "stack_shape.cuh"

#ifndef ABLATE
#define ABLATE 0  // for measuring only. 1: no attention, 2: nobody waits for anybody
#endif
#ifndef PAUSE
#define PAUSE 0  // nanoseconds between two looks
#endif

DEVICE u32 pack(float a, float b) { return u32(from_float<bf16>(a).bits) | u32(from_float<bf16>(b).bits) << 16; }
DEVICE float low(u32 x) { return __uint_as_float(x << 16); }
DEVICE float high(u32 x) { return __uint_as_float(x & 0xffff0000u); }

DEVICE void put(u64* word, u32 payload, u32 tag) { store_word(word, u64(tag) << 32 | payload); }
DEVICE bool fresh(u64 word, u32 tag) { return (ABLATE & 2) || u32(word >> 32) == tag; }

// N pairs of words at at(i), each nullptr or 16-byte aligned; their payloads, zero for nullptr.
template <int N, class At> DEVICE void take_pairs(uint2 (&out)[N], u32 tag, At at) {
    u64 a[N], b[N];
    bool again = true;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        a[i] = b[i] = u64(tag) << 32;
        if (const u64* p = at(i)) load_words(p, a[i], b[i]);
    }
    u32 spins = 0;
    while (true) {
        again = false;
#pragma unroll
        for (int i = 0; i < N; ++i) again |= !fresh(a[i], tag) || !fresh(b[i], tag);
        if (!again) break;
        not_for_ever(spins);
        if (PAUSE) __nanosleep(PAUSE);
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (!fresh(a[i], tag) || !fresh(b[i], tag)) load_words(at(i), a[i], b[i]);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) out[i] = make_uint2(u32(a[i]), u32(b[i]));
}

// The same with single words.
template <int N, class At> DEVICE void take(u32 (&out)[N], u32 tag, At at) {
    u64 a[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const u64* p = at(i);
        a[i] = p ? load_word(p) : u64(tag) << 32;
    }
    u32 spins = 0;
    while (true) {
        bool again = false;
#pragma unroll
        for (int i = 0; i < N; ++i) again |= !fresh(a[i], tag);
        if (!again) break;
        not_for_ever(spins);
        if (PAUSE) __nanosleep(PAUSE);
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (!fresh(a[i], tag)) a[i] = load_word(at(i));
    }
#pragma unroll
    for (int i = 0; i < N; ++i) out[i] = u32(a[i]);
}
