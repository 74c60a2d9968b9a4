// Whole rows by number, as bytes: lookups of embeddings, copies of pages.
//
// UNIT   what a row is a multiple of: uint4, u32, u16 or u8
#include "common.cuh"

// ids: i64, or int where not ``wide``.
__device__ __forceinline__ i64 number(const void* ids, int wide) {
    return wide ? static_cast<const i64*>(ids)[blockIdx.x] : static_cast<const int*>(ids)[blockIdx.x];
}

// blockIdx.y and threads share the ``units`` of a row.
__device__ __forceinline__ void copy_row(const UNIT* __restrict__ from, UNIT* __restrict__ to, i64 units) {
    for (i64 i = i64(blockIdx.y) * blockDim.x + threadIdx.x; i < units; i += i64(gridDim.y) * blockDim.x) to[i] = from[i];
}

// to[i] = from[ids[i]]; blockIdx.x: i.
extern "C" __global__ void __launch_bounds__(256) gather_rows(
    const UNIT* from, UNIT* to, const void* ids, int wide, i64 units) {
    let_next_start();
    wait_for_previous();
    copy_row(from + number(ids, wide) * units, to + i64(blockIdx.x) * units, units);
}

// to[ids[i]] = from[i].
extern "C" __global__ void __launch_bounds__(256) scatter_rows(
    const UNIT* from, UNIT* to, const void* ids, int wide, i64 units) {
    let_next_start();
    wait_for_previous();
    copy_row(from + i64(blockIdx.x) * units, to + number(ids, wide) * units, units);
}
