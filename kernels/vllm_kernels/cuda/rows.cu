// Whole rows by number, as bytes: lookups of embeddings, copies of pages.
//
// UNIT   what a row is a multiple of: uint4, u32, u16 or u8
// ID     i64 or int
#include "common.cuh"

// to[i] = from[ids[i]]; scatter_rows: to[ids[i]] = from[i]; ``units`` a row; blockIdx.x: i.
extern "C" __global__ void __launch_bounds__(256) gather_rows(
    const UNIT* __restrict__ from, UNIT* __restrict__ to, const ID* __restrict__ ids, i64 units) {
    let_next_start();
    wait_for_previous();
    from += i64(ids[blockIdx.x]) * units;
    to += i64(blockIdx.x) * units;
    for (i64 i = i64(blockIdx.y) * blockDim.x + threadIdx.x; i < units; i += i64(gridDim.y) * blockDim.x) to[i] = from[i];
}

extern "C" __global__ void __launch_bounds__(256) scatter_rows(
    const UNIT* __restrict__ from, UNIT* __restrict__ to, const ID* __restrict__ ids, i64 units) {
    let_next_start();
    wait_for_previous();
    from += i64(blockIdx.x) * units;
    to += i64(ids[blockIdx.x]) * units;
    for (i64 i = i64(blockIdx.y) * blockDim.x + threadIdx.x; i < units; i += i64(gridDim.y) * blockDim.x) to[i] = from[i];
}
