"""Keys and values of a step into their slots."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def write(
    k,  # [T, KV, K_DIM]
    v,  # [T, KV, V_DIM]
    k_pages,
    v_pages,
    slots,  # int64 [T]
    k_stride,  # elements between tokens
    v_stride,
    k_head,  # and between heads
    v_head,
    page_stride,
    KV: tl.constexpr,
    KV_PAD: tl.constexpr,  # powers of two
    K_DIM: tl.constexpr,
    V_DIM: tl.constexpr,
    K_PAD: tl.constexpr,
    V_PAD: tl.constexpr,
    PAGE: tl.constexpr,  # tokens
    K_TOKEN: tl.constexpr,  # elements between tokens and heads of a page
    K_HEAD: tl.constexpr,
    V_TOKEN: tl.constexpr,
    V_HEAD: tl.constexpr,
):
    """Grid (T): a token's heads."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token)
    page, place = slot // PAGE * page_stride, slot % PAGE
    head, k_at, v_at = tl.arange(0, KV_PAD)[:, None], tl.arange(0, K_PAD)[None, :], tl.arange(0, V_PAD)[None, :]
    here = (head < KV) & (k_at < K_DIM)
    found = tl.load(k + token * k_stride + head * k_head + k_at, here)
    tl.store(k_pages + page + place * K_TOKEN + head * K_HEAD + k_at, found.to(k_pages.dtype.element_ty), here)
    here = (head < KV) & (v_at < V_DIM)
    found = tl.load(v + token * v_stride + head * v_head + v_at, here)
    tl.store(v_pages + page + place * V_TOKEN + head * V_HEAD + v_at, found.to(v_pages.dtype.element_ty), here)
