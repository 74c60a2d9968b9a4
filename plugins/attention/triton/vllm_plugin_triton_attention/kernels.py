"""All kernels of a backend, compiled for its device, and the work space of the decoding ones."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import torch
from torch import Tensor

from vllm_core.interfaces.attention import AttentionConfig
from vllm_plugin_triton_attention.launch import Variant, arch_of
from vllm_plugin_triton_attention.variants import is_copied, variants

_INTERPRETED_ARCH = 80  # whose tiles an interpreter takes


@attrs.define
class Short:
    """Kernels for sequences with at most ``rows`` // group queries."""

    rows: int
    keys: int
    programs: int  # of a KV head, at most: all that run at a time
    few: int  # of a KV head, at most, when there are few sequences: two a multiprocessor
    few_shared: int  # bytes of shared memory that a program then takes; 0: what it needs
    decode: Any
    combine: Any
    parts: Tensor
    sums: Tensor


class Kernels:
    """``schedule``, ``write``, ``prefill``, ``prefill_static`` and ``short``, smaller rows first: `launch.Launch`es."""

    def __init__(self, config: AttentionConfig) -> None:
        self.config, self.device = config, config.device
        self.arch = arch_of(_index(config.device)) if config.device.type == "cuda" else _INTERPRETED_ARCH
        self.copied = is_copied(config, self.arch)
        needed = variants(config, self.arch)
        self.queries = needed["prefill"].constants["QUERIES"]
        ready = self._compiled(needed)
        self.schedule, self.write = ready["schedule"], ready["write"]
        self.prefill, self.prefill_static = ready["prefill"], ready["prefill_static"]
        self.slots = _at_once(self.prefill_static, config)
        rows = [needed[name].constants for name in needed if name.startswith("decode")]
        self.short = [self._short(c, ready[f"decode{c['ROWS']}"], ready[f"combine{c['ROWS']}"]) for c in rows]

    def _compiled(self, needed: dict[str, Variant]) -> dict[str, Any]:
        """name -> launcher. Compilers run side by side; modules are loaded by this thread, which has a context."""
        device = self.device
        if device.type != "cuda":
            return {name: variant.ready(device) for name, variant in needed.items()}
        device = torch.device("cuda", _index(device))
        with ThreadPoolExecutor(max_workers=min(len(needed), os.cpu_count() or 1)) as pool:
            compiled = list(pool.map(lambda variant: variant.compile(self.arch), needed.values()))
        return {name: v.ready(device, c) for (name, v), c in zip(needed.items(), compiled, strict=True)}

    def _short(self, constants: dict[str, Any], decode: Any, combine: Any) -> Short:
        c, rows = self.config, constants["ROWS"]
        at_once = _at_once(decode, c)
        programs, few = _programs(at_once, c), _programs(min(at_once, 2 * _processors(c)), c)
        shared = _share_of_memory(decode, c) if at_once > 2 * _processors(c) else 0
        shape = (max(programs, few), 2, c.num_kv_heads, rows)
        parts = torch.empty(*shape, c.v_dim, dtype=torch.float32, device=c.device)
        sums = torch.empty(shape, dtype=torch.float32, device=c.device)
        return Short(rows, constants["KEYS"], programs, few, shared, decode, combine, parts, sums)


def _processors(c: AttentionConfig) -> int:
    return torch.cuda.get_device_properties(c.device).multi_processor_count if c.device.type == "cuda" else 3


def _share_of_memory(kernel: Any, c: AttentionConfig) -> int:
    """Half of a multiprocessor's shared memory, bytes: with it, not more than two programs fit.

    A kernel starts while the one before still holds some multiprocessors. If three fitted, others would get a third
    program in their place, and the step would wait for those.
    """
    if c.device.type != "cuda":
        return 0
    device = torch.cuda.get_device_properties(c.device)
    shared = max(
        kernel.shared, min(device.shared_memory_per_block_optin, device.shared_memory_per_multiprocessor // 2 - 1024)
    )
    kernel.allow(shared)
    return shared


def _at_once(kernel: Any, c: AttentionConfig) -> int:
    """Programs that the device runs at a time."""
    if c.device.type != "cuda":
        return 3
    device = torch.cuda.get_device_properties(c.device)
    registers, _ = kernel.usage()
    by_registers = 65536 // (-(-registers // 8) * 8 * kernel.threads)
    by_memory = device.shared_memory_per_multiprocessor // (kernel.shared + 1024)
    return device.multi_processor_count * max(1, min(by_registers, by_memory, 4))


def _programs(slots: int, c: AttentionConfig) -> int:
    """Of a KV head, so that about ``slots`` run at a time and processors are busy equally."""
    heads = c.num_kv_heads
    waves = max(range(1, 4), key=lambda n: (round(n * slots // heads * heads / (n * slots), 1), -n))
    return max(1, waves * slots // heads)


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index
