// What is done to logits besides drawing: vllm_core.ops.logits.penalize and apply_token_bitmask, and
// vllm_core.ops.edits.edit_logits, in two kernels: what a row restricts its tokens to, then what concerns few tokens.
#include "common.cuh"

namespace {

constexpr int PART = 16384;  // tokens of the vocabulary a block
constexpr int THREADS = 512, EACH = PART / THREADS, AHEAD = 8;
constexpr u32 THERE = 0x80000000u;
#define GONE __int_as_float(0xff800000)

enum Kind { BF16, F16, F32 };  // of logits; known at run time, so that one compilation serves all

template <typename T> __device__ __forceinline__ bool is_left(T x) { return !(to_float(x) == GONE); }  // NaN is, too

// Every block finds out by itself whether any token is left, and its own part is as likely a place as another's. Others
// may write meanwhile, but never to a token that is kept, and no other is looked at.
template <typename T> __device__ void restrict_line(T* line, const u8* keep, int vocab) {
    u32 mine = 0;  // bit e: the thread's token e of the block's own part is kept
    bool any = false;
    for (int p = 0; p < int(gridDim.x) && !any; ++p) {
        const int first = int((blockIdx.x + p) % gridDim.x) * PART + threadIdx.x;
        u32 kept = 0;
#pragma unroll AHEAD
        for (int e = 0; e < EACH; ++e) {
            const int i = first + e * THREADS;
            kept |= u32(i < vocab && keep[i]) << e;
        }
        if (p == 0) mine = kept;
        bool left = false;
        for (u32 rest = kept; rest && !left; rest &= rest - 1) left = is_left(line[first + (__ffs(rest) - 1) * THREADS]);
        any = __syncthreads_or(left);
    }
    if (!any) return;
#pragma unroll AHEAD
    for (int e = 0; e < EACH; ++e) {
        const int i = int(blockIdx.x) * PART + threadIdx.x + e * THREADS;
        if (i < vocab && !(mine >> e & 1u)) line[i] = from_float<T>(GONE);
    }
}

// Tokens of one line that are to go, a bit each in shared memory.
struct Marks {
    u32* bits;
    int size;  // words of 32

    __device__ __forceinline__ Marks(u32* bits, int vocab) : bits(bits), size((vocab + 31) / 32) {
        for (int i = threadIdx.x; i < size; i += THREADS) bits[i] = 0;
        __syncthreads();
    }
    __device__ __forceinline__ bool has(int token) const { return bits[token >> 5] >> (token & 31) & 1u; }
    __device__ __forceinline__ bool set(i64 token, int vocab) {
        if (token < 0 || token >= vocab) return false;
        atomicOr(bits + (token >> 5), 1u << (token & 31));
        return true;
    }

    // Take them away, unless none would be left; and forget them. ``some``: this thread has marked one.
    template <typename T> __device__ __forceinline__ void take(T* line, int vocab, bool some) {
        if (!__syncthreads_or(some)) return;
        bool any = false;
        for (int first = threadIdx.x, done = 0; done < vocab && !any; first += THREADS * AHEAD, done += THREADS * AHEAD) {
            bool left = false;
#pragma unroll
            for (int e = 0; e < AHEAD; ++e) {
                const int i = first + e * THREADS;
                if (i < vocab) left |= is_left(line[i]) && !has(i);
            }
            any = __syncthreads_or(left);
        }
        for (int i = threadIdx.x; i < size; i += THREADS) {
            for (u32 rest = any ? bits[i] : 0; rest; rest &= rest - 1) line[i * 32 + __ffs(rest) - 1] = from_float<T>(GONE);
            bits[i] = 0;
        }
        __syncthreads();
    }
};

// One row's part of the tables; a width of 0: none.
struct Asked {
    const i64 *words, *stops, *bias_ids;
    const double* bias;
    int words_width, length, stops_width, bias_width;
    bool early;
};

template <typename T>
__device__ void edit_line(T* line, u32* bits, const Asked& asked, const int* tokens, i64 end, i64 outputs, int vocab) {
    if (asked.words_width >= asked.length || asked.early) {
        Marks marks(bits, vocab);
        bool some = false;
        const int before = asked.length - 1;
        for (int w = threadIdx.x; w < asked.words_width / asked.length; w += THREADS) {
            const i64* word = asked.words + i64(w) * asked.length;
            bool complete = true;
            for (int j = 0; j < before && complete; ++j) {
                const i64 at = end - before + j;
                complete = word[j] == -1 || (at >= outputs && tokens[at] == word[j]);
            }
            if (complete) some |= marks.set(word[before], vocab);
        }
        marks.take(line, vocab, some);
        some = false;
        if (asked.early)
            for (int i = threadIdx.x; i < asked.stops_width; i += THREADS) some |= marks.set(asked.stops[i], vocab);
        marks.take(line, vocab, some);
    }
    for (int i = threadIdx.x; i < asked.bias_width; i += THREADS) {
        const i64 id = asked.bias_ids[i];
        if (id >= 0 && id < vocab) line[id] = from_float<T>(to_float(line[id]) + float(asked.bias[i]));
    }
}

}  // namespace

// Grid: (parts of the vocabulary, lines). logits [M, vocab] of a kind; keep [R, vocab] of bools.
extern "C" __global__ void __launch_bounds__(512)
    restrict_lines(void* logits, int kind, const i64* lines, const i64* rows, const u8* restricts, const u8* keep,
                   int vocab) {
    wait_for_previous();
    let_next_start();
    const i64 row = rows[blockIdx.y], start = lines[blockIdx.y] * vocab;
    if (!restricts[row]) return;
    keep += row * vocab;
    if (kind == F32) restrict_line(static_cast<float*>(logits) + start, keep, vocab);
    else if (kind == BF16) restrict_line(static_cast<bf16*>(logits) + start, keep, vocab);
    else restrict_line(static_cast<f16*>(logits) + start, keep, vocab);
}

// Grid: (1, lines); dynamic shared memory: a bit a token of the vocabulary, in whole words. Widths of tables are of a
// row; ``length``: tokens of a word; ``stride``: of rows of tokens.
extern "C" __global__ void __launch_bounds__(512)
    edit_lines(void* logits, int kind, const i64* lines, const i64* rows, const i64* ends, const int* tokens,
               i64 stride, const i64* prompt_len, const i64* words, int words_width, int length, const i64* min_end,
               const i64* stops, int stops_width, const i64* bias_ids, const double* bias, int bias_width, int vocab) {
    extern __shared__ u32 bits[];
    wait_for_previous();
    let_next_start();
    const i64 row = rows[blockIdx.y], start = lines[blockIdx.y] * vocab, end = ends[blockIdx.y];
    const bool early = stops_width > 0 && end < min_end[row];
    const Asked asked = {words + row * words_width, stops + row * stops_width, bias_ids + row * bias_width,
                         bias + row * bias_width, words_width, length, stops_width, bias_width, early};
    const i64 outputs = prompt_len[row];
    tokens += row * stride;
    if (kind == F32) edit_line(static_cast<float*>(logits) + start, bits, asked, tokens, end, outputs, vocab);
    else if (kind == BF16) edit_line(static_cast<bf16*>(logits) + start, bits, asked, tokens, end, outputs, vocab);
    else edit_line(static_cast<f16*>(logits) + start, bits, asked, tokens, end, outputs, vocab);
}

// A grammar's mask: a bit a token, 0 where it must not come. Grid: (parts of the vocabulary, lines). Each lane of a warp
// reads one of the words for its 1,024 tokens; then there are stores only.
extern "C" __global__ void __launch_bounds__(512)
    apply_token_bitmask(float* logits, const i64* lines, const u32* masks, i64 stride, int vocab) {
    wait_for_previous();
    let_next_start();
    float* line = logits + lines[blockIdx.y] * vocab;
    masks += stride * blockIdx.y;
    const int lane = threadIdx.x & 31, first = int(blockIdx.x) * PART + (int(threadIdx.x) >> 5) * 1024;
    const u32 mine = first + lane * 32 < vocab ? masks[first / 32 + lane] : 0u;
#pragma unroll AHEAD
    for (int e = 0; e < EACH; ++e) {
        const u32 word = __shfl_sync(~0u, mine, e);
        const int i = first + e * 32 + lane;
        if (i < vocab && !(word >> lane & 1u)) line[i] = GONE;
    }
}

// Penalties for tokens that a sequence has already: a block counts the tokens of one part of the vocabulary in shared
// memory, so that no matrix of counts is needed, however long the sequence.
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
