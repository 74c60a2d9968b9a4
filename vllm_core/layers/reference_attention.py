"""The core's own attention backend: any device, any option, plain torch."""

from __future__ import annotations

from torch import Tensor

from vllm_core.interfaces.attention import AttentionConfig, AttentionStep
from vllm_core.ops.attention import paged_attention
from vllm_core.ops.cache import write_kv


class ReferenceAttention:
    """``AttentionBackend`` "reference": what the others are compared with. Takes "NHD" and "HND", any block size."""

    def __init__(self, config: AttentionConfig) -> None:
        self.config = config
        self.head_axis = {"NHD": 2, "HND": 1}[config.page_layout]

    def begin_step(self, step: AttentionStep) -> None:
        """Nothing to prepare."""

    def write(self, k: Tensor, v: Tensor, pages: tuple[Tensor, ...], step: AttentionStep) -> None:
        write_kv(k, v, pages[0], pages[1], step.slots, self.head_axis)

    def attend(
        self,
        q: Tensor,
        pages: tuple[Tensor, ...],
        step: AttentionStep,
        metadata: None,
        sinks: Tensor | None = None,
        lse: Tensor | None = None,
    ) -> Tensor:
        config = self.config
        return paged_attention(
            q,
            pages[0],
            pages[1],
            step.block_table,
            step.query_lens,
            step.kv_lens,
            step.kv_bounds,
            scale=config.scale,
            causal=config.causal,
            window=config.window,
            soft_cap=config.soft_cap,
            sinks=sinks,
            lse=lse,
            head_axis=self.head_axis,
        )
