"""Attention that rounds what it caches. Contract: interfaces/attention.py."""

import torch

from vllm_core.ops.attention import paged_attention


class Tight:
    def __init__(self, config):
        self.config = config

    def begin_step(self, step):
        """The pages that the step reads, numbered anew: only they are widened."""
        table = step.block_table.long()
        return table.flatten(), torch.arange(table.numel(), device=table.device).view_as(table).int()

    def write(self, k, v, pages, step):
        """k [T, KV, k_dim], v [T, KV, v_dim]"""
        block = self.config.block_size
        page, place = step.slots // block, step.slots % block
        for x, numbers, scales in ((k, pages[0], pages[2]), (v, pages[1], pages[3])):
            scale = x.float().abs().amax(-1, keepdim=True).clamp_min(1e-12) / 127
            numbers[page, place] = (x.float() / scale).round().to(torch.int8)
            scales[page, place] = scale

    def attend(self, q, pages, step, metadata, sinks=None, lse=None):
        read, table = metadata
        wide = (pages[i][read].float() * pages[i + 2][read] for i in (0, 1))
        config = self.config
        options = {"scale": config.scale, "causal": config.causal, "window": config.window, "soft_cap": config.soft_cap}
        found = paged_attention(
            q.float(), *wide, table, step.query_lens, step.kv_lens, step.kv_bounds, sinks=sinks, **options
        )
        return found.to(q.dtype)
