"""The backend with flash-attn-4's kernels (CuTe DSL; arXiv 2307.08691, 2407.08608), which read pages in place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from vllm_core.interfaces.attention import AttentionConfig, AttentionStep
from vllm_core.ops import write_kv
from vllm_plugin_flash_attention.splits import Split, merge, split
from vllm_plugin_flash_attention.window import visible

ALIGNED = 16  # bytes: pages at other strides would be copied by the library, all of them in every call
ROWS_SEARCHED = 256  # sequences up to which the library finds a block's sequence without another kernel


@attrs.frozen
class Lengths:
    """One step: what the kernel reads of it, and the parts that decoding is split into, if it is."""

    query_starts: Tensor  # int32 [S + 1]
    kv_lens: Tensor  # int32 [S]
    table: Tensor  # int32 [S, W]
    split: Split | None


class PagedFlashAttention:
    """``AttentionBackend`` for pages [P, block, heads, dim], "NHD", of which none is as large as a tile of keys.

    Nothing of a step is decided on the host but whether decoding is split, from the numbers of sequences and of
    columns of the block table. Made here, the kernels are compiled (about 3 s each) or loaded from a cache on disk.
    """

    def __init__(self, config: AttentionConfig) -> None:
        self.config = config
        self.right = 0 if config.causal else None
        self.left = None if config.window is None else config.window - 1
        self.run, self.capped = _library(config.soft_cap)
        self.multiprocessors = torch.cuda.get_device_properties(config.device).multi_processor_count
        with torch.inference_mode():
            for rows in (1, ROWS_SEARCHED + 1):
                self._compile(rows)

    def begin_step(self, step: AttentionStep) -> Lengths:
        c = self.config
        table, lengths, _ = visible(step, c)
        rows = len(lengths)
        found = Lengths(step.query_starts, lengths.contiguous(), table.contiguous(), None)
        if step.num_tokens != rows or step.longest_query != 1 or c.window is not None:
            return found
        parts = split(found.table, found.kv_lens, c.block_size, self.multiprocessors // (rows * c.num_kv_heads))
        return attrs.evolve(found, split=parts)

    def write(self, k: Tensor, v: Tensor, pages: tuple[Tensor, ...], step: AttentionStep) -> None:
        write_kv(k, v, pages[0], pages[1], step.slots)

    def attend(
        self,
        q: Tensor,
        pages: tuple[Tensor, ...],
        step: AttentionStep,
        metadata: Lengths,
        sinks: Tensor | None = None,
        lse: Tensor | None = None,
    ) -> Tensor:
        if not step.num_tokens:
            return q.new_empty(0, self.config.num_heads, self.config.v_dim)
        for part in pages[:2]:
            if part.stride(0) * part.element_size() % ALIGNED:
                raise ValueError(f"pages must lie at multiples of {ALIGNED} bytes, not of {part.stride(0)} elements")
        parts = metadata.split
        if parts is None:
            out, totals = self._call(q, pages, metadata, sinks)
            totals = totals.t()  # [T, H]
        else:
            rows = q.unsqueeze(1).expand(-1, parts.count, -1, -1).flatten(0, 1)
            out, totals = self._call(rows, pages, parts, None)
            out, totals = merge(out, totals, parts.count, sinks)
        if lse is not None:
            lse.copy_(totals)
        return out

    def _call(
        self, q: Tensor, pages: tuple[Tensor, ...], at: Lengths | Split, sinks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """[T, H, v_dim] and float32 [H, T]."""
        return self.run(
            q,
            pages[0],
            pages[1],
            cu_seqlens_q=at.query_starts,
            seqused_k=at.kv_lens,
            page_table=at.table,
            softmax_scale=self.config.scale,
            causal=self.config.causal,
            window_size=(self.left, self.right if self.left is not None else None),
            learnable_sink=sinks,
            score_mod=self.capped,
            return_lse=True,  # always, so that there is one kernel
        )

    def _compile(self, rows: int) -> None:
        """One call with ``rows`` sequences of one token each: kernels depend on nothing else of a step."""
        c, device = self.config, self.config.device
        q = torch.zeros(rows, c.num_heads, c.k_dim, dtype=c.dtype, device=device)
        pages = tuple(
            torch.zeros(1, c.block_size, c.num_kv_heads, dim, dtype=c.kv_dtype, device=device)
            for dim in (c.k_dim, c.v_dim)
        )
        ones = torch.ones(rows, dtype=torch.int32, device=device)
        starts = torch.arange(rows + 1, dtype=torch.int32, device=device)
        at = Lengths(starts, ones, torch.zeros(rows, 1, dtype=torch.int32, device=device), None)
        for sinks in (torch.zeros(c.num_heads, dtype=c.dtype, device=device), None) if c.sinks else (None,):
            self._call(q, pages, at, sinks)


def _library(soft_cap: float | None) -> tuple[Any, Any]:
    """flash-attn-4's function for sequences of different lengths, and its change of scores for a cap."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vllm-core" / "flash-attn-4"
    os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", str(cache))
    os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "1")  # both are read when it is imported
    from flash_attn.cute.interface import flash_attn_varlen_func
    from flash_attn.cute.utils import create_softcap_scoremod

    # Made once: the library tells kernels apart by a hash of this function, and would make and hash one a call.
    return flash_attn_varlen_func, None if soft_cap is None else create_softcap_scoremod(soft_cap)
