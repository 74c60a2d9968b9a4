// Products for few tokens, limited by reading the weights once: y = act(norm(x + residual) W^T + bias).
//
// Tensor cores multiply 16 tokens (absent ones are zeros) by 8 weight rows and 16 inputs at a time. A sum over k may
// take k in any order, so each lane reads 16 bytes of a weight row and the same 16 bytes of a token's row, and these
// are operands of two products as they are, without a shuffle.
//
// A unit is TILES tiles of 8 weight rows, of all K; the warps of CLUSTER blocks take k in steps of 32 in turn and their
// sums are added in a fixed order: those of a block, then those of the cluster, through shared memory. Units are dealt
// to clusters, not more of which run than fit at a time. With more tokens the clusters pay: a block reads only its own
// inputs of them. GROUP tiles at a time share what is read of the tokens; a group is read to the end of its rows
// before the next, so that what is on its way at one time lies together in memory. Every lane keeps DEPTH steps of
// its own weights on their way to its own places in shared memory, over the borders of units: no barrier is needed.
//
// Launched dependent: the weights do not come from the kernel before, so they are under way before it is waited for.
// Nothing else is read, and nothing written, before that; and each block waits. So when this kernel has ended, all
// kernels before it have, too, and whoever waits for it may read what any of them wrote.
//
// ELEMENT bf16 or f16 · INPUTS, a multiple of 8 · TOKENS 8, 16, 32 or 64: most of them · WARPS · TILES, a multiple of
// GROUP · CLUSTER blocks · STEPS of 32 inputs a warp · DEPTH · ONCE 1: a block has one unit, and all of it is on its way
// at once · SPAN steps for which x is read ahead, divides STEPS · NORM 0 or 1, SCALE the type of its weight · GATE 0: no
// activation, rows [n] of weights; 1 silu, 2 gelu, 3 gelu by tanh: rows [2 n], gates before ups · STREAM 1: x is read
// from global memory at each use, 0: once, to shared memory
#include "common.cuh"

typedef ELEMENT T;
typedef SCALE Scale;
constexpr int K = INPUTS, THREADS = WARPS * 32, HALVES = TOKENS / 8, SIXTEENS = TOKENS > 8 ? TOKENS / 16 : 1;
constexpr int BLOCK_K = WARPS * 32, STRIDE_K = CLUSTER * BLOCK_K, KP = STEPS * STRIDE_K;
constexpr int LOCAL = STEPS * BLOCK_K;  // inputs of a block
constexpr int COLUMNS = GATE ? TILES / 2 : TILES, ROWS = COLUMNS * 8;  // of y a unit: tiles, elements
constexpr int STRIDE = LOCAL % 64 ? LOCAL : LOCAL + 32;  // elements a staged token: 64 bytes off a multiple of 128
constexpr bool WHOLE = KP == K;
constexpr int GROUPS = TILES / GROUP;
constexpr bool KEPT = SPAN == STEPS;  // all that a lane needs of x stays in its registers
// Products that follow one another in one accumulator wait for each other: take turns.
constexpr int TURNS = GROUP * SIXTEENS >= 4 ? 1 : GROUP * SIXTEENS == 2 ? 2 : 4;
static_assert(STEPS % SPAN == 0 && K % 8 == 0 && KP >= K && (!GATE || COLUMNS % GROUP == 0 || GROUP == TILES), "shape");
static_assert(TILES % GROUP == 0 && (!GATE || TILES % 2 == 0) && !(NORM && STREAM), "shape");
static_assert(ONCE ? DEPTH == STEPS * GROUPS : DEPTH > 1, "ring");

#ifdef TRACE
__device__ __forceinline__ i64 now() {
    i64 t;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
    return t;
}
#define MARK(i) if (threadIdx.x == 0) marks[i] = now()
#else
#define MARK(i)
#endif

// 16 bytes on their way to shared memory, around L1; ``there`` 0: zeros instead.
__device__ __forceinline__ void fetch(uint4* to, const void* from, int there = 16) {
    asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16, %2;"
                 :: "r"(u32(__cvta_generic_to_shared(to))), "l"(from), "r"(there) : "memory");
}
__device__ __forceinline__ void fetched_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING> __device__ __forceinline__ void await_groups() {
    asm volatile("cp.async.wait_group %0;" :: "n"(PENDING) : "memory");
}

// Blocks of a cluster: number of this one, a barrier of all their threads, a store to another's shared memory.
__device__ __forceinline__ int cluster_rank() {
    int rank = 0;
    if (CLUSTER > 1) asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.release;" ::: "memory"); }
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }
__device__ __forceinline__ void store_at(int rank, float* mine, float value) {
    u32 there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(u32(__cvta_generic_to_shared(mine))), "r"(rank));
    asm volatile("st.shared::cluster.f32 [%0], %1;" :: "r"(there), "f"(value) : "memory");
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

// Where an input of this block, counted from 0, lies in a row of all K.
__device__ __forceinline__ int input_at(int local, int rank) {
    return CLUSTER == 1 ? local : (local / BLOCK_K * CLUSTER + rank) * BLOCK_K + local % BLOCK_K;
}

// The norm's weight, of this block's inputs, to shared memory.
__device__ __forceinline__ void fetch_scale(const Scale* scale, Scale* kept, int rank) {
    constexpr int PER = 16 / sizeof(Scale);
    for (int i = threadIdx.x; i < LOCAL / PER; i += THREADS) {
        const int k = input_at(i * PER, rank);
        fetch(reinterpret_cast<uint4*>(kept + i * PER), k < K ? scale + k : scale, k < K ? 16 : 0);
    }
    fetched_group();
}

// This block's inputs of x, or of norm(x + residual), to ``staged``, zeros behind K. One cluster writes each token of
// ``total`` = x + residual. ``sums``: floats for a sum a token and warp; ``all_sums``: [CLUSTER][tokens].
__device__ __forceinline__ void stage(const T* x, const T* residual, const Scale* kept, float eps, T* total, T* staged,
                                      float* sums, float* all_sums, int tokens, int rank) {
    constexpr int BATCH = 4, CHUNKS = LOCAL / 8;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int share = max(1, WARPS / tokens), groups = WARPS / share;  // warps a token
    const int first = warp % share * 32 + lane, step = share * 32;
    const int clusters = gridDim.x / CLUSTER, cluster = blockIdx.x / CLUSTER;
    for (int t = warp / share; t < tokens; t += groups) {
        T* row = staged + t * STRIDE;
        const bool writes = NORM && residual && t % clusters == cluster;
        float sum = 0.f;
        for (int c = first; c < CHUNKS; c += BATCH * step) {
            Pack<T> a[BATCH], b[BATCH];
#pragma unroll
            for (int i = 0; i < BATCH; i++) {
                const int k = input_at((c + i * step) * 8, rank);
                *reinterpret_cast<uint4*>(&a[i]) = make_uint4(0, 0, 0, 0);
                if (c + i * step < CHUNKS && (WHOLE || k < K)) {
                    a[i] = load(x + i64(t) * K + k);
                    if (NORM && residual) b[i] = load(residual + i64(t) * K + k);
                }
            }
#pragma unroll
            for (int i = 0; i < BATCH; i++) {
                const int k = input_at((c + i * step) * 8, rank);
                if (c + i * step >= CHUNKS) continue;
                if (NORM && (WHOLE || k < K)) {
#pragma unroll
                    for (int e = 0; e < 8; e++) {
                        if (residual) a[i].v[e] = from_float<T>(to_float(a[i].v[e]) + to_float(b[i].v[e]));
                        sum += to_float(a[i].v[e]) * to_float(a[i].v[e]);
                    }
                    if (writes) store(total + i64(t) * K + k, a[i]);
                }
                store(row + (c + i * step) * 8, a[i]);
            }
        }
        if (NORM) {
            sum = warp_sum(sum);
            if (lane == 0) sums[t * share + warp % share] = sum;
        }
    }
    if (NORM) {
        await_groups<DEPTH>();  // the norm's weight is older than the weights in the ring
        __syncthreads();
        if (CLUSTER > 1) {
            cluster_wait();  // all blocks run
            for (int i = threadIdx.x; i < tokens * CLUSTER; i += THREADS) {
                float sum = 0.f;
                for (int j = 0; j < share; j++) sum += sums[i / CLUSTER * share + j];
                store_at(i % CLUSTER, all_sums + rank * tokens + i / CLUSTER, sum);
            }
            cluster_arrive();
            cluster_wait();
        }
        for (int t = warp / share; t < tokens; t += groups) {
            float sum = 0.f;
            if (CLUSTER > 1)
                for (int i = 0; i < CLUSTER; i++) sum += all_sums[i * tokens + t];
            else
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
extern "C" __global__ void __launch_bounds__(THREADS, 1)
#if CLUSTER > 1
    __cluster_dims__(CLUSTER)
#endif
    small_product(const T* x, const T* residual, const Scale* scale, float eps, const T* weight, const T* bias, T* y,
                  T* total, const char* ahead, i64 ahead_bytes, int tokens, int n) {
    extern __shared__ uint4 memory[];
#ifdef TRACE
    i64* marks = reinterpret_cast<i64*>(const_cast<char*>(ahead)) + blockIdx.x * 8;
    ahead_bytes = 0;
#endif
    MARK(0);
    constexpr int SLOT = WARPS * GROUP * 32;
    const int tile = tokens * 8;  // sums a tile
    T* staged = reinterpret_cast<T*>(memory + DEPTH * SLOT);                          // [tokens][STRIDE]
    Scale* kept = reinterpret_cast<Scale*>(staged + (STREAM ? 0 : tokens * STRIDE));  // [LOCAL]
    float* partial = reinterpret_cast<float*>(kept + (NORM ? LOCAL : 0));             // [WARPS][TILES][tokens][8]
    float* all_sums = partial + WARPS * TILES * tile;                                 // [CLUSTER][tokens]
    float* exchange = all_sums + CLUSTER * tokens;                                    // [2][CLUSTER][owned]
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, rank = cluster_rank();
    const int local0 = warp * 32 + (lane & 3) * 8, k0 = rank * BLOCK_K + local0;
    uint4* ring = memory + warp * GROUP * 32 + lane;  // [DEPTH][WARPS][GROUP][32]
    const int units = (n + ROWS - 1) / ROWS, clusters = gridDim.x / CLUSTER, cluster = blockIdx.x / CLUSTER;
    if (CLUSTER > 1) cluster_arrive();
    // The last unit begins early rather than end late: rows of two units are computed twice, and equal.
    auto first_row = [&](int unit) { return min(unit * ROWS, n - ROWS); };

    // What is fetched next: step ``due`` of group ``due_group`` of unit ``due_unit``.
    int due = 0, due_group = 0, due_unit = cluster;
    auto group_start = [&]() {
        const int j = due_group * GROUP, row = first_row(due_unit) + (j < COLUMNS ? j * 8 : n + (j - COLUMNS) * 8);
        return weight + i64(row + g) * K + k0;
    };
    const T* due_row = group_start();
    auto fetch_step = [&](int slot) {
        if (due_unit < units) {
            const int there = WHOLE || k0 + due * STRIDE_K < K ? 16 : 0;
            const T* from = due_row + due * STRIDE_K;
#pragma unroll
            for (int j = 0; j < GROUP; j++) {
                // A group that is all of a unit has gates and ups.
                const T* at = GATE && GROUP == TILES && j >= COLUMNS ? from + i64(n) * K + (j - COLUMNS) * 8 * K : from + j * 8 * K;
                fetch(ring + slot * SLOT + j * 32, there ? at : weight, there);
            }
            if (++due == STEPS) {
                due = 0;
                if (++due_group == GROUPS) due_group = 0, due_unit += clusters;
                due_row = group_start();
            }
        }
        fetched_group();
    };
    auto load_token = [&](int half, int step) {
        const int t = g + 8 * half, k = k0 + step * STRIDE_K;
        if (t >= tokens || (STREAM && !WHOLE && k >= K)) return make_uint4(0, 0, 0, 0);
        return *reinterpret_cast<const uint4*>(STREAM ? x + i64(t) * K + k : staged + t * STRIDE + local0 + step * BLOCK_K);
    };

    if (NORM) fetch_scale(scale, kept, rank);
#pragma unroll 8
    for (int d = 0; d < DEPTH; d++) fetch_step(d);
    if (bias && threadIdx.x <= (GATE ? 1 : 0)) {
        const T* soon = bias + first_row(cluster) + (threadIdx.x ? n : 0);
        asm volatile("prefetch.global.L2 [%0];" :: "l"(soon));
    }
    let_next_start();
    MARK(1);
    wait_for_previous();
    MARK(2);
    if (!STREAM) stage(x, residual, kept, eps, total, staged, partial, all_sums, tokens, rank);
    constexpr bool AHEAD = STREAM || KEPT;
    uint4 token[AHEAD ? SPAN : 1][HALVES];
    if (AHEAD) {
#pragma unroll
        for (int d = 0; d < SPAN; d++)
#pragma unroll
            for (int h = 0; h < HALVES; h++) token[AHEAD ? d : 0][h] = load_token(h, d);
    }
    MARK(3);
    if (CLUSTER > 1 && !NORM) cluster_wait();  // all blocks run
    if (ONCE) await_groups<0>();
    MARK(4);

    int slot = 0, turn = 0;
    for (int unit = cluster; unit < units; unit += clusters, turn ^= 1) {
#pragma unroll ONCE ? GROUPS : 1
        for (int group = 0; group < GROUPS; group++) {
            float sums[TURNS][GROUP][SIXTEENS][4] = {};
            for (int s = 0; s < STEPS; s += SPAN) {
#pragma unroll
                for (int d = 0; d < SPAN; d++) {
                    if (!ONCE) await_groups<DEPTH - 1>();
                    uint4 b[GROUP];
#pragma unroll
                    for (int j = 0; j < GROUP; j++) b[j] = ring[(ONCE ? group * STEPS + s + d : slot) * SLOT + j * 32];
                    uint4 (&a)[HALVES] = token[AHEAD ? d : 0];
#pragma unroll
                    for (int m = 0; m < SIXTEENS; m++) {
                        if (!AHEAD) {
                            a[2 * m] = load_token(2 * m, s + d);
                            if (HALVES > 1) a[HALVES > 1 ? 2 * m + 1 : 0] = load_token(2 * m + 1, s + d);
                        }
                        const uint4 low = a[2 * m], high = HALVES > 1 ? a[HALVES > 1 ? 2 * m + 1 : 0] : make_uint4(0, 0, 0, 0);
#pragma unroll
                        for (int j = 0; j < GROUP; j++) {
                            multiply(sums[2 * d % TURNS][j][m], low.x, high.x, low.y, high.y, b[j].x, b[j].y, T{});
                            multiply(sums[(2 * d + 1) % TURNS][j][m], low.z, high.z, low.w, high.w, b[j].z, b[j].w, T{});
                        }
                    }
                    if (!ONCE) {
                        fetch_step(slot);
                        slot = slot + 1 == DEPTH ? 0 : slot + 1;
                    }
                    // After the last step, those of the next group's first ones.
                    if (STREAM && !KEPT) {
#pragma unroll
                        for (int h = 0; h < HALVES; h++) a[h] = load_token(h, s + d + SPAN < STEPS ? s + d + SPAN : d);
                    }
                }
            }
#pragma unroll
            for (int j = 0; j < GROUP; j++)
#pragma unroll
                for (int h = 0; h < HALVES; h++) {
                    float2 sum = make_float2(0.f, 0.f);
#pragma unroll
                    for (int i = 0; i < TURNS; i++)
                        sum.x += sums[i][j][h / 2][h % 2 * 2], sum.y += sums[i][j][h / 2][h % 2 * 2 + 1];
                    float* to = partial + (warp * TILES + group * GROUP + j) * tile + (g + 8 * h) * 8 + (lane & 3) * 2;
                    if (g + 8 * h < tokens) *reinterpret_cast<float2*>(to) = sum;
                }
        }
        MARK(5);
#if __CUDA_ARCH__ >= 900
        if (ahead_bytes && threadIdx.x == 0 && unit + clusters >= units) {
            const i64 share = (ahead_bytes / gridDim.x + 127) / 128 * 128, from = share * blockIdx.x;
            const i64 size = min(share, ahead_bytes - from);
            if (size > 0)
                asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" :: "l"(ahead + from), "r"(u32(size)) : "memory");
        }
#endif
        __syncthreads();
        auto block_sum_of = [&](int i) {
            float sum = 0.f;
#pragma unroll
            for (int v = 0; v < WARPS; v++) sum += partial[v * TILES * tile + i];
            return sum;
        };
        auto finish = [&](int i, float sum, float up) {
            const int row = first_row(unit) + i / tile * 8 + i % 8, t = i % tile / 8;
            if (bias) sum += to_float(bias[row]);
            if (GATE && bias) up += to_float(bias[n + row]);
            // Gates and ups are rounded where the unfused product would store them.
            if (GATE) sum = gate_of(rounded<T>(sum)) * rounded<T>(up);
            y[i64(t) * n + row] = from_float<T>(sum);
        };
        if (CLUSTER == 1) {
            for (int i = threadIdx.x; i < COLUMNS * tile; i += THREADS)
                finish(i, block_sum_of(i), GATE ? block_sum_of(COLUMNS * tile + i) : 0.f);
            if (unit + clusters < units) __syncthreads();
        } else {
            // Sum i is finished by block i / owned. Two buffers in turn: the other one is still being read.
            const int owned = (COLUMNS * tile + CLUSTER - 1) / CLUSTER;
            float* here = exchange + turn * CLUSTER * owned * (GATE ? 2 : 1);
            for (int i = threadIdx.x; i < COLUMNS * tile; i += THREADS) {
                float* to = here + (rank * owned + i % owned) * (GATE ? 2 : 1);
                store_at(i / owned, to, block_sum_of(i));
                if (GATE) store_at(i / owned, to + 1, block_sum_of(COLUMNS * tile + i));
            }
            cluster_arrive();
            cluster_wait();
            for (int i = threadIdx.x; i < owned && rank * owned + i < COLUMNS * tile; i += THREADS) {
                float sum = 0.f, up = 0.f;
#pragma unroll
                for (int c = 0; c < CLUSTER; c++) {
                    sum += here[(c * owned + i) * (GATE ? 2 : 1)];
                    if (GATE) up += here[(c * owned + i) * 2 + 1];
                }
                finish(rank * owned + i, sum, up);
            }
        }
    }
    MARK(6);
}
