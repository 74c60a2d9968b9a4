// A token by noise, from the weights of a line's tiles and then of the tokens of one tile.
#pragma once
#include "candidates.cuh"

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

__device__ int draw_inside(const Line& line, int tile, float base, float least, float rate, double share,
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
__device__ int first_of(const Line& line, const float* largest, int tiles, float top, Shared& shared) {
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
