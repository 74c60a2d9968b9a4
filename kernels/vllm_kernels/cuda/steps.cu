// A step's inputs gathered from the rows, and the rows moved past it: vllm_core.ops.steps. Index arithmetic only;
// what counts is the number of dependent reads, since a step has at most some hundred sequences.
#include "common.cuh"

namespace {

constexpr int STAGED = 1025;  // starts kept in shared memory: a search among them costs 30 cycles a probe, not 300

// Last s in [0, count) with starts[s] <= token; starts[0] is 0.
__device__ __forceinline__ int sequence_of(const i64* starts, int count, int token) {
    int low = 0, high = count;
    while (high - low > 1) {
        const int middle = (low + high) >> 1;
        if (starts[middle] <= token) low = middle;
        else high = middle;
    }
    return low;
}

__device__ __forceinline__ u64 mix(u64 z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

// vllm_core.ops.noise.uniform
__device__ __forceinline__ double uniform(u64 seed, u64 position, u64 stream) {
    constexpr u64 golden = 0x9E3779B97F4A7C15ull;
    const u64 mixed = mix(mix(seed + golden) + (position * 4 + stream) * golden);
    return double(mixed >> 16) * 0x1p-48;
}

}  // namespace

// Grid: enough blocks for max(T, S) threads.
extern "C" __global__ void step_inputs(const int* token_ids, const int* num_computed, const i64* rows,
                                       const i64* starts, i64* ids, i64* positions, i64* sequence, int* kv_lens,
                                       int num_tokens, int sequences, int room) {
    __shared__ i64 staged[STAGED];
    wait_for_previous();
    let_next_start();
    if (sequences < STAGED) {
        for (int i = threadIdx.x; i <= sequences; i += blockDim.x) staged[i] = starts[i];
        __syncthreads();
        starts = staged;
    }
    const int t = blockIdx.x * blockDim.x + threadIdx.x;
    if (t < sequences) {
        const i64 count = starts[t + 1] - starts[t];
        kv_lens[t] = count > 0 ? int(num_computed[rows[t]] + count) : 0;
    }
    if (t < num_tokens) {
        const int s = sequence_of(starts, sequences, t);
        const i64 row = rows[s];
        const i64 position = num_computed[row] + (t - starts[s]);
        const int id = token_ids[row * room + min(position, i64(room - 1))];
        ids[t] = max(id, 0);
        positions[t] = position;
        sequence[t] = s;
    }
}

// Grid: the first ``token_blocks`` blocks do slots, then ``row_blocks`` blocks copy each sequence's pages.
extern "C" __global__ void page_slots(const int* table, const i64* rows, const i64* sequence, const i64* positions,
                                      int* block_table, i64* slots, int num_tokens, int columns, int width,
                                      int block_size, int token_blocks, int row_blocks) {
    wait_for_previous();
    let_next_start();
    const int b = blockIdx.x;
    if (b < token_blocks) {
        const int t = b * blockDim.x + threadIdx.x;
        if (t >= num_tokens) return;
        const i64 position = positions[t], block = position / block_size;
        const int page = table[rows[sequence[t]] * columns + min(block, i64(columns - 1))];
        slots[t] = i64(page) * block_size + (position - block * block_size);
        return;
    }
    const int s = (b - token_blocks) / row_blocks;
    const int column = ((b - token_blocks) - s * row_blocks) * blockDim.x + threadIdx.x;
    if (column < width) block_table[i64(s) * width + column] = table[rows[s] * columns + column];
}

extern "C" __global__ void sampling_rows(const float* temperature, const i64* top_k, const float* top_p,
                                         const float* min_p, const i64* seed, const i64* rows, const i64* ends,
                                         float* out_temperature, i64* out_top_k, float* out_top_p, float* out_min_p,
                                         double* noise, int lines, int stream) {
    wait_for_previous();
    let_next_start();
    const int m = blockIdx.x * blockDim.x + threadIdx.x;
    if (m >= lines) return;
    const i64 row = rows[m];
    out_temperature[m] = temperature[row];
    out_top_k[m] = top_k[row];
    out_top_p[m] = top_p[row];
    out_min_p[m] = min_p[row];
    noise[m] = uniform(seed[row], ends[m], stream);
}

// One block. ``emits``: null, or of ``emits_bytes`` (1 or 8) bytes a line.
extern "C" __global__ void commit_tokens(int* token_ids, int* num_tokens, int* num_computed, const i64* rows,
                                         const i64* advance, const i64* sampling, const i64* emitted,
                                         const i64* accepted, int* result, const void* emits, int emits_bytes,
                                         int sequences, int lines, int width, int room, int result_width) {
    wait_for_previous();
    let_next_start();
    for (int i = threadIdx.x; i < sequences * result_width; i += blockDim.x) result[i] = -1;
    for (int s = threadIdx.x; s < sequences; s += blockDim.x) {
        // Padding sequences share a row and add 0 to it; adding is atomic all the same, for rows that emit as well.
        if (const int more = int(advance[s])) atomicAdd(num_computed + rows[s], more);
    }
    __syncthreads();
    for (int n = threadIdx.x; n < lines; n += blockDim.x) {
        bool real = true;
        if (emits != nullptr) {
            real = emits_bytes == 1 ? static_cast<const u8*>(emits)[n] != 0 : static_cast<const i64*>(emits)[n] != 0;
        }
        if (!real) continue;
        const i64 s = sampling[n], row = rows[s];
        const int known = num_tokens[row], more = int(accepted[n]);
        for (int j = 0; j < width; ++j) {
            const int id = int(emitted[i64(n) * width + j]);
            token_ids[row * room + min(known + j, room - 1)] = id;
            result[s * result_width + j] = id;
        }
        num_tokens[row] = known + more + 1;
        if (more) atomicAdd(num_computed + row, more);
    }
}
