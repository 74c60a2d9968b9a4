// Penalties for tokens that a sequence has already: vllm_core.ops.logits.penalize. A block counts the tokens of one
// part of the vocabulary in shared memory, so that no matrix of counts is needed, however long the sequence.
#include "common.cuh"

namespace {

constexpr int PART = 16384;  // tokens of the vocabulary a block
constexpr u32 THERE = 0x80000000u;

}  // namespace

// Grid: (parts of the vocabulary, lines); dynamic shared memory: 4 bytes a token of a part.
extern "C" __global__ void __launch_bounds__(512)
    penalize(float* logits, const i64* lines, const i64* rows, const i64* ends, const int* tokens,
             const i64* prompt_len, const float* repetition, const float* presence, const float* frequency, int vocab,
             int length, i64 stride) {
    extern __shared__ u32 counts[];
    wait_for_previous();
    let_next_start();
    const int first = blockIdx.x * PART, size = min(PART, vocab - first);
    const i64 row = rows[blockIdx.y];
    const int end = int(min(ends[blockIdx.y], i64(length))), outputs = int(prompt_len[row]);
    for (int i = threadIdx.x; i < size; i += blockDim.x) counts[i] = 0;
    __syncthreads();
    const int* mine = tokens + row * stride;
    for (int c = threadIdx.x; c < end; c += blockDim.x) {
        const u32 id = u32(mine[c] - first);  // -1 and other parts' tokens are beyond ``size``
        if (id >= u32(size) || mine[c] < 0) continue;
        atomicOr(counts + id, THERE);
        if (c >= outputs) atomicAdd(counts + id, 1u);
    }
    __syncthreads();
    float* line = logits + lines[blockIdx.y] * vocab + first;
    const float factor = repetition[row], once = presence[row], each = frequency[row];
    for (int i = threadIdx.x; i < size; i += blockDim.x) {
        const u32 count = counts[i];
        if (!count) continue;
        const float old = line[i], n = float(count & ~THERE);
        float x = old > 0 ? __fdiv_rn(old, factor) : __fmul_rn(old, factor);
        x = __fsub_rn(x, __fmul_rn(each, n));
        line[i] = __fsub_rn(x, n > 0 ? once : 0.f);
    }
}
