// The instructions that the stack of layers is built from: bulk copies into shared memory and the barriers that
// count their bytes, loads and stores seen by all blocks, products of small tiles. sm_90.
#pragma once
#include "common.cuh"

#define DEVICE __device__ __forceinline__

// A wait that never ends is an error of ours: stop the kernel, the host then gets a launch failure.
DEVICE void not_for_ever(u32& spins) {
    if (++spins > (1u << 22)) __trap();
}

DEVICE u32 shared_address(const void* p) { return u32(__cvta_generic_to_shared(p)); }

DEVICE void barrier_init(u64* barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
DEVICE void barriers_ready() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
DEVICE void barrier_arrive(u64* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// One arrival, and so many bytes of copies that must have landed as well.
DEVICE void barrier_expect(u64* barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}
// Until the phase of this parity is over.
DEVICE void barrier_wait(u64* barrier, u32 parity) {
    u32 done, spins = 0;
    do {
        asm volatile(
            "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
            : "=r"(done)
            : "r"(shared_address(barrier)), "r"(parity)
            : "memory");
        if (!done) not_for_ever(spins);
    } while (!done);
}

// Weights pass the L2 cache once: they are the first to leave it.
DEVICE u64 streaming_policy() {
    u64 policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}
// ``bytes`` (a multiple of 16) from global to shared memory; counted by the barrier when they are there.
DEVICE void bulk_copy(void* to, const void* from, u32 bytes, u64* barrier, u64 policy) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(
            shared_address(to)),
        "l"(from), "r"(bytes), "r"(shared_address(barrier)), "l"(policy)
        : "memory");
}
DEVICE void prefetch_l2(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// Read once by this multiprocessor: leaves its first cache to what is read again.
DEVICE uint4 load_once(const void* p) {
    uint4 r;
    asm("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
        : "l"(p));
    return r;
}

// From shared memory, here and now: registers are not held for it.
DEVICE uint4 load_here(const void* p) {
    uint4 r;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
                 : "r"(shared_address(p)));
    return r;
}

// Two words of 8 bytes, each read at once, as they are for all blocks now.
DEVICE void load_words(const u64* p, u64& a, u64& b) {
    asm volatile("ld.relaxed.gpu.global.v2.b64 {%0, %1}, [%2];" : "=l"(a), "=l"(b) : "l"(p) : "memory");
}
DEVICE u64 load_word(const u64* p) {
    u64 a;
    asm volatile("ld.relaxed.gpu.global.b64 %0, [%1];" : "=l"(a) : "l"(p) : "memory");
    return a;
}
DEVICE void store_word(u64* p, u64 a) { asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(p), "l"(a) : "memory"); }

// d += a b: a [16, 16], b [16, 8]. Lane (g = lane / 4, c = lane % 4) gives of rows g (a0, a2) and g + 8 (a1, a3) of a,
// and of column g of b (b0, b1), two neighbouring elements each: 2c and on, and 2c + 8 and on. It gets columns 2c and
// 2c + 1 of row g (x, y) and of row g + 8 (z, w) of d.
DEVICE void multiply(float4& d, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d.x), "+f"(d.y), "+f"(d.z), "+f"(d.w)
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// threadIdx.x, and all that follows from it to be computed anew: not to be kept in registers from layer to layer.
DEVICE int this_thread() {
    int thread = threadIdx.x;
    asm volatile("" : "+r"(thread));
    return thread;
}

// The warps that compute, not the one that copies.
DEVICE void team_sync() { asm volatile("bar.sync 1, 256;" ::: "memory"); }
