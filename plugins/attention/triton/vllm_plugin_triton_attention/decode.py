"""Attention of sequences with few queries: what a step costs is reading keys and values once, evenly by all processors.

The tiles of all sequences' keys stand in one line, which is cut into equal shares, one a program ("stream-K",
Osama et al., arXiv 2301.03598; for attention, lean attention, arXiv 2405.10480). So one long sequence is read by the
whole device and many of different lengths keep it busy to the end, without the host knowing a length. A sequence that
a cut goes through leaves parts, which `combine` adds up.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from vllm_plugin_triton_attention.schedule import first_key, sequence_of
from vllm_plugin_triton_attention.scores import LOG2E, add_tile, places, rows_of, scores_of, visible, with_sink


@triton.jit
def share_of(total, programs):
    """Tiles that each program takes; fewer programs have work if there are too few."""
    return tl.maximum((total + programs - 1) // programs, 1)


@triton.jit
def decode(
    q,  # [T, H, K_DIM]
    k,  # pages
    v,  # pages
    out,  # [T, H, V_DIM]
    lse,  # float32 [T, H]
    parts,  # float32 [programs, 2, KV, ROWS, V_DIM]: a program's first sequence, if others began it, and its last
    sums,  # float32 [programs, 2, KV, ROWS]: log2 of the sum of 2**score
    table,  # int32 [S, blocks]
    starts,  # int32 [S + 1]
    lens,  # int32 [S]
    tiles,  # int32 [S + 1], of `schedule`
    sinks,  # [H], dtype of q
    scale,
    sequences,  # S
    q_stride,  # elements between tokens
    table_stride,
    page_stride,  # elements
    want_lse,  # 0 or 1
    GROUP: tl.constexpr,  # query heads of a KV head
    ROWS: tl.constexpr,  # queries x GROUP at most; a power of two
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
    SPAN: tl.constexpr,
    DEPENDENT: tl.constexpr,  # started while the kernel before it may still run
):
    """Grid (KV, programs)."""
    head, program = tl.program_id(0), tl.program_id(1)
    heads = tl.num_programs(0)
    total_tiles = tl.load(tiles + sequences)
    share = share_of(total_tiles, tl.num_programs(1))
    at = program * share
    last = tl.minimum(at + share, total_tiles)
    s = tl.minimum(sequence_of(at, tiles, sequences, SPAN), sequences - 1)
    row = tl.arange(0, ROWS)
    k_at, v_at = tl.arange(0, K_PAD), tl.arange(0, V_PAD)
    q_head = head * GROUP + row % GROUP
    begin, end = tl.load(tiles + s), tl.load(tiles + s + 1)
    token, after, length = tl.load(starts + s), tl.load(starts + s + 1), tl.load(lens + s)
    if DEPENDENT:
        # Even without work: whoever waits for this kernel counts on the one before being done, too.
        gdc_wait()
        gdc_launch_dependents()
    while at < last:
        stop = tl.minimum(end, last)
        queries = after - token
        real = (row // GROUP < queries) & (stop > at)
        position = length - queries + row // GROUP
        first = first_key(length - queries, WINDOW)
        q_rows = (token + row // GROUP).to(tl.int64) * q_stride + q_head * K_DIM
        query = tl.load(q + q_rows[:, None] + k_at[None, :], real[:, None] & (k_at < K_DIM)[None, :], 0.0)
        top = tl.full([ROWS], float("-inf"), tl.float32)
        total = tl.zeros([ROWS], tl.float32)
        acc = tl.zeros([ROWS, V_PAD], tl.float32)
        skipped = first // KEYS - begin
        pages = table + s.to(tl.int64) * table_stride
        for tile in range(at + skipped, stop + skipped):
            key = tile * KEYS + tl.arange(0, KEYS)
            known = (key < length) & (key >= first)
            k_rows = places(key, pages, known, page_stride, head, PAGE, K_TOKEN, K_HEAD, True)
            keys = rows_of(k, k_rows, known, k_at, K_DIM, True)
            scores = scores_of(query, keys.to(query.dtype), scale, SOFT_CAP)
            scores = tl.where(visible(key, position, length, CAUSAL, WINDOW), scores, float("-inf"))
            v_rows = places(key, pages, known, page_stride, head, PAGE, V_TOKEN, V_HEAD, True)
            values = rows_of(v, v_rows, known, v_at, V_DIM, True)
            top, total, acc = add_tile(scores, values.to(query.dtype), top, total, acc, scale, SOFT_CAP, True)
        if (at == begin) & (stop == end):
            if SINKS:
                sink = tl.load(sinks + q_head).to(tl.float32) * LOG2E
                top, total, acc = with_sink(sink, top, total, acc)
            acc = acc / tl.where(total > 0, total, 1)[:, None]
            o_rows = (token + row // GROUP).to(tl.int64) * heads * GROUP + q_head
            o_at, o_known = o_rows[:, None] * V_DIM + v_at[None, :], real[:, None] & (v_at < V_DIM)[None, :]
            tl.store(out + o_at, acc.to(out.dtype.element_ty), o_known)
            # log2(0) is -inf: a query that saw no key.
            tl.store(lse + o_rows, (top + tl.log2(total)) / LOG2E, real & (want_lse > 0))
        else:
            slot = ((program * 2 + (at == begin).to(tl.int32)) * heads + head).to(tl.int64) * ROWS + row
            acc = acc / tl.where(total > 0, total, 1)[:, None]
            tl.store(parts + slot[:, None] * V_DIM + v_at[None, :], acc, real[:, None] & (v_at < V_DIM)[None, :])
            tl.store(sums + slot, tl.where(total > 0, top + tl.log2(total), float("-inf")), real)
        at = stop
        s = tl.minimum(s + 1, sequences - 1)
        begin, end = end, tl.load(tiles + s + 1)
        token, after, length = after, tl.load(starts + s + 1), tl.load(lens + s)


@triton.jit
def combine(
    parts,
    sums,
    out,
    lse,
    starts,
    tiles,
    sinks,
    sequences,
    programs,
    want_lse,
    KV: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    V_DIM: tl.constexpr,
    V_PAD: tl.constexpr,
    SINKS: tl.constexpr,
    PARTS: tl.constexpr,  # at a time
    SPAN: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Grid (H, programs - 1, queries at most): the results of sequences that more than one program read.

    One program for each cut of the line: it adds up the sequence that the cut goes through, if it is the first there.
    """
    q_head, cut, query = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    total_tiles = tl.load(tiles + sequences)
    share = share_of(total_tiles, programs)
    at = (cut + 1) * share
    s = tl.minimum(sequence_of(at, tiles, sequences, SPAN), sequences - 1)
    begin, end = tl.load(tiles + s), tl.load(tiles + s + 1)
    token, after = tl.load(starts + s) + query, tl.load(starts + s + 1)
    if DEPENDENT:
        gdc_launch_dependents()
        gdc_wait()
    first, last = begin // share, (end - 1) // share
    if (at >= total_tiles) | (begin == at) | (first != cut) | (token >= after):
        return
    head, row = q_head // GROUP, query * GROUP + q_head % GROUP
    v_at = tl.arange(0, V_PAD)
    top, total = float("-inf"), 0.0
    acc = tl.zeros([V_PAD], tl.float32)
    for base in range(first, last + 1, PARTS):
        part = base + tl.arange(0, PARTS)
        here = part <= last
        slot = ((part * 2 + (part == first).to(tl.int32)) * KV + head).to(tl.int64) * ROWS + row
        weight = tl.load(sums + slot, here, float("-inf"))
        values = tl.load(parts + slot[:, None] * V_DIM + v_at[None, :], here[:, None] & (v_at < V_DIM)[None, :], 0.0)
        new = tl.maximum(top, tl.max(weight, 0))
        at_least = tl.where(new == float("-inf"), 0.0, new)
        weight = tl.exp2(weight - at_least)
        fade = tl.exp2(top - at_least)
        total = total * fade + tl.sum(weight, 0)
        acc = acc * fade + tl.sum(values * weight[:, None], 0)
        top = new
    if SINKS:
        sink = tl.load(sinks + q_head).to(tl.float32) * LOG2E
        new = tl.maximum(top, sink)
        fade = tl.where(top == float("-inf"), 0.0, tl.exp2(top - new))
        total = total * fade + tl.where(top == float("-inf"), 0.0, tl.exp2(sink - new))
        acc, top = acc * fade, new
    acc = acc / tl.where(total > 0, total, 1.0)
    o_row = token.to(tl.int64) * KV * GROUP + q_head
    tl.store(out + o_row * V_DIM + v_at, acc.to(out.dtype.element_ty), v_at < V_DIM)
    tl.store(lse + o_row, (top + tl.log2(total)) / LOG2E, want_lse > 0)
