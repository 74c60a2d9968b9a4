"""The attention backend ``flashinfer`` (arXiv 2501.01005)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vllm_core.interfaces.attention import AttentionConfig, AttentionStep
from vllm_core.ops import write_kv
from vllm_plugin_flashinfer.planner import Planner

LN_2 = math.log(2)


class FlashInferAttention:
    """``AttentionBackend`` for pages in "NHD" or "HND".

    One kernel serves prompts and decoding, so that a module of FlashInfer is compiled once a group. Made here,
    it is loaded, or compiled by nvcc for about a minute where it is not in FlashInfer's cache.
    """

    def __init__(self, config: AttentionConfig) -> None:
        self.config = config
        self.head_axis = 2 if config.page_layout == "NHD" else 1
        self.planner = Planner(config)

    def begin_step(self, step: AttentionStep) -> int:
        return self.planner.plan(step)

    def write(self, k: Tensor, v: Tensor, pages: tuple[Tensor, ...], step: AttentionStep) -> None:
        write_kv(k, v, pages[0], pages[1], step.slots, self.head_axis)

    def attend(
        self,
        q: Tensor,
        pages: tuple[Tensor, ...],
        step: AttentionStep,
        metadata: int,
        sinks: Tensor | None = None,
        lse: Tensor | None = None,
    ) -> Tensor:
        out = torch.empty(*q.shape[:-1], self.config.v_dim, dtype=q.dtype, device=q.device)
        if not step.num_tokens:
            return out
        wrapper, more = self.planner.current(metadata), lse is not None or sinks is not None
        found = wrapper.run(q, (pages[0], pages[1]), out=out, return_lse=more, enable_pdl=False)
        if not more:
            return out
        totals = found[1] * LN_2  # FlashInfer's are logarithms to base 2
        if sinks is not None:
            # One more exp(sink) under the fraction of the softmax.
            out = (out * torch.sigmoid(totals - sinks.float()).unsqueeze(-1)).to(q.dtype)
            totals = torch.logaddexp(totals, sinks.float())
        if lse is not None:
            lse.copy_(totals)
        return out
