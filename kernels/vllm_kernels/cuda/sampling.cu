// A token a line of logits. Every block of ``sample`` reads some tiles of a line, and the one that comes last decides:
// greedy.cuh; or draw.cuh, which needs no more than the tiles' largest logits and sums of weights, for a token lies in
// one tile, which is read again. Lines with min-p, top-k or top-p are left to ``sample_truncated``, a block each, which
// first finds the least logit that stays (truncate.cuh).
#include "draw.cuh"
#include "greedy.cuh"
#include "truncate.cuh"

namespace {

// What both kernels know of a line.
struct Asked {
    float heat = 0, rate = 0;  // temperature; log2(e) / temperature, finite, so that 0 times it is 0
    float p = 1, min_share = 0;
    int k = 0;

    __device__ __forceinline__ Asked(const float* temperature, const i64* top_k, const float* top_p,
                                     const float* min_p, int row, int vocab) {
        if (temperature == nullptr) return;
        heat = temperature[row];
        if (!(heat > 0)) return;
        rate = fminf(1.442695041f / heat, 3e38f);
        const i64 asked = top_k[row];
        k = asked > 0 && asked < vocab ? int(asked) : 0;
        p = top_p[row], min_share = min_p[row];
    }

    __device__ __forceinline__ bool cut() const { return k || p < 1 || min_share > 0; }
};

// The line's numbers of tiles into shared memory; the largest logit.
__device__ float collect(const float2* stats, int tiles, float* largest, double* mass, Shared& shared) {
    float top = -INFINITE;
    for (int i = threadIdx.x; i < tiles; i += THREADS) {
        const float2 s = __ldcg(stats + i);
        largest[i] = s.x;
        mass[i] = s.y;
        top = fmaxf(top, s.x);
    }
    return block_reduce<Largest>(top, -INFINITE, shared.scratch);
}

// mass: from weights that count from the tile's largest logit to such that count from the line's.
__device__ void rescale(const float* largest, double* mass, int tiles, float top, float rate) {
    for (int i = threadIdx.x; i < tiles; i += THREADS) mass[i] *= exp2_of((largest[i] - top) * rate);
    __syncthreads();
}

__device__ double sum_of(const double* mass, int tiles, Shared& shared) {
    double own = 0;
    for (int i = threadIdx.x; i < tiles; i += THREADS) own += mass[i];
    return block_reduce<Sum>(own, 0., shared.scratch);
}

__device__ __forceinline__ bool finite(float x) { return x > -INFINITE && x < INFINITE; }

}  // namespace

// Grid: (blocks a line, lines); dynamic shared memory: 16 bytes a tile.
// kind          of logits: 0 bf16, 1 f16, 2 float32
// temperature   null: all lines are greedy, and the other parameters are not read
// stats         work space, float2 [lines, tiles], of each tile the largest logit and the sum of weights
// arrived       int32 [lines], 0 before and after
// facts         null, or float4 [lines]: largest logit, least that stays, sum of weights (the largest has 1), unused
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    sample(const void* logits, i64 stride, int kind, int vocab, int tiles, const float* temperature, const i64* top_k,
           const float* top_p, const float* min_p, const double* noise, float2* stats, int* arrived, i64* tokens,
           float4* facts) {
    extern __shared__ double dynamic[];
    __shared__ Shared shared;
    double* mass = dynamic;
    float* largest = reinterpret_cast<float*>(mass + tiles);
    const int row = blockIdx.y, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const Line line(logits, stride, vocab, kind);
    wait_for_previous();
    let_next_start();

    const Asked asked(temperature, top_k, top_p, min_p, row, vocab);
    stats += i64(row) * tiles;
    if (!(asked.heat > 0)) {
        u64* found = reinterpret_cast<u64*>(stats);
        float4* mine = facts == nullptr ? nullptr : facts + row;
        take_largest(line, tiles, found, arrived + row, tokens + row, mine, reinterpret_cast<u64*>(shared.scratch));
        return;
    }
    for (int tile = blockIdx.x * WARPS + warp; tile < tiles; tile += gridDim.x * WARPS) {
        float v[EACH];
        line.read(tile, v);
        const float m = largest_of(v);
        float s = 0;
        if (m > -INFINITE) {
#pragma unroll
            for (int e = 0; e < EACH; ++e) s += exp2_of((v[e] - m) * asked.rate);
            s = warp_sum(s);
        }
        if (lane == 0) __stcg(stats + tile, make_float2(m, s));
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        shared.last = atomicAdd(arrived + row, 1) == gridDim.x - 1;
        if (shared.last) arrived[row] = 0;
    }
    __syncthreads();
    if (!shared.last) return;
    __threadfence();

    const float top = collect(stats, tiles, largest, mass, shared);
    int token = -1;
    double total = 0;
    if (finite(top)) {
        if (asked.cut()) return;
        rescale(largest, mass, tiles, top, asked.rate);
        double share;
        const int tile = draw_tile(mass, tiles, noise[row], share, shared);
        if (tile >= 0) token = draw_inside(line, tile, largest[tile], -INFINITE, asked.rate, share, shared);
        if (facts != nullptr) total = sum_of(mass, tiles, shared);
    }
    if (token < 0) token = first_of(line, largest, tiles, top, shared);
    if (threadIdx.x == 0) {
        tokens[row] = token;
        if (facts != nullptr) facts[row] = make_float4(top, -INFINITE, float(total), 0.f);
    }
}

// The lines that ``sample`` left. Grid: (1, lines); arguments as its own; 4 bytes more of shared memory.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    sample_truncated(const void* logits, i64 stride, int kind, int vocab, int tiles, const float* temperature,
                     const i64* top_k, const float* top_p, const float* min_p, const double* noise,
                     const float2* stats, i64* tokens, float4* facts) {
    extern __shared__ double dynamic[];
    __shared__ Shared shared;
    double* mass = dynamic;
    float* largest = reinterpret_cast<float*>(mass + tiles);
    float* sorted = largest + tiles + (tiles & 1);  // logits are read in pairs, of which the last shall be nobody's
    const int row = blockIdx.y;
    const Line line(logits, stride, vocab, kind);
    wait_for_previous();
    let_next_start();

    const Asked asked(temperature, top_k, top_p, min_p, row, vocab);
    if (!asked.cut()) return;
    const float top = collect(stats + i64(row) * tiles, tiles, largest, mass, shared);
    if (!finite(top)) return;
    rescale(largest, mass, tiles, top, asked.rate);
    Truncation kept({line, largest, tiles, top, asked.rate, shared}, mass, sorted, asked.heat);
    float least;
    double total;
    int token = kept.draw(asked.k, asked.p, asked.min_share, noise[row], least, total);
    if (token < 0) {
        double share;
        const int tile = draw_tile(mass, tiles, noise[row], share, shared);
        if (tile >= 0) token = draw_inside(line, tile, largest[tile], least, asked.rate, share, shared);
    }
    if (token < 0) token = first_of(line, largest, tiles, top, shared);
    if (threadIdx.x == 0) {
        tokens[row] = token;
        if (facts != nullptr) facts[row] = make_float4(top, least, float(total), 0.f);
    }
}

// What ``sample`` draws from. Grid: (any number of blocks, lines).
extern "C" __global__ void probabilities(const void* logits, i64 stride, int kind, int vocab,
                                         const float* temperature, const float4* facts, const i64* tokens,
                                         float* probs) {
    const int row = blockIdx.y;
    const Line line(logits, stride, vocab, kind);
    wait_for_previous();
    let_next_start();
    const float heat = temperature[row], rate = heat > 0 ? fminf(1.442695041f / heat, 3e38f) : 0.f;
    const float4 f = facts[row];
    const int token = int(tokens[row]);
    probs += i64(row) * vocab;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < vocab; i += gridDim.x * blockDim.x) {
        const float x = line[i];
        const float random = x >= f.y ? exp2_of((x - f.x) * rate) / f.z : 0.f;
        probs[i] = heat > 0 && f.z > 0 ? random : i == token ? 1.f : 0.f;
    }
}
