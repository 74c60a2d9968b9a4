// Products for few tokens, limited by reading the weights once: y = act(norm(x + residual) W^T + bias).
//
// Tensor cores multiply 16 tokens (absent ones are zeros) by 8 weight rows and 16 inputs at a time. A sum over k may
// take k in any order, so each lane reads 16 bytes of a weight row and the same 16 bytes of a token's row, and these
// are operands of two products as they are, without a shuffle.
//
// A unit is TILES tiles of 8 weight rows, of all K; the block's warps take k in steps of 32 in turn and their sums are
// added in a fixed order, through shared memory. Units are dealt to blocks, not more of which run than fit at a time.
// A tile is read to the end of its rows before the next. Every lane keeps DEPTH steps of its own weights on their way
// to its own places in shared memory, over the borders of units: no barrier is needed for them.
//
// Launched dependent: the weights do not come from the kernel before, so they are under way before it is waited for,
// and the kernel after this one may come near at once: asking for weights alone was seen to last 1 to 4 microseconds.
// Nothing else is read, and nothing written, before the wait; and each block waits. So when this kernel
// has ended, all kernels before it have, too, and whoever waits for it may read what any of them wrote.
//
// ELEMENT bf16 or f16 · INPUTS, a multiple of 8 · TOKENS 8 or 16: most of them · WARPS · TILES · STEPS of 32 inputs a
// warp · DEPTH · ONCE 1: a block has one unit, and all of it is on its way at once · SPAN steps for which x is read
// ahead, divides STEPS · NORM 0 or 1, SCALE the type of its weight · GATE 0: no activation, rows [n] of weights; 1 silu,
// 2 gelu, 3 gelu by tanh: rows [2 n], gates before ups · STREAM 1: x is read from global memory at each use, 0: once,
// to shared memory
#include "common.cuh"

typedef ELEMENT T;
typedef SCALE Scale;
constexpr int K = INPUTS, THREADS = WARPS * 32, HALVES = TOKENS / 8, BLOCK_K = WARPS * 32, KP = STEPS * BLOCK_K;
constexpr int COLUMNS = GATE ? TILES / 2 : TILES, ROWS = COLUMNS * 8;  // of y a unit: tiles, elements
constexpr int STRIDE = KP % 64 ? KP : KP + 32;  // elements a staged token: 64 bytes off a multiple of 128, for banks
constexpr bool WHOLE = KP == K;
constexpr bool KEPT = SPAN == STEPS;  // all that a lane needs of x stays in its registers
constexpr int TURNS = SPAN > 1 ? 4 : 2;  // products that follow one another in one accumulator wait for each other
static_assert(STEPS % SPAN == 0 && K % 8 == 0 && KP >= K && (!GATE || TILES % 2 == 0) && !(NORM && STREAM), "shape");
static_assert(ONCE ? DEPTH == STEPS * TILES : DEPTH > 1, "ring");

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
// ``sums``: room for a sum a token and warp.
__device__ __forceinline__ void stage(const T* x, const T* residual, const Scale* kept, float eps, T* total, T* staged,
                                      float* sums, int tokens) {
    constexpr int BATCH = WARPS > 8 ? 2 : 4, CHUNKS = K / 8;  // loads at a time, pieces of 16 bytes
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
// total [tokens, K], for x + residual
// The registers of two kernels in a row fit side by side.
extern "C" __global__ void __launch_bounds__(THREADS, WARPS > 8 ? 2 : 1)
    small_product(const T* x, const T* residual, const Scale* scale, float eps, const T* weight, const T* bias, T* y,
                  T* total, int tokens, int n) {
    extern __shared__ uint4 memory[];
    let_next_start();
    constexpr int SLOT = WARPS * 32;
    const int tile_sums = tokens * 8;
    T* staged = reinterpret_cast<T*>(memory + DEPTH * SLOT);                          // [tokens][STRIDE]
    Scale* kept = reinterpret_cast<Scale*>(staged + (STREAM ? 0 : tokens * STRIDE));  // [K]
    float* partial = reinterpret_cast<float*>(kept + (NORM ? K : 0));                 // [WARPS][TILES][tokens][8]
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, k0 = warp * 32 + (lane & 3) * 8;
    uint4* ring = memory + threadIdx.x;  // [DEPTH][WARPS][32]
    const int units = (n + ROWS - 1) / ROWS;
    // The last unit begins early rather than end late: rows of two units are computed twice, and equal.
    auto first_row = [&](int unit) { return min(unit * ROWS, n - ROWS); };

    // What is fetched next: step ``due`` of tile ``due_tile`` of unit ``due_unit``.
    int due = 0, due_tile = 0, due_unit = blockIdx.x;
    auto tile_start = [&]() {
        const int row = first_row(due_unit) + (due_tile < COLUMNS ? due_tile * 8 : n + (due_tile - COLUMNS) * 8);
        return weight + i64(row + g) * K + k0;
    };
    const T* due_row = tile_start();
    auto fetch_step = [&](int slot) {
        if (due_unit < units) {
            const bool there = WHOLE || k0 + due * BLOCK_K < K;
            fetch(ring + slot * SLOT, there ? due_row + due * BLOCK_K : weight, there ? 16 : 0);
            if (++due == STEPS) {
                due = 0;
                if (++due_tile == TILES) due_tile = 0, due_unit += gridDim.x;
                due_row = tile_start();
            }
        }
        fetched_group();
    };
    auto load_token = [&](int half, int step) {
        const int t = g + 8 * half, k = k0 + step * BLOCK_K;
        if (t >= tokens || (STREAM && !WHOLE && k >= K)) return make_uint4(0, 0, 0, 0);
        return *reinterpret_cast<const uint4*>(STREAM ? x + i64(t) * K + k : staged + t * STRIDE + k);
    };

    if (NORM) fetch_scale(scale, kept);
#pragma unroll 8
    for (int d = 0; d < DEPTH; d++) fetch_step(d);
    if (bias && threadIdx.x <= (GATE ? 1 : 0)) {
        const T* soon = bias + first_row(blockIdx.x) + (threadIdx.x ? n : 0);
        asm volatile("prefetch.global.L2 [%0];" :: "l"(soon));
    }
    wait_for_previous();
    if (!STREAM) stage(x, residual, kept, eps, total, staged, partial, tokens);
    constexpr bool AHEAD = STREAM || KEPT;
    uint4 token[AHEAD ? SPAN : 1][HALVES];
    if (AHEAD) {
#pragma unroll
        for (int d = 0; d < SPAN; d++)
#pragma unroll
            for (int h = 0; h < HALVES; h++) token[AHEAD ? d : 0][h] = load_token(h, d);
    }
    if (ONCE) await_groups<0>();

    int slot = 0;
    for (int unit = blockIdx.x; unit < units; unit += gridDim.x) {
#pragma unroll ONCE ? TILES : 1
        for (int tile = 0; tile < TILES; tile++) {
            float sums[TURNS][4] = {};
            for (int s = 0; s < STEPS; s += SPAN) {
#pragma unroll
                for (int d = 0; d < SPAN; d++) {
                    if (!ONCE) await_groups<DEPTH - 1>();
                    const uint4 b = ring[(ONCE ? tile * STEPS + s + d : slot) * SLOT];
                    uint4 (&a)[HALVES] = token[AHEAD ? d : 0];
                    if (!AHEAD) {
#pragma unroll
                        for (int h = 0; h < HALVES; h++) a[h] = load_token(h, s + d);
                    }
                    const uint4 low = a[0], high = HALVES > 1 ? a[HALVES - 1] : make_uint4(0, 0, 0, 0);
                    multiply(sums[2 * d % TURNS], low.x, high.x, low.y, high.y, b.x, b.y, T{});
                    multiply(sums[(2 * d + 1) % TURNS], low.z, high.z, low.w, high.w, b.z, b.w, T{});
                    if (!ONCE) {
                        fetch_step(slot);
                        slot = slot + 1 == DEPTH ? 0 : slot + 1;
                    }
                    // After the last step, those of the next tile's first ones.
                    if (STREAM && !KEPT) {
#pragma unroll
                        for (int h = 0; h < HALVES; h++) a[h] = load_token(h, s + d + SPAN < STEPS ? s + d + SPAN : d);
                    }
                }
            }
#pragma unroll
            for (int h = 0; h < HALVES; h++) {
                float2 sum = make_float2(0.f, 0.f);
#pragma unroll
                for (int i = 0; i < TURNS; i++) sum.x += sums[i][h * 2], sum.y += sums[i][h * 2 + 1];
                float* to = partial + (warp * TILES + tile) * tile_sums + (g + 8 * h) * 8 + (lane & 3) * 2;
                if (g + 8 * h < tokens) *reinterpret_cast<float2*>(to) = sum;
            }
        }
        __syncthreads();
        auto block_sum_of = [&](int i) {
            float sum = 0.f;
#pragma unroll
            for (int v = 0; v < WARPS; v++) sum += partial[v * TILES * tile_sums + i];
            return sum;
        };
        for (int i = threadIdx.x; i < COLUMNS * tile_sums; i += THREADS) {
            const int row = first_row(unit) + i / tile_sums * 8 + i % 8, t = i % tile_sums / 8;
            float sum = block_sum_of(i);
            if (bias) sum += to_float(bias[row]);
            if (GATE) {
                float up = block_sum_of(COLUMNS * tile_sums + i);
                if (bias) up += to_float(bias[n + row]);
                // Gates and ups are rounded where the unfused product would store them.
                sum = gate_of(rounded<T>(sum)) * rounded<T>(up);
            }
            y[i64(t) * n + row] = from_float<T>(sum);
        }
        if (unit + gridDim.x < units) __syncthreads();
    }
}
