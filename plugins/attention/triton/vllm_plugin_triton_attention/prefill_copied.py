"""`prefill` for pages that hold whole tiles of keys: the copy engine of sm_90 fetches them (TMA).

It computes addresses, so that a thread keeps half as many registers and two programs share a multiprocessor: one
multiplies while the other takes exponentials.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vllm_plugin_triton_attention.schedule import tile_of
from vllm_plugin_triton_attention.scores import LOG2E, add_tile, scores_of, with_sink


@triton.jit
def prefill_copied(
    q,  # [T, H, K_DIM]
    k_tiles,  # descriptor of pages [P, KV * PAGE, K_DIM] in tiles [1, KEYS, K_DIM]
    v_tiles,  # [P, KV * PAGE, V_DIM], [1, KEYS, V_DIM]
    out,  # [T, H, V_DIM]
    lse,  # float32 [T, H]
    table,  # int32 [S, blocks]
    work,  # int32 [1 + tiles, 8], of `schedule`
    sinks,  # [H], dtype of q
    scale,
    q_stride,  # elements between tokens
    table_stride,
    want_lse,  # 0 or 1
    HEADS: tl.constexpr,  # KV
    GROUP: tl.constexpr,  # query heads of a KV head
    QUERIES: tl.constexpr,  # of a tile: ROWS // GROUP
    ROWS: tl.constexpr,  # of a tile, a power of two
    KEYS: tl.constexpr,  # of a tile; PAGE is a multiple
    K_DIM: tl.constexpr,  # powers of two
    V_DIM: tl.constexpr,
    PAGE: tl.constexpr,  # tokens
    CAUSAL: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    SINKS: tl.constexpr,
):
    """Grid (tiles of queries x KV), which the host knows; the last ones first: with causality they take longest."""
    item = tl.num_programs(0) - 1 - tl.program_id(0)
    head, tile = item % HEADS, item // HEADS
    s, token, queries, length, before = tile_of(work, tile)
    row = tl.arange(0, ROWS)
    query_at = before + row // GROUP
    real = (query_at < queries) & (row // GROUP < QUERIES)
    q_rows = (token + query_at).to(tl.int64) * q_stride + (head * GROUP + row % GROUP) * K_DIM
    query = tl.load(q + q_rows[:, None] + tl.arange(0, K_DIM)[None, :], real[:, None], 0.0)
    nearest = length - queries + before  # the tile's first position, and one past its last
    behind = tl.minimum(nearest + QUERIES, length)
    pages = table + s.to(tl.int64) * table_stride
    first_row = head * PAGE
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, V_DIM], tl.float32)
    bound = tl.maximum(behind, 0) if CAUSAL else length
    full = tl.minimum(bound, length // KEYS * KEYS)  # tiles that begin before it are full of keys
    whole = tl.minimum(tl.maximum(nearest + 1, 0) // KEYS * KEYS, full) if CAUSAL else full  # and seen by all rows
    for base in range(0, whole, KEYS):
        page = tl.load(pages + base // PAGE)
        keys = k_tiles.load([page, first_row + base % PAGE, 0]).reshape(KEYS, K_DIM)
        scores = scores_of(query, keys, scale, SOFT_CAP)
        values = v_tiles.load([page, first_row + base % PAGE, 0]).reshape(KEYS, V_DIM)
        top, total, acc = add_tile(scores, values, top, total, acc, scale, SOFT_CAP, False)
    position = nearest + row // GROUP
    for base in range(whole, full, KEYS):
        page = tl.load(pages + base // PAGE)
        keys = k_tiles.load([page, first_row + base % PAGE, 0]).reshape(KEYS, K_DIM)
        scores = scores_of(query, keys, scale, SOFT_CAP)
        seen = (base + tl.arange(0, KEYS))[None, :] <= position[:, None]
        scores = tl.where(seen, scores, float("-inf"))
        values = v_tiles.load([page, first_row + base % PAGE, 0]).reshape(KEYS, V_DIM)
        top, total, acc = add_tile(scores, values, top, total, acc, scale, SOFT_CAP, True)
    base = length // KEYS * KEYS
    if base < bound:
        # What lies behind the last key may be a NaN, which a weight of 0 does not hide.
        key = base + tl.arange(0, KEYS)
        page = tl.load(pages + base // PAGE)
        keys = k_tiles.load([page, first_row + base % PAGE, 0]).reshape(KEYS, K_DIM)
        scores = scores_of(query, keys, scale, SOFT_CAP)
        seen = (key < length)[None, :]
        if CAUSAL:
            seen = seen & (key[None, :] <= position[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        values = v_tiles.load([page, first_row + base % PAGE, 0]).reshape(KEYS, V_DIM)
        values = tl.where((key < length)[:, None], values, 0.0)
        top, total, acc = add_tile(scores, values, top, total, acc, scale, SOFT_CAP, True)
    q_head = head * GROUP + row % GROUP
    if SINKS:
        sink = tl.load(sinks + q_head).to(tl.float32) * LOG2E
        top, total, acc = with_sink(sink, top, total, acc)
    acc = acc / tl.where(total > 0, total, 1)[:, None]
    o_rows = (token + before + row // GROUP).to(tl.int64) * (HEADS * GROUP) + q_head
    o_at = o_rows[:, None] * V_DIM + tl.arange(0, V_DIM)[None, :]
    tl.store(out + o_at, acc.to(out.dtype.element_ty), real[:, None])
    tl.store(lse + o_rows, (top + tl.log2(total)) / LOG2E, real & (want_lse > 0))
