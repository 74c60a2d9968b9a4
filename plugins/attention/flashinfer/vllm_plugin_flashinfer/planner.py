"""FlashInfer's division of a step among multiprocessors, made on the host from bounds of lengths."""

from __future__ import annotations

from functools import cache
from itertools import accumulate
from typing import Any

import torch
from flashinfer import BatchPrefillWithPagedKVCacheWrapper
from torch import Tensor

from vllm_core.interfaces.attention import AttentionConfig, AttentionStep
from vllm_plugin_flashinfer.pinned import PinnedBuffers

# What a plan leaves in the wrapper for its kernel, and what of it we put right: see `Planner.plan`.
LENGTHS = ("_paged_kv_indptr_buf", "_paged_kv_last_page_len_buf")
PINNED = "_pin_memory_int_workspace_buffer"
LARGEST_TILE = 128  # queries times heads of a group that one block of threads computes
BLOCKS_A_MULTIPROCESSOR = 2


class Planner:
    """A wrapper of FlashInfer's "fa2" kernel, and its plan of the step that began last.

    The plan says which block of threads takes which part of which sequence. It is made from the host's
    bounds; the lengths that the kernel computes with stay on the device: a part beyond a sequence's length
    is empty, and the kernel knows that. Its Hopper kernel ("fa3") takes lengths from the plan and would need
    exact ones.
    """

    def __init__(self, config: AttentionConfig) -> None:
        self.config, self.number = config, 0
        space = workspace(config.device, workspace_bytes(config))
        self.wrapper: Any = BatchPrefillWithPagedKVCacheWrapper(space, config.page_layout, backend="fa2")
        lacking = [name for name in (*LENGTHS, PINNED) if not hasattr(self.wrapper, name)]
        if lacking:
            raise RuntimeError(f"this version of flashinfer-python is not known: its wrapper has no {lacking[0]}")
        self.pinned = PinnedBuffers(getattr(self.wrapper, PINNED))
        self._plan([1], [1], torch.zeros(1, 1, dtype=torch.int32, device=config.device))  # compiles or loads

    def plan(self, step: AttentionStep) -> int:
        """Plan the step; a number that names it in ``current``."""
        self.number += 1
        if not step.num_tokens:
            return self.number
        c, block = self.config, self.config.block_size
        lengths, table, bounds = step.kv_lens, step.block_table, list(step.kv_bounds)
        if c.window is not None:
            # Blocks behind every query's window are passed over: what lies there may be another sequence's.
            queries = step.query_starts.diff()
            first = (lengths - queries - (c.window - 1)).clamp_(min=0) // block
            reach = [c.window - 1 + count + block - 1 for count in step.query_lens]
            bounds = [min(bound, most) for bound, most in zip(bounds, reach, strict=True)]
            columns = torch.arange(-(-max(bounds) // block), dtype=torch.int32, device=table.device)
            columns = (columns + first[:, None]).clamp_(max=table.shape[1] - 1)
            table, lengths = table.gather(1, columns.long()), lengths - first * block
        table = table.contiguous()
        self._plan(step.query_lens, [b if q else 0 for b, q in zip(bounds, step.query_lens, strict=True)], table)
        # Every sequence has a whole row of the table. The kernel adds (pages - 1) * block and the tokens of the
        # last page, which may be negative: their sum is the exact length.
        rows, width = table.shape
        pages = torch.arange(0, (rows + 1) * width, width, dtype=torch.int32, device=table.device)
        for name, value in zip(LENGTHS, (pages, lengths - (width - 1) * block), strict=True):
            setattr(self.wrapper, name, value)
        return self.number

    def current(self, number: int) -> Any:
        """The wrapper, if step ``number`` is the one that it holds the plan of."""
        if number != self.number:
            raise RuntimeError(f"the group's step {self.number} has begun, and step {number} is attended to")
        return self.wrapper

    def _plan(self, queries: Any, bounds: list[int], table: Tensor) -> None:
        """queries, bounds: tokens a sequence."""
        c = self.config
        pages = [-(-bound // c.block_size) for bound in bounds]
        last = [bound - (count - 1) * c.block_size if count else 0 for bound, count in zip(bounds, pages, strict=True)]
        with self.pinned.lend(self.wrapper, PINNED):
            self.wrapper.plan(
                torch.tensor([0, *accumulate(queries)], dtype=torch.int32),
                torch.tensor([0, *accumulate(pages)], dtype=torch.int32),
                table.view(-1),
                torch.tensor(last, dtype=torch.int32),
                c.num_heads,
                c.num_kv_heads,
                c.k_dim,
                c.block_size,
                causal=c.causal,
                sm_scale=c.scale,
                window_left=-1 if c.window is None else c.window - 1,
                logits_soft_cap=c.soft_cap,
                q_data_type=c.dtype,
                kv_data_type=c.kv_dtype,
            )


def workspace_bytes(config: AttentionConfig) -> int:
    """What the setting says, if that is as much as partial results of any step may take."""
    blocks = BLOCKS_A_MULTIPROCESSOR * torch.cuda.get_device_properties(config.device).multi_processor_count
    heads = config.num_heads * -(-blocks // config.num_kv_heads)
    need = heads * LARGEST_TILE * (config.v_dim + 1) * 4 + 4096  # float32 results and log-sum-exp, aligned
    asked = int(config.options.get("workspace_mib", 0)) << 20
    if 0 < asked < need:
        raise ValueError(
            f"--plugin.flashinfer.workspace-mib {asked >> 20} is too small: {config.num_heads} heads of"
            f" {config.v_dim} elements on {blocks // BLOCKS_A_MULTIPROCESSOR} multiprocessors may need"
            f" {-(-need >> 20)} MiB; leave it out to get as much"
        )
    return asked or need


@cache
def workspace(device: torch.device, size: int) -> Tensor:
    """Memory that kernels of one stream use one after another."""
    return torch.empty(size, dtype=torch.uint8, device=device)
