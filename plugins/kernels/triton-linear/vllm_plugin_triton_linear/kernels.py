"""x W^T + b whose every number is summed in an order that the weight's shape fixes, whatever the number of rows.

K is cut into segments. A segment's sum is a chain of tile products (``_segment``); the segments' sums are added in
order, from zero. Many rows: one program does all segments of its tile (``whole_kernel``). Few rows: a program for each
segment, so that a whole GPU reads the weight (``part_kernel``), then ``add_kernel`` adds. Tile sizes, number of warps
and arithmetic are the same, so the results are the same bit for bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

GROUP = 8  # rows of tiles that are computed side by side: they read the same part of the weight out of the cache


@triton.jit
def _segment(
    x, w, rows, columns, T, N, K, begin,
    M: tl.constexpr, C: tl.constexpr, B: tl.constexpr, STEPS: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """float32 [M, C]: products of rows of x and of the weight over STEPS tiles of K from ``begin`` on."""
    inner = tl.arange(0, B)
    there = (rows < T)[:, None]  # rows that are not there cost no traffic
    x_row = rows.to(tl.int64) * K
    w_row = tl.where(columns < N, columns, 0).to(tl.int64) * K
    total = tl.zeros((M, C), dtype=tl.float32)
    for i in range(STEPS):
        k = begin + i * B + inner
        if EVEN:
            a = tl.load(x + x_row[:, None] + k[None, :], mask=there, other=0.0)
            b = tl.load(w + w_row[None, :] + k[:, None])
        else:
            a = tl.load(x + x_row[:, None] + k[None, :], mask=there & (k < K)[None, :], other=0.0)
            b = tl.load(w + w_row[None, :] + k[:, None], mask=(k < K)[:, None], other=0.0)
        total = tl.dot(a, b, total, input_precision="ieee")
    return total


@triton.jit(do_not_specialize=["T"])
def whole_kernel(
    x, w, bias, out, T, N, K,
    M: tl.constexpr, C: tl.constexpr, B: tl.constexpr, STEPS: tl.constexpr, EVEN: tl.constexpr,
    SEGMENTS: tl.constexpr, BIAS: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """out [T, N]. A program is a tile of M rows and C columns."""
    tiles_m, tiles_n = tl.cdiv(T, M), tl.cdiv(N, C)
    at = tl.program_id(0)
    first = at // (GROUP * tiles_n) * GROUP
    high = min(tiles_m - first, GROUP)
    m, n = first + at % (GROUP * tiles_n) % high, at % (GROUP * tiles_n) // high
    rows, columns = m * M + tl.arange(0, M), n * C + tl.arange(0, C)
    total = tl.zeros((M, C), dtype=tl.float32)
    for s in range(SEGMENTS):
        total += _segment(x, w, rows, columns, T, N, K, s * STEPS * B, M, C, B, STEPS, EVEN)
    if BIAS:
        total += tl.load(bias + columns, mask=columns < N, other=0.0).to(tl.float32)[None, :]
    place = rows.to(tl.int64)[:, None] * N + columns[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), mask=(rows < T)[:, None] & (columns < N)[None, :])


@triton.jit(do_not_specialize=["T"])
def part_kernel(
    x, w, parts, T, N, K,
    M: tl.constexpr, C: tl.constexpr, B: tl.constexpr, STEPS: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """parts float32 [SEGMENTS, T, N]. A program is a tile and a segment."""
    n, s, m = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    rows, columns = m * M + tl.arange(0, M), n * C + tl.arange(0, C)
    total = _segment(x, w, rows, columns, T, N, K, s * STEPS * B, M, C, B, STEPS, EVEN)
    place = (s.to(tl.int64) * T + rows)[:, None] * N + columns[None, :]
    tl.store(parts + place, total, mask=(rows < T)[:, None] & (columns < N)[None, :])


@triton.jit(do_not_specialize=["T"])
def add_kernel(parts, bias, out, T, N, SEGMENTS: tl.constexpr, BIAS: tl.constexpr, C: tl.constexpr):
    """out [T, N] = the sum of parts [SEGMENTS, T, N], in order. A program is C columns of a row."""
    row, columns = tl.program_id(1).to(tl.int64), tl.program_id(0) * C + tl.arange(0, C)
    there = columns < N
    total = tl.zeros((C,), dtype=tl.float32)
    for s in range(SEGMENTS):
        total += tl.load(parts + (s * T + row) * N + columns, mask=there, other=0.0)
    if BIAS:
        total += tl.load(bias + columns, mask=there, other=0.0).to(tl.float32)
    tl.store(out + row * N + columns, total.to(out.dtype.element_ty), mask=there)
