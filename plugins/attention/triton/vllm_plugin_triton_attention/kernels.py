"""All kernels of a backend: their constants, compiled for its device."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import torch
from torch import Tensor

from vllm_core.interfaces.attention import AttentionConfig
from vllm_plugin_triton_attention import decode, prefill, prefill_copied, schedule, write
from vllm_plugin_triton_attention.launch import Variant, arch_of
from vllm_plugin_triton_attention.tiles import PARTS, SPAN, Tile, copied_tile, decode_tile, padded, prefill_tile

_TYPES = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.float8_e4m3fn: "fp8e4nv",
    torch.float8_e5m2: "fp8e5",
}
_INTERPRETED_ARCH = 80  # whose tiles an interpreter takes
SHORT_ROWS = (16, 64)  # queries x heads of a KV head: plain decoding, and drafts
DEPENDENT = True  # kernels start while the one before still runs, where the device can
EARLY = True
LEAST = 1  # tiles that a program takes


@attrs.define
class Short:
    """Kernels for sequences with at most ``rows`` // group queries."""

    rows: int
    keys: int
    programs: int  # of a KV head, at most
    decode: Any
    combine: Any
    parts: Tensor
    sums: Tensor


class Kernels:
    """``schedule``, ``write``, ``prefill`` and ``short``, smaller rows first: launchers of `launch.Variant`."""

    def __init__(self, config: AttentionConfig) -> None:
        self.config, self.device = config, config.device
        self.arch = arch_of(_index(config.device)) if config.device.type == "cuda" else _INTERPRETED_ARCH
        variants = self.variants(config, self.arch)
        self.queries = variants["prefill"].constants["QUERIES"]
        ready = self._compiled(variants)
        self.schedule, self.write = ready["schedule"], ready["write"]
        self.prefill, self.prefill_static = ready["prefill"], ready["prefill_static"]
        self.slots = _at_once(self.prefill_static, config)
        rows = [variants[name].constants for name in variants if name.startswith("decode")]
        self.short = [self._short(c, ready[f"decode{c['ROWS']}"], ready[f"combine{c['ROWS']}"]) for c in rows]

    def _compiled(self, variants: dict[str, Variant]) -> dict[str, Any]:
        """name -> launcher. Compilers run side by side; modules are loaded by this thread, which has a context."""
        device = self.device
        if device.type != "cuda":
            return {name: variant.ready(device) for name, variant in variants.items()}
        device = torch.device("cuda", _index(device))
        with ThreadPoolExecutor(max_workers=min(len(variants), os.cpu_count() or 1)) as pool:
            compiled = list(pool.map(lambda variant: variant.compile(self.arch), variants.values()))
        return {name: v.ready(device, c) for (name, v), c in zip(variants.items(), compiled, strict=True)}

    def _short(self, constants: dict[str, Any], decode: Any, combine: Any) -> Short:
        c, rows = self.config, constants["ROWS"]
        programs = _programs(decode, c)
        shape = (programs, 2, c.num_kv_heads, rows)
        parts = torch.empty(*shape, c.v_dim, dtype=torch.float32, device=c.device)
        sums = torch.empty(shape, dtype=torch.float32, device=c.device)
        return Short(rows, constants["KEYS"], programs, decode, combine, parts, sums)

    @staticmethod
    def variants(config: AttentionConfig, arch: int) -> dict[str, Variant]:
        c = config
        group, x, kv = c.num_heads // c.num_kv_heads, "*" + _TYPES[c.dtype], "*" + _TYPES[c.kv_dtype]
        dependent = DEPENDENT and arch >= 90 and c.device.type == "cuda"
        dim, size = max(padded(c.k_dim), padded(c.v_dim)), max(c.kv_dtype.itemsize, c.dtype.itemsize)
        page = _page(c)
        sizes = {"K_DIM": c.k_dim, "V_DIM": c.v_dim, "K_PAD": padded(c.k_dim), "V_PAD": padded(c.v_dim)}
        rules = {
            "CAUSAL": c.causal,
            "WINDOW": c.window or 0,
            "SOFT_CAP": float(c.soft_cap or 0),
            "SINKS": c.sinks,
        }
        ints = dict.fromkeys(("sequences", "q_stride", "table_stride", "page_stride", "want_lse"), "i32")
        # Addresses of 16 bytes: backend.attend copies queries and refuses pages where they are not.
        multiples = {"q_stride": aligned(c, c.num_heads * c.k_dim), "page_stride": 16 // c.kv_dtype.itemsize}
        lists = dict.fromkeys(("table", "starts", "lens", "tiles"), "*i32")
        pointers = {"q": x, "k": kv, "v": kv, "out": x, "lse": "*fp32"}
        found = {
            "schedule": Variant(
                schedule.schedule,
                dict.fromkeys(("starts", "lens", "short_tiles", "long_tiles"), "*i32")
                | dict.fromkeys(("sequences", "most"), "i32"),
                {"KEYS": 0, "QUERIES": 0, "WINDOW": c.window or 0, "SPAN": SPAN},
                multiples={"long_tiles": 4, "short_tiles": 4},
            ),
            "write": Variant(
                write.write,
                {"k": x, "v": x, "k_pages": kv, "v_pages": kv, "slots": "*i64"}
                | dict.fromkeys(("k_stride", "v_stride", "k_head", "v_head", "page_stride"), "i32"),
                {"KV": c.num_kv_heads, "KV_PAD": padded(c.num_kv_heads, 1), **sizes, **page},
                multiples=dict.fromkeys(("k_stride", "v_stride", "k_head", "v_head"), aligned(c, c.k_dim, c.v_dim))
                | {"page_stride": multiples["page_stride"]},
            ),
        }
        unaligned = {"tiles": 4, "out": 16, "sinks": c.dtype.itemsize, "starts": 4, "lens": 4, "table": 4, "lse": 4}
        for rows in dict.fromkeys(max(padded(group), rows) for rows in SHORT_ROWS):
            tile = decode_tile(rows, dim, size, arch)
            found[f"decode{rows}"] = Variant(
                decode.decode,
                {**pointers, "parts": "*fp32", "sums": "*fp32", **lists, "sinks": x, "scale": "fp32", **ints},
                {
                    "GROUP": group,
                    "ROWS": rows,
                    "KEYS": tile.keys,
                    **sizes,
                    **page,
                    **rules,
                    "LEAST": LEAST,
                    "SPAN": SPAN,
                    "DEPENDENT": dependent,
                    "EARLY": EARLY,
                },
                multiples={**multiples, **unaligned},
                warps=tile.warps,
                stages=tile.stages,
                registers=tile.registers,
            )
            found[f"combine{rows}"] = Variant(
                decode.combine,
                {"parts": "*fp32", "sums": "*fp32", "out": x, "lse": "*fp32", "starts": "*i32", "tiles": "*i32",
                 "sinks": x, **dict.fromkeys(("sequences", "programs", "want_lse"), "i32")},
                {"KV": c.num_kv_heads, "GROUP": group, "ROWS": rows, "V_DIM": c.v_dim, "V_PAD": padded(c.v_dim),
                 "SINKS": c.sinks, "LEAST": LEAST, "PARTS": PARTS, "DEPENDENT": dependent},
                multiples={k: v for k, v in unaligned.items() if k not in ("lens", "table")},
            )  # fmt: skip
        tile: Tile = prefill_tile(padded(group), dim, size, arch)
        found["schedule"].constants |= {"KEYS": found[f"decode{max(padded(group), 16)}"].constants["KEYS"]}
        found["schedule"].constants |= {"QUERIES": tile.rows // group}
        for name, turns in (("prefill", False), ("prefill_static", True)):
            found[name] = Variant(
                prefill.prefill,
                {**pointers, **lists, "sinks": x, "scale": "fp32", **ints},
                {"HEADS": c.num_kv_heads, "GROUP": group, "QUERIES": tile.rows // group, "ROWS": tile.rows,
                 "KEYS": tile.keys, **sizes, **page, **rules, "SPAN": SPAN, "TURNS": turns,},
                multiples={**multiples, **unaligned},
                warps=tile.warps,
                stages=tile.stages,
                registers=tile.registers,
            )  # fmt: skip
        if _copied(c, arch):
            copied = copied_tile(tile.rows, dim)
            found["prefill"] = Variant(
                prefill_copied.prefill_copied,
                {**pointers, **lists, "sinks": x, "scale": "fp32", **ints},
                {"HEADS": c.num_kv_heads, "GROUP": group, "QUERIES": tile.rows // group, "ROWS": tile.rows,
                 "KEYS": copied.keys, "K_DIM": c.k_dim, "V_DIM": c.v_dim, "PAGE": c.block_size, "CAUSAL": c.causal,
                 "SOFT_CAP": rules["SOFT_CAP"], "SINKS": c.sinks, "SPAN": SPAN},
                multiples={**multiples, **unaligned},
                warps=copied.warps,
                stages=copied.stages,
                registers=copied.registers,
            )  # fmt: skip
        return found


def _copied(c: AttentionConfig, arch: int) -> bool:
    """Whether the copy engine can fetch tiles of keys: they lie in one piece, in powers of two."""
    if arch != 90 or c.device.type != "cuda" or c.page_layout != "HND" or c.window is not None:
        return False
    dims = {c.k_dim, c.v_dim}
    return c.kv_dtype == c.dtype and c.dtype.itemsize == 2 and dims <= {64, 128} and not c.block_size % 64


def aligned(c: AttentionConfig, *sizes: int) -> int:
    """Elements that strides are multiples of: 16 bytes, if ``sizes`` are."""
    return math.gcd(16 // c.dtype.itemsize, *sizes)


def _page(c: AttentionConfig) -> dict[str, int]:
    """Elements between tokens and heads of a page."""
    found = {"PAGE": c.block_size}
    for name, dim in (("K", c.k_dim), ("V", c.v_dim)):
        by_head = c.page_layout == "HND"
        found[f"{name}_TOKEN"] = dim if by_head else c.num_kv_heads * dim
        found[f"{name}_HEAD"] = c.block_size * dim if by_head else dim
    return found


def _at_once(kernel: Any, c: AttentionConfig) -> int:
    """Programs that the device runs at a time."""
    if c.device.type != "cuda":
        return 3
    device = torch.cuda.get_device_properties(c.device)
    registers, _ = kernel.usage()
    by_registers = 65536 // (-(-registers // 8) * 8 * kernel.threads)
    by_memory = device.shared_memory_per_multiprocessor // (kernel.shared + 1024)
    return device.multi_processor_count * max(1, min(by_registers, by_memory, 4))


def _programs(decode: Any, c: AttentionConfig) -> int:
    """Of a KV head, so that all run at a time and processors are busy equally."""
    slots, heads = _at_once(decode, c), c.num_kv_heads
    waves = max(range(1, 4), key=lambda n: (round(n * slots // heads * heads / (n * slots), 1), -n))
    return max(1, waves * slots // heads)


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index
