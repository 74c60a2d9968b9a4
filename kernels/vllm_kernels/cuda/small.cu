// Products for few tokens, limited by reading the weights once: y = act(norm(x + residual) W^T + bias).
//
// Tensor cores multiply 16 tokens (absent ones are zeros) by 8 weight rows and 16 inputs at a time. A sum over k may
// take k in any order, so each lane reads 16 bytes of a weight row and the same 16 bytes of a token's row, and these
// are operands of two products as they are, without a shuffle. A row's sum is taken in one order whatever T is.
//
// A unit is TILES tiles of 8 weight rows, of all K; the block's warps take k in steps of 32 in turn and their sums
// are added in a fixed order. Units are dealt to blocks, not more of which run than fit at a time. Every lane keeps
// DEPTH steps of its own weights on their way to its own places in shared memory, over the borders of units: no
// barrier is needed for them.
//
// Launched dependent: the weights do not come from the kernel before, so they are under way before it is waited for.
// Nothing else is read, and nothing written, before that; and each block waits. So when this kernel has ended, all
// kernels before it have, too, and whoever waits for it may read what any of them wrote.
//
// ELEMENT bf16 or f16 · INPUTS, a multiple of 8 · TOKENS 8 or 16: most of them · WARPS · TILES · STEPS of 32 inputs a
// warp · DEPTH · ONCE 1: a block has one unit, and DEPTH is STEPS · SPAN steps for which x is read ahead, divides STEPS
// NORM 0 or 1, SCALE the type of its weight · GATE 0: no activation, rows [n] of weights; 1 silu, 2 gelu, 3 gelu by
// tanh: rows [2 n], gates before ups · STREAM 1: x is read from global memory at each use, 0: once, to shared memory
#include "common.cuh"

typedef ELEMENT T;
typedef SCALE Scale;
constexpr int K = INPUTS;
constexpr int THREADS = WARPS * 32, HALVES = TOKENS / 8, STRIDE_K = WARPS * 32, KP = STEPS * STRIDE_K;
constexpr int COLUMNS = GATE ? TILES / 2 : TILES, ROWS = COLUMNS * 8;  // of y a unit: tiles, elements
constexpr int STRIDE = KP % 64 ? KP : KP + 32;  // elements a staged token: 64 bytes beyond a multiple of 128, for banks
constexpr bool WHOLE = KP == K;
static_assert(STEPS % SPAN == 0 && K % 8 == 0 && KP >= K && (!GATE || TILES % 2 == 0) && !(NORM && STREAM), "shape");
static_assert(DEPTH > 1 && (!ONCE || DEPTH == STEPS), "ring");

// 16 bytes on their way to shared memory, around L1; ``there`` 0: zeros instead.
__device__ __forceinline__ void fetch(uint4* to, const void* from, int there = 16) {
    asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16, %2;"
                 :: "r"(u32(__cvta_generic_to_shared(to))), "l"(from), "r"(there) : "memory");
}
__device__ __forceinline__ void fetched_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING> __device__ __forceinline__ void await_groups() {
    asm volatile("cp.async.wait_group %0;" :: "n"(PENDING) : "memory");
}

__device__ __forceinline__ void multiply(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1, bf16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void multiply(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1, f16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ float gate_of(float x) {
    if constexpr (GATE == 1) return x / (1.f + __expf(-x));
    if constexpr (GATE == 2) return 0.5f * x * (1.f + erff(x * 0.70710678118654752f));
    return 0.5f * x * (1.f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
}

// The norm's weight to shared memory.
__device__ __forceinline__ void fetch_scale(const Scale* scale, Scale* kept) {
    constexpr int PER = 16 / sizeof(Scale);
    for (int i = threadIdx.x; i < K / PER; i += THREADS) fetch(reinterpret_cast<uint4*>(kept + i * PER), scale + i * PER);
    fetched_group();
}

// x, or norm(x + residual), to ``staged``, zeros behind K. One block writes each token of ``total`` = x + residual.
__device__ __forceinline__ void stage(const T* x, const T* residual, const Scale* kept, float eps, T* total, T* staged,
                                      float* sums, int tokens) {
    constexpr int BATCH = 2, CHUNKS = K / 8;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int share = max(1, WARPS / tokens), groups = WARPS / share;  // warps a token
    const int first = warp % share * 32 + lane, step = share * 32;
    for (int t = warp / share; t < tokens; t += groups) {
        T* row = staged + t * STRIDE;
        const bool writes = NORM && residual && t % gridDim.x == blockIdx.x;
        float sum = 0.f;
        for (int c = first; c < CHUNKS; c += BATCH * step) {
            Pack<T> a[BATCH], b[BATCH];
#pragma unroll
            for (int i = 0; i < BATCH; i++)
                if (c + i * step < CHUNKS) {
                    a[i] = load(x + i64(t) * K + (c + i * step) * 8);
                    if (NORM && residual) b[i] = load(residual + i64(t) * K + (c + i * step) * 8);
                }
#pragma unroll
            for (int i = 0; i < BATCH; i++)
                if (c + i * step < CHUNKS) {
                    if (NORM) {
#pragma unroll
                        for (int e = 0; e < 8; e++) {
                            if (residual) a[i].v[e] = from_float<T>(to_float(a[i].v[e]) + to_float(b[i].v[e]));
                            sum += to_float(a[i].v[e]) * to_float(a[i].v[e]);
                        }
                        if (writes) store(total + i64(t) * K + (c + i * step) * 8, a[i]);
                    }
                    store(row + (c + i * step) * 8, a[i]);
                }
        }
        if (NORM) {
            sum = warp_sum(sum);
            if (lane == 0) sums[t * share + warp % share] = sum;
        }
        if (!WHOLE)
            for (int k = K + first; k < KP; k += step) row[k] = from_float<T>(0.f);
    }
    if (NORM) {
        await_groups<DEPTH>();  // the norm's weight is older than the weights in the ring
        __syncthreads();
        for (int t = warp / share; t < tokens; t += groups) {
            float sum = 0.f;
            for (int i = 0; i < share; i++) sum += sums[t * share + i];
            const float factor = rsqrtf(sum / K + eps);
            T* row = staged + t * STRIDE;
            for (int c = first; c < CHUNKS; c += step) {
                Pack<T> a = load(row + c * 8);
#pragma unroll
                for (int e = 0; e < 8; e++)
                    a.v[e] = from_float<T>(to_float(a.v[e]) * factor * to_float(kept[c * 8 + e]));
                store(row + c * 8, a);
            }
        }
    }
    __syncthreads();
}

// x [tokens, K], residual like it or null · weight [n or 2 n, K], n >= ROWS · bias a weight row or null · y [tokens, n]
// total [tokens, K], for x + residual · ahead: bytes that a later kernel reads, which are drawn into L2
extern "C" __global__ void __launch_bounds__(THREADS)
    small_product(const T* x, const T* residual, const Scale* scale, float eps, const T* weight, const T* bias, T* y,
                  T* total, const char* ahead, i64 ahead_bytes, int tokens, int n) {
    extern __shared__ uint4 memory[];
    T* staged = reinterpret_cast<T*>(memory + DEPTH * WARPS * TILES * 32);            // [tokens][STRIDE]
    Scale* kept = reinterpret_cast<Scale*>(staged + (STREAM ? 0 : tokens * STRIDE));  // [K]
    float* partial = reinterpret_cast<float*>(kept + (NORM ? K : 0));                 // [WARPS][TILES][tokens][8]
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, k0 = warp * 32 + (lane & 3) * 8;
    uint4* ring = memory + warp * TILES * 32 + lane;  // [DEPTH][WARPS][TILES][32]
    constexpr int SLOT = WARPS * TILES * 32;
    const int units = (n + ROWS - 1) / ROWS;
    // The last unit begins early rather than end late: rows of two units are computed twice, and equal.
    auto first_row = [&](int unit) { return min(unit * ROWS, n - ROWS); };

    // What is fetched next: step ``due`` of unit ``due_unit``, whose rows begin at ``due_row`` for this lane.
    int due = 0, due_unit = blockIdx.x;
    const T* due_row = weight + i64(first_row(due_unit) + g) * K + k0;
    auto fetch_step = [&](int slot) {
        if (due_unit < units) {
            const int there = WHOLE || k0 + due * STRIDE_K < K ? 16 : 0;
            const T* from = there ? due_row + due * STRIDE_K : weight;
            const T* from_up = there ? from + i64(n) * K : weight;
#pragma unroll
            for (int j = 0; j < TILES; j++)
                fetch(ring + slot * SLOT + j * 32,
                      j < COLUMNS ? from + (there ? j * 8 * K : 0) : from_up + (there ? (j - COLUMNS) * 8 * K : 0), there);
            if (++due == STEPS) {
                due = 0, due_unit += gridDim.x;
                due_row = weight + i64(first_row(due_unit) + g) * K + k0;
            }
        }
        fetched_group();
    };
    auto load_tokens = [&](uint4 (&to)[HALVES], int step) {
        const int k = k0 + step * STRIDE_K;
#pragma unroll
        for (int h = 0; h < HALVES; h++) {
            to[h] = make_uint4(0, 0, 0, 0);
            if (g + 8 * h < tokens && (WHOLE || !STREAM || k < K))
                to[h] = STREAM ? *reinterpret_cast<const uint4*>(x + i64(g + 8 * h) * K + k)
                               : *reinterpret_cast<const uint4*>(staged + (g + 8 * h) * STRIDE + k);
        }
    };

    if (NORM) fetch_scale(scale, kept);
#pragma unroll
    for (int d = 0; d < DEPTH; d++) fetch_step(d);
    if (bias && threadIdx.x <= (GATE ? 1 : 0)) {
        const T* soon = bias + first_row(blockIdx.x) + (threadIdx.x ? n : 0);
        asm volatile("prefetch.global.L2 [%0];" :: "l"(soon));
    }
    let_next_start();
    wait_for_previous();
    uint4 token[STREAM ? SPAN : 1][HALVES];
    if (STREAM) {
#pragma unroll
        for (int d = 0; d < SPAN; d++) load_tokens(token[d], d);
    } else {
        stage(x, residual, kept, eps, total, staged, partial, tokens);
    }

    int slot = 0;
    for (int unit = blockIdx.x; unit < units; unit += gridDim.x) {
        float sums[TILES][4] = {};
        if (ONCE) await_groups<0>();
        for (int s = 0; s < STEPS; s += SPAN) {
#pragma unroll
            for (int d = 0; d < SPAN; d++) {
                uint4 (&a)[HALVES] = token[STREAM ? d : 0];
                if (!STREAM) load_tokens(a, s + d);
                if (!ONCE) await_groups<DEPTH - 1>();
#pragma unroll
                for (int j = 0; j < TILES; j++) {
                    const uint4 b = ring[(ONCE ? s + d : slot) * SLOT + j * 32];
                    const uint4 high = HALVES > 1 ? a[HALVES - 1] : make_uint4(0, 0, 0, 0);
                    multiply(sums[j], a[0].x, high.x, a[0].y, high.y, b.x, b.y, T{});
                    multiply(sums[j], a[0].z, high.z, a[0].w, high.w, b.z, b.w, T{});
                }
                if (!ONCE) {
                    fetch_step(slot);
                    slot = slot + 1 == DEPTH ? 0 : slot + 1;
                }
                // After the last step, those of the next unit's first ones.
                if (STREAM && (!ONCE || s + d + SPAN < STEPS)) load_tokens(a, s + d + SPAN < STEPS ? s + d + SPAN : d);
            }
        }
#if __CUDA_ARCH__ >= 900
        if (ahead_bytes && threadIdx.x == 0 && unit + gridDim.x >= units) {
            const i64 share = (ahead_bytes / gridDim.x + 127) / 128 * 128, from = share * blockIdx.x;
            const i64 size = min(share, ahead_bytes - from);
            if (size > 0)
                asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" :: "l"(ahead + from), "r"(u32(size)) : "memory");
        }
#endif
        const int tile = tokens * 8;
#pragma unroll
        for (int j = 0; j < TILES; j++) {
            float* to = partial + (warp * TILES + j) * tile + (lane & 3) * 2;
            if (g < tokens) *reinterpret_cast<float2*>(to + g * 8) = make_float2(sums[j][0], sums[j][1]);
            if (HALVES > 1 && g + 8 < tokens)
                *reinterpret_cast<float2*>(to + (g + 8) * 8) = make_float2(sums[j][2], sums[j][3]);
        }
        __syncthreads();
        for (int i = threadIdx.x; i < COLUMNS * tile; i += THREADS) {
            const int row = first_row(unit) + i / tile * 8 + i % 8, t = i % tile / 8;
            float sum = bias ? to_float(bias[row]) : 0.f, up = GATE && bias ? to_float(bias[n + row]) : 0.f;
#pragma unroll
            for (int v = 0; v < WARPS; v++) {
                sum += partial[v * TILES * tile + i];
                if (GATE) up += partial[(v * TILES + COLUMNS) * tile + i];
            }
            // Gates and ups are rounded where the unfused product would store them.
            if (GATE) sum = gate_of(rounded<T>(sum)) * rounded<T>(up);
            y[i64(t) * n + row] = from_float<T>(sum);
        }
        if (unit + gridDim.x < units) __syncthreads();
    }
}
