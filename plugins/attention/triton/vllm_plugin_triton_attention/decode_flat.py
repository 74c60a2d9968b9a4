"""`decode` with one loop over all tiles of a program, whatever sequences they are of: keys stay on their way."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from vllm_plugin_triton_attention.decode import share_of
from vllm_plugin_triton_attention.schedule import first_key
from vllm_plugin_triton_attention.scores import LOG2E, add_tile, places, rows_of, scores_of, visible, with_sink


@triton.jit
def line_up(starts, lens, tiles, line, SPAN: tl.constexpr):
    """Grid (S): what `decode` must know of each tile of keys, int32 [tiles, 8]."""
    s = tl.program_id(0)
    begin, end = tl.load(tiles + s), tl.load(tiles + s + 1)
    token = tl.load(starts + s)
    queries, length = tl.load(starts + s + 1) - token, tl.load(lens + s)
    for base in range(begin, end, SPAN):
        tile = base + tl.arange(0, SPAN)
        at, here = line + tile * 8, tile < end
        tl.store(at, tl.zeros([SPAN], tl.int32) + s, here)
        tl.store(at + 1, tile - begin, here)
        tl.store(at + 2, tl.zeros([SPAN], tl.int32) + (end - begin), here)
        tl.store(at + 3, tl.zeros([SPAN], tl.int32) + token, here)
        tl.store(at + 4, tl.zeros([SPAN], tl.int32) + queries, here)
        tl.store(at + 5, tl.zeros([SPAN], tl.int32) + length, here)


@triton.jit
def decode_flat(
    q,  # [T, H, K_DIM]
    k,  # pages
    v,  # pages
    out,  # [T, H, V_DIM]
    lse,  # float32 [T, H]
    parts,  # float32 [programs, 2, KV, ROWS, V_DIM]: a program's first sequence, if others began it, and its last
    sums,  # float32 [programs, 2, KV, ROWS]: log2 of the sum of 2**score
    table,  # int32 [S, blocks]
    line,  # int32 [tiles, 8], of `line_up`
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
    LEAST: tl.constexpr,
    SPAN: tl.constexpr,
    DEPENDENT: tl.constexpr,  # started while the kernel before it may still run
    EARLY: tl.constexpr,
):
    """Grid (KV, programs)."""
    head, program = tl.program_id(0), tl.program_id(1)
    heads = tl.num_programs(0)
    total_tiles = tl.load(tiles + sequences)
    share = share_of(total_tiles, tl.num_programs(1), LEAST)
    begin_at = program * share
    last = tl.minimum(begin_at + share, total_tiles)
    row = tl.arange(0, ROWS)
    k_at, v_at = tl.arange(0, K_PAD), tl.arange(0, V_PAD)
    q_head = head * GROUP + row % GROUP
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, V_PAD], tl.float32)
    if DEPENDENT:
        # Even without work: whoever waits for this kernel counts on the one before being done, too.
        gdc_wait()
        if EARLY:
            gdc_launch_dependents()
    for tile in range(begin_at, last):
        at = line + tile * 8
        s, number, count = tl.load(at), tl.load(at + 1), tl.load(at + 2)
        token, queries, length = tl.load(at + 3), tl.load(at + 4), tl.load(at + 5)
        first = first_key(length - queries, WINDOW)
        key = (first // KEYS + number) * KEYS + tl.arange(0, KEYS)
        known = (key < length) & (key >= first)
        pages = table + s.to(tl.int64) * table_stride
        real = row // GROUP < queries
        q_rows = (token + row // GROUP).to(tl.int64) * q_stride + q_head * K_DIM
        query = tl.load(q + q_rows[:, None] + k_at[None, :], real[:, None] & (k_at < K_DIM)[None, :], 0.0)
        k_rows = places(key, pages, known, page_stride, head, PAGE, K_TOKEN, K_HEAD, True)
        keys = rows_of(k, k_rows, known, k_at, K_DIM, True)
        v_rows = places(key, pages, known, page_stride, head, PAGE, V_TOKEN, V_HEAD, True)
        values = rows_of(v, v_rows, known, v_at, V_DIM, True)
        scores = scores_of(query, keys.to(query.dtype), scale, SOFT_CAP)
        position = length - queries + row // GROUP
        scores = tl.where(visible(key, position, length, CAUSAL, WINDOW), scores, float("-inf"))
        new_one = number == 0
        top = tl.where(new_one, float("-inf"), top)
        total, acc = tl.where(new_one, 0.0, total), tl.where(new_one, 0.0, acc)
        top, total, acc = add_tile(scores, values.to(query.dtype), top, total, acc, scale, SOFT_CAP, True)
        begin = tile - number
        if (number + 1 == count) | (tile + 1 == last):
            o_rows = (token + row // GROUP).to(tl.int64) * heads * GROUP + q_head
            if (begin >= begin_at) & (number + 1 == count):
                if SINKS:
                    sink = tl.load(sinks + q_head).to(tl.float32) * LOG2E
                    new, sum_, found = with_sink(sink, top, total, acc)
                else:
                    new, sum_, found = top, total, acc
                found = found / tl.where(sum_ > 0, sum_, 1)[:, None]
                o_at, o_known = o_rows[:, None] * V_DIM + v_at[None, :], real[:, None] & (v_at < V_DIM)[None, :]
                tl.store(out + o_at, found.to(out.dtype.element_ty), o_known)
                # log2(0) is -inf: a query that saw no key.
                tl.store(lse + o_rows, (new + tl.log2(sum_)) / LOG2E, real & (want_lse > 0))
            else:
                slot = ((program * 2 + (begin >= begin_at).to(tl.int32)) * heads + head).to(tl.int64) * ROWS + row
                found = acc / tl.where(total > 0, total, 1)[:, None]
                tl.store(parts + slot[:, None] * V_DIM + v_at[None, :], found, real[:, None] & (v_at < V_DIM)[None, :])
                tl.store(sums + slot, tl.where(total > 0, top + tl.log2(total), float("-inf")), real)
