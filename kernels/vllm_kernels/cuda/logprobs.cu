// Log-probability and rank of one token a line: vllm_core.ops.logits.token_logprobs. One pass over the logits by all
// blocks of a line; the last one joins what they found, tile by tile.
#include "lines.cuh"

// Grid: (blocks a line, lines). kind: of logits, 0 bf16, 1 f16, 2 float32.
// stats     work space, float4 [lines, tiles]: largest logit, sum of exp(logit - largest), number of larger logits
// arrived   int32 [lines], 0 before and after
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    token_logprobs(const void* logits, i64 stride, int kind, int vocab, int tiles, const i64* tokens, float4* stats,
                   int* arrived, float* logprobs, int* ranks, float* sums) {
    __shared__ double scratch[WARPS];
    __shared__ bool last;
    const int row = blockIdx.y, lane = threadIdx.x & 31;
    const Line line(logits, stride, vocab, kind);
    wait_for_previous();
    let_next_start();
    const float own = line[int(max(tokens[row], i64(0)))];
    stats += i64(row) * tiles;
    for (int tile = blockIdx.x * WARPS + (threadIdx.x >> 5); tile < tiles; tile += gridDim.x * WARPS) {
        float v[EACH], s = 0;
        line.read(tile, v);
        const float m = largest_of(v);
        int larger = 0;
        if (m > -INFINITE) {
#pragma unroll
            for (int e = 0; e < EACH; ++e) s += exp2_of((v[e] - m) * 1.442695041f), larger += v[e] > own;
        }
        s = warp_sum(s);
        larger = __reduce_add_sync(~0u, larger);
        if (lane == 0) __stcg(stats + tile, make_float4(m, s, __int_as_float(larger), 0.f));
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(arrived + row, 1) == gridDim.x - 1;
        if (last) arrived[row] = 0;
    }
    __syncthreads();
    if (!last) return;
    __threadfence();

    float top = -INFINITE;
    for (int i = threadIdx.x; i < tiles; i += THREADS) top = fmaxf(top, __ldcg(stats + i).x);
    top = block_reduce<Largest>(top, -INFINITE, scratch);
    double total = 0;
    int larger = 0;
    for (int i = threadIdx.x; i < tiles; i += THREADS) {
        const float4 s = __ldcg(stats + i);
        if (s.x > -INFINITE) total += double(s.y) * exp2_of((s.x - top) * 1.442695041f);
        larger += int(__float_as_uint(s.z));
    }
    total = block_reduce<Sum>(total, 0., scratch);
    larger = block_reduce<Sum>(larger, 0, scratch);
    if (threadIdx.x == 0) {
        const float sum = float(top + log(total));
        logprobs[row] = own - sum;
        ranks[row] = larger + 1;
        sums[row] = sum;
    }
}
