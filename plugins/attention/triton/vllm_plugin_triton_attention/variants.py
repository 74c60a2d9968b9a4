"""Which variants of the kernels a group of layers needs: argument types, constants, tiles."""

from __future__ import annotations

import math
from typing import Any

import attrs
import torch

from vllm_core.interfaces.attention import AttentionConfig
from vllm_plugin_triton_attention import decode, prefill, prefill_copied, schedule, write
from vllm_plugin_triton_attention.launch import Variant
from vllm_plugin_triton_attention.tiles import PARTS, SPAN, Tile, copied_tile, decode_tile, padded, prefill_tile

_TYPES = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.float8_e4m3fn: "fp8e4nv",
    torch.float8_e5m2: "fp8e5",
}
SHORT_ROWS = (16, 64)  # queries x heads of a KV head: plain decoding, and drafts
WORK_TILES = 32  # of queries that are listed at a time


def variants(c: AttentionConfig, arch: int) -> dict[str, Variant]:
    """name -> variant, for a GPU of sm_``arch``."""
    group = c.num_heads // c.num_kv_heads
    dim, size = max(padded(c.k_dim), padded(c.v_dim)), max(c.kv_dtype.itemsize, c.dtype.itemsize)
    shorts = [decode_tile(rows, dim, size, arch) for rows in dict.fromkeys(max(padded(group), n) for n in SHORT_ROWS)]
    long = copied_tile(padded(group)) if is_copied(c, arch) else prefill_tile(padded(group), dim, size, arch)
    found = {"schedule": _schedule(c, shorts[0].keys, long.rows // group), "write": _write(c)}
    for tile in shorts:
        found[f"decode{tile.rows}"] = _decode(c, tile, arch)
        found[f"combine{tile.rows}"] = _combine(c, tile, arch)
    found["prefill"] = _prefill(c, long, turns=False)
    # Turns keep more alive: in few registers it would spill within its loops.
    found["prefill_static"] = _prefill(c, attrs.evolve(long, registers=None), turns=True)
    if is_copied(c, arch):
        found["prefill"] = _copied(c, long)
    return found


def is_copied(c: AttentionConfig, arch: int) -> bool:
    """Whether the copy engine can fetch tiles of keys: they lie in one piece, in powers of two."""
    if arch != 90 or c.device.type != "cuda" or c.page_layout != "HND" or c.window is not None:
        return False
    return c.kv_dtype == c.dtype and c.dtype.itemsize == 2 and {c.k_dim, c.v_dim} <= {64, 128} and not c.block_size % 64


def aligned(c: AttentionConfig, *sizes: int) -> int:
    """Elements that strides are multiples of: 16 bytes, if ``sizes`` are."""
    return math.gcd(16 // c.dtype.itemsize, *sizes)


def _schedule(c: AttentionConfig, keys: int, queries: int) -> Variant:
    return Variant(
        schedule.schedule,
        _ints(("starts", "lens", "short_tiles", "long_tiles", "work"), "*i32") | _ints(("sequences", "most")),
        {"KEYS": keys, "QUERIES": queries, "WINDOW": c.window or 0, "SPAN": SPAN, "TILES": WORK_TILES},
        multiples=dict.fromkeys(("starts", "lens", "short_tiles", "long_tiles"), 4),
    )


def _write(c: AttentionConfig) -> Variant:
    x, kv = _pointer(c.dtype), _pointer(c.kv_dtype)
    strides = ("k_stride", "v_stride", "k_head", "v_head")
    return Variant(
        write.write,
        {"k": x, "v": x, "k_pages": kv, "v_pages": kv, "slots": "*i64"} | _ints((*strides, "page_stride")),
        {"KV": c.num_kv_heads, "KV_PAD": padded(c.num_kv_heads, 1), **_sizes(c), **_page(c)},
        multiples=dict.fromkeys(strides, aligned(c, c.k_dim, c.v_dim)) | _page_multiple(c) | {"slots": 8},
    )


def _decode(c: AttentionConfig, tile: Tile, arch: int) -> Variant:
    x, kv = _pointer(c.dtype), _pointer(c.kv_dtype)
    tables = ("table", "starts", "lens", "tiles")
    return Variant(
        decode.decode,
        {"q": x, "k": kv, "v": kv, "out": x, "lse": "*fp32", "parts": "*fp32", "sums": "*fp32"}
        | _ints(tables, "*i32")
        | {"sinks": x, "scale": "fp32"}
        | _ints(("sequences", "q_stride", "table_stride", "page_stride", "want_lse")),
        {"GROUP": c.num_heads // c.num_kv_heads, "ROWS": tile.rows, "KEYS": tile.keys}
        | _sizes(c)
        | _page(c)
        | {**_rules(c), "SPAN": SPAN, **_chain(c, arch)},
        multiples=_q_multiple(c) | _page_multiple(c) | dict.fromkeys(tables, 4) | _loose(c),
        **tile.options(),
    )


def _combine(c: AttentionConfig, tile: Tile, arch: int) -> Variant:
    x = _pointer(c.dtype)
    sizes = {"ROWS": tile.rows, "V_DIM": c.v_dim, "V_PAD": padded(c.v_dim)}
    return Variant(
        decode.combine,
        {"parts": "*fp32", "sums": "*fp32", "out": x, "lse": "*fp32", "starts": "*i32", "tiles": "*i32", "sinks": x}
        | _ints(("sequences", "programs", "want_lse")),
        {"KV": c.num_kv_heads, "GROUP": c.num_heads // c.num_kv_heads, **sizes}
        | {"SINKS": c.sinks, "PARTS": PARTS, "SPAN": SPAN, **_chain(c, arch)},
        multiples={"starts": 4, "tiles": 4, **_loose(c)},
    )


def _prefill(c: AttentionConfig, tile: Tile, turns: bool) -> Variant:
    x, kv = _pointer(c.dtype), _pointer(c.kv_dtype)
    return Variant(
        prefill.prefill,
        {"q": x, "k": kv, "v": kv, "out": x, "lse": "*fp32", "table": "*i32", "work": "*i32", "sinks": x}
        | {"scale": "fp32", **_ints(("q_stride", "table_stride", "page_stride", "want_lse"))},
        _rows(c, tile) | _sizes(c) | _page(c) | {**_rules(c), "TURNS": turns},
        multiples=_q_multiple(c) | _page_multiple(c) | {"table": 4, **_loose(c)},
        **tile.options(),
    )


def _copied(c: AttentionConfig, tile: Tile) -> Variant:
    x, kind = _pointer(c.dtype), _TYPES[c.dtype]
    tiles = {
        f"{name}_tiles": f"tensordesc<{kind}{[1, tile.keys, dim]}>" for name, dim in (("k", c.k_dim), ("v", c.v_dim))
    }
    rules = {name: value for name, value in _rules(c).items() if name != "WINDOW"}
    return Variant(
        prefill_copied.prefill_copied,
        {"q": x, **tiles, "out": x, "lse": "*fp32", "table": "*i32", "work": "*i32", "sinks": x, "scale": "fp32"}
        | _ints(("q_stride", "table_stride", "want_lse")),
        {**_rows(c, tile), "K_DIM": c.k_dim, "V_DIM": c.v_dim, "PAGE": c.block_size, **rules},
        multiples=_q_multiple(c) | {"table": 4, **_loose(c)},
        **tile.options(),
    )


def _ints(names: tuple[str, ...], kind: str = "i32") -> dict[str, str]:
    return dict.fromkeys(names, kind)


def _pointer(dtype: torch.dtype) -> str:
    return f"*{_TYPES[dtype]}"


def _rows(c: AttentionConfig, tile: Tile) -> dict[str, int]:
    group = c.num_heads // c.num_kv_heads
    sizes = {"GROUP": group, "QUERIES": tile.rows // group, "ROWS": tile.rows, "KEYS": tile.keys}
    return {"HEADS": c.num_kv_heads, **sizes}


def _sizes(c: AttentionConfig) -> dict[str, int]:
    return {"K_DIM": c.k_dim, "V_DIM": c.v_dim, "K_PAD": padded(c.k_dim), "V_PAD": padded(c.v_dim)}


def _rules(c: AttentionConfig) -> dict[str, Any]:
    return {"CAUSAL": c.causal, "WINDOW": c.window or 0, "SOFT_CAP": float(c.soft_cap or 0), "SINKS": c.sinks}


def _page(c: AttentionConfig) -> dict[str, int]:
    """Elements between tokens and heads of a page."""
    found = {"PAGE": c.block_size}
    for name, dim in (("K", c.k_dim), ("V", c.v_dim)):
        by_head = c.page_layout == "HND"
        found[f"{name}_TOKEN"] = dim if by_head else c.num_kv_heads * dim
        found[f"{name}_HEAD"] = c.block_size * dim if by_head else dim
    return found


# What `backend` makes sure of, copying queries and refusing pages that are not so: loads of 16 bytes.
def _q_multiple(c: AttentionConfig) -> dict[str, int]:
    return {"q_stride": aligned(c, c.num_heads * c.k_dim)}


def _page_multiple(c: AttentionConfig) -> dict[str, int]:
    return {"page_stride": 16 // c.kv_dtype.itemsize}


def _loose(c: AttentionConfig) -> dict[str, int]:
    """Addresses that may be any."""
    return {"lse": 4, "sinks": c.dtype.itemsize}


def _chain(c: AttentionConfig, arch: int) -> dict[str, bool]:
    """Whether a kernel starts while the one before still runs: where the device can."""
    return {"DEPENDENT": arch >= 90 and c.device.type == "cuda"}
