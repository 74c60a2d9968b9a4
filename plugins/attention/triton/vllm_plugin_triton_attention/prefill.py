"""Attention of sequences with many queries: tiles of queries of all heads of a KV head, against tiles of keys.

The online softmax over tiles is FlashAttention's (Dao et al., arXiv 2205.14135 and 2307.08691).
"""

from __future__ import annotations

import triton
import triton.language as tl

from vllm_plugin_triton_attention.schedule import first_key, tile_of
from vllm_plugin_triton_attention.scores import LOG2E, add_tile, places, rows_of, scores_of, visible, with_sink


@triton.jit
def prefill(
    q,  # [T, H, K_DIM]
    k,  # pages
    v,  # pages
    out,  # [T, H, V_DIM]
    lse,  # float32 [T, H]
    table,  # int32 [S, blocks]
    work,  # int32 [1 + tiles, 8], of `schedule`
    sinks,  # [H], dtype of q
    scale,
    q_stride,  # elements between tokens
    table_stride,
    page_stride,  # elements
    want_lse,  # 0 or 1
    HEADS: tl.constexpr,  # KV
    GROUP: tl.constexpr,  # query heads of a KV head
    QUERIES: tl.constexpr,  # of a tile: ROWS // GROUP
    ROWS: tl.constexpr,  # of a tile, a power of two
    KEYS: tl.constexpr,  # of a tile
    K_DIM: tl.constexpr,
    V_DIM: tl.constexpr,
    K_PAD: tl.constexpr,  # powers of two
    V_PAD: tl.constexpr,
    PAGE: tl.constexpr,  # tokens
    K_TOKEN: tl.constexpr,  # elements between tokens and heads of a page
    K_HEAD: tl.constexpr,
    V_TOKEN: tl.constexpr,
    V_HEAD: tl.constexpr,
    CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    SINKS: tl.constexpr,
    TURNS: tl.constexpr,  # False: there is a program for each tile
):
    """Grid (programs): tiles of queries of all KV heads are dealt out, forth and back, the last ones first.

    With causality these take longest. In a captured step nobody knows how many there are: then the programs are as
    many as run at a time.
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    row = tl.arange(0, ROWS)
    k_at, v_at = tl.arange(0, K_PAD), tl.arange(0, V_PAD)
    items = tl.load(work) * HEADS
    turns = (items + programs - 1) // programs if TURNS else 1
    for turn in range(turns):
        item = turn * programs + (program if turn % 2 == 0 else programs - 1 - program)
        if item < items:
            head, tile = item % HEADS, (items - 1 - item) // HEADS
            s, token, queries, length, before = tile_of(work, tile)
            query_at = before + row // GROUP
            real = (query_at < queries) & (row // GROUP < QUERIES)
            q_head = head * GROUP + row % GROUP
            position = length - queries + query_at
            nearest = length - queries + before  # the tile's first position, and its last
            farthest = tl.minimum(nearest + QUERIES, length) - 1
            q_rows = (token + query_at).to(tl.int64) * q_stride + q_head * K_DIM
            query = tl.load(q + q_rows[:, None] + k_at[None, :], real[:, None] & (k_at < K_DIM)[None, :], 0.0)
            top = tl.full([ROWS], float("-inf"), tl.float32)
            total = tl.zeros([ROWS], tl.float32)
            acc = tl.zeros([ROWS, V_PAD], tl.float32)
            first = first_key(nearest, WINDOW)
            pages = table + s.to(tl.int64) * table_stride
            if CAUSAL:
                bound = tl.minimum(farthest + 1, length)
                # All rows see the keys before it.
                whole = tl.maximum(tl.minimum(nearest + 1, length), 0) // KEYS * KEYS
            else:
                bound = length
                whole = length // KEYS * KEYS
            if WINDOW > 0:
                whole = first // KEYS * KEYS
            for base in range(0, whole if WINDOW == 0 else 0, KEYS):
                key = base + tl.arange(0, KEYS)
                k_rows = places(key, pages, key, page_stride, head, PAGE, K_TOKEN, K_HEAD, False)
                keys = rows_of(k, k_rows, key, k_at, K_DIM, False)
                v_rows = places(key, pages, key, page_stride, head, PAGE, V_TOKEN, V_HEAD, False)
                values = rows_of(v, v_rows, key, v_at, V_DIM, False)
                scores = scores_of(query, keys.to(query.dtype), scale, SOFT_CAP)
                top, total, acc = add_tile(scores, values.to(query.dtype), top, total, acc, scale, SOFT_CAP, False)
            for base in range(whole, bound, KEYS):
                key = base + tl.arange(0, KEYS)
                known = (key < length) & (key >= first)
                k_rows = places(key, pages, known, page_stride, head, PAGE, K_TOKEN, K_HEAD, True)
                keys = rows_of(k, k_rows, known, k_at, K_DIM, True)
                scores = scores_of(query, keys.to(query.dtype), scale, SOFT_CAP)
                scores = tl.where(visible(key, position, length, CAUSAL, WINDOW), scores, float("-inf"))
                v_rows = places(key, pages, known, page_stride, head, PAGE, V_TOKEN, V_HEAD, True)
                values = rows_of(v, v_rows, known, v_at, V_DIM, True)
                top, total, acc = add_tile(scores, values.to(query.dtype), top, total, acc, scale, SOFT_CAP, True)
            if SINKS:
                sink = tl.load(sinks + q_head).to(tl.float32) * LOG2E
                top, total, acc = with_sink(sink, top, total, acc)
            acc = acc / tl.where(total > 0, total, 1)[:, None]
            o_rows = (token + query_at).to(tl.int64) * HEADS * GROUP + q_head
            o_at, o_known = o_rows[:, None] * V_DIM + v_at[None, :], real[:, None] & (v_at < V_DIM)[None, :]
            tl.store(out + o_at, acc.to(out.dtype.element_ty), o_known)
            tl.store(lse + o_rows, (top + tl.log2(total)) / LOG2E, real & (want_lse > 0))
