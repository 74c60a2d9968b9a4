"""What prefill and decode share: scores of a tile of keys, and the softmax that goes along."""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def scores_of(q, k, scale, SOFT_CAP: tl.constexpr):
    """[M, D] and [N, D] -> [M, N]: products that `add_tile` scales, or with a soft cap scores in units of log2."""
    s = tl.dot(q, tl.trans(k), input_precision="ieee")
    if SOFT_CAP > 0:
        # tanh(x) = 1 - 2 / (1 + exp(2x)); scale is divided by the cap already.
        s = (1 - 2 / (1 + tl.exp2(s * (scale * 2 * LOG2E)))) * (SOFT_CAP * LOG2E)
    return s


@triton.jit
def add_tile(s, v, top, total, acc, scale, SOFT_CAP: tl.constexpr, MAY_HIDE: tl.constexpr):
    """One step of the softmax: ``top`` the largest score so far in units of log2, ``total`` and ``acc`` relative to it.

    ``MAY_HIDE``: a row may have seen no key yet, and its top be -inf.
    """
    if SOFT_CAP > 0:
        new = tl.maximum(top, tl.max(s, 1))
    else:
        new = tl.maximum(top, tl.max(s, 1) * scale)
    if MAY_HIDE:
        base = tl.where(new == float("-inf"), 0.0, new)
    else:
        base = new
    if SOFT_CAP > 0:
        p = tl.exp2(s - base[:, None])
    else:
        p = tl.exp2(s * scale - base[:, None])
    fade = tl.exp2(top - base)
    total = total * fade + tl.sum(p, 1)
    acc = tl.dot(p.to(v.dtype), v, acc * fade[:, None], input_precision="ieee")
    return new, total, acc


@triton.jit
def with_sink(sink, top, total, acc):
    """One more score of each row, in units of log2, with no value. Rows that saw no key stay so."""
    new = tl.maximum(top, sink)
    fade = tl.where(top == float("-inf"), 0.0, tl.exp2(top - new))
    more = tl.where(top == float("-inf"), 0.0, tl.exp2(sink - new))
    return new, total * fade + more, acc * fade[:, None]


@triton.jit
def visible(key, position, length, CAUSAL: tl.constexpr, WINDOW: tl.constexpr):
    """bool [M, N]: keys [N] that queries at positions [M] see."""
    seen = (key < length)[None, :]
    if CAUSAL:
        seen = seen & (key[None, :] <= position[:, None])
    if WINDOW > 0:
        seen = seen & (position[:, None] - key[None, :] < WINDOW)
    return seen


@triton.jit
def places(
    key,
    table,
    known,
    page_stride,
    head,
    PAGE: tl.constexpr,
    TOKEN: tl.constexpr,
    HEAD: tl.constexpr,
    MASKED: tl.constexpr,
):
    """int64 [N]: where the keys' rows begin, in elements. Those that are not ``known`` are in page 0."""
    if MASKED:
        page = tl.load(table + key // PAGE, known, 0)
    else:
        page = tl.load(table + key // PAGE)
    return page.to(tl.int64) * page_stride + (key % PAGE) * TOKEN + head * HEAD


@triton.jit
def rows_of(pages, row, known, column, DIM: tl.constexpr, MASKED: tl.constexpr):
    """[N, PAD]: rows of keys or values; zeros where they are not ``known`` and beyond ``DIM``."""
    at = pages + row[:, None] + column[None, :]
    if MASKED:
        if column.shape[0] > DIM:
            found = tl.load(at, known[:, None] & (column < DIM)[None, :], 0.0)
        else:
            found = tl.load(at, known[:, None], 0.0)
    else:
        if column.shape[0] > DIM:
            found = tl.load(at, (column < DIM)[None, :], 0.0)
        else:
            found = tl.load(at)
    return found
