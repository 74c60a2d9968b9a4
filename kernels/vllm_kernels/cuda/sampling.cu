// A token a line of logits, in one launch: every block reads some tiles of a line, and the one that comes last draws.
// The tiles' largest logits and sums of weights are all that a greedy or plainly random line needs: the token lies in
// one tile, which is read again. Lines with min-p, top-k or top-p first find the least logit that stays (truncate.cuh).
// Compiled with LOGIT: their type.
#include "truncate.cuh"

namespace {

// mass[i]: of tile i. The tile where the running sum passes ``noise`` of the total, and how far inside it: 0 to 1.
__device__ int draw_tile(const double* mass, int tiles, double noise, double& share, Shared& shared) {
    const int chunk = (tiles + THREADS - 1) / THREADS, first = threadIdx.x * chunk, end = min(first + chunk, tiles);
    double own = 0, total;
    for (int i = first; i < end; ++i) own += mass[i];
    const double sum = block_scan(own, total, shared.scratch);
    const double target = noise * total;
    const int thread = first_beyond(own, sum, target, shared.scratch);
    if (thread < 0) return -1;
    if (threadIdx.x == thread) {
        double before = sum - own;
        int last = first;
        for (int i = first; i < end; ++i) {
            if (!(mass[i] > 0)) continue;
            last = i;
            if (before + mass[i] > target) break;
            if (i + 1 < end) before += mass[i];
        }
        shared.tile = last;
        // Less than 1, so that no rounding points past the tile's last token of any weight.
        shared.share = fmin(fmax((target - before) / mass[last], 0.), 1 - 0x1p-48);
    }
    __syncthreads();
    share = shared.share;
    return shared.tile;
}

template <typename T>
__device__ int draw_inside(const Line<T>& line, int tile, float base, float least, float rate, double share,
                           Shared& shared) {
    const int id = tile * TILE + 2 * threadIdx.x;
    const float a = line[id], b = line[id + 1];
    const double left = a >= least ? exp2_of((a - base) * rate) : 0;
    const double right = b >= least ? exp2_of((b - base) * rate) : 0;
    double total;
    const double own = left + right, sum = block_scan(own, total, shared.scratch), target = share * total;
    const int thread = first_beyond(own, sum, target, shared.scratch);
    if (threadIdx.x == thread) shared.tile = left > 0 && (!(right > 0) || sum - right > target) ? id : id + 1;
    __syncthreads();
    return thread < 0 ? -1 : shared.tile;
}

// The first token of logit ``top``.
template <typename T>
__device__ int first_of(const Line<T>& line, const float* largest, int tiles, float top, Shared& shared) {
    int tile = NONE;
    for (int i = threadIdx.x; i < tiles; i += THREADS) {
        if (largest[i] == top) {
            tile = i;
            break;
        }
    }
    tile = block_reduce<Least>(tile, NONE, shared.scratch);
    if (tile == NONE) return 0;  // nothing but NaN
    const int id = tile * TILE + 2 * threadIdx.x;
    const int found = line[id] == top ? id : line[id + 1] == top ? id + 1 : NONE;
    return block_reduce<Least>(found, NONE, shared.scratch);
}

}  // namespace

// Grid: (blocks a line, lines). Dynamic shared memory: 16 bytes a tile.
// temperature   null: all lines are greedy, and the other parameters are not read
// stats         work space, float2 [lines, tiles]
// arrived       int32 [lines], 0 before and after
// facts         null, or float4 [lines]: largest logit, least that stays, sum of weights (the largest has 1), unused
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    sample(const LOGIT* logits, i64 stride, int vocab, int tiles, const float* temperature, const i64* top_k,
           const float* top_p, const float* min_p, const double* noise, float2* stats, int* arrived, i64* tokens,
           float4* facts) {
    extern __shared__ double dynamic[];
    __shared__ Shared shared;
    double* mass = dynamic;
    float *largest = reinterpret_cast<float*>(mass + tiles), *sorted = largest + tiles;
    const int row = blockIdx.y, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const Line<LOGIT> line(logits, stride, vocab);
    wait_for_previous();
    let_next_start();

    const float heat = temperature == nullptr ? 0.f : temperature[row];
    // Of base 2, and finite, so that 0 times it is 0.
    const float rate = heat > 0 ? fminf(1.442695041f / heat, 3e38f) : 0.f;
    stats += i64(row) * tiles;
    for (int tile = blockIdx.x * WARPS + warp; tile < tiles; tile += gridDim.x * WARPS) {
        float v[EACH];
        line.read(tile, v);
        const float m = largest_of(v);
        float s = 0;
        if (heat > 0 && m > -INFINITE) {
#pragma unroll
            for (int e = 0; e < EACH; ++e) s += exp2_of((v[e] - m) * rate);
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

    float top = -INFINITE;
    for (int i = threadIdx.x; i < tiles; i += THREADS) {
        const float2 s = __ldcg(stats + i);
        largest[i] = s.x;
        mass[i] = s.y;
        top = fmaxf(top, s.x);
    }
    top = block_reduce<Largest>(top, -INFINITE, shared.scratch);
    float least = -INFINITE;
    double total = 0;
    int token = -1;
    if (heat > 0 && top > -INFINITE && top < INFINITE) {
        for (int i = threadIdx.x; i < tiles; i += THREADS) mass[i] *= exp2_of((largest[i] - top) * rate);
        __syncthreads();
        const i64 asked = top_k[row];
        const int k = asked > 0 && asked < vocab ? int(asked) : 0;
        const float p = top_p[row], min_share = min_p[row];
        if (k || p < 1 || min_share > 0) {
            Truncation<LOGIT> kept{line, mass, largest, sorted, tiles, top, heat, rate, shared};
            token = kept.draw(k, p, min_share, noise[row], least, total);
        }
        if (token < 0) {
            double share;
            const int tile = draw_tile(mass, tiles, noise[row], share, shared);
            if (tile >= 0) token = draw_inside(line, tile, largest[tile], least, rate, share, shared);
        }
    }
    if (token < 0) token = first_of(line, largest, tiles, top, shared);
    if (facts != nullptr && total == 0) {
        double own = 0;
        for (int i = threadIdx.x; i < tiles; i += THREADS) own += mass[i];
        total = block_reduce<Sum>(own, 0., shared.scratch);
    }
    if (threadIdx.x == 0) {
        tokens[row] = token;
        if (facts != nullptr) facts[row] = make_float4(top, least, float(total), 0.f);
    }
}

// What ``sample`` draws from. Grid: (any number of blocks, lines).
extern "C" __global__ void probabilities(const LOGIT* logits, i64 stride, int vocab, const float* temperature,
                                         const float4* facts, const i64* tokens, float* probs) {
    const int row = blockIdx.y;
    const Line<LOGIT> line(logits, stride, vocab);
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
