"""The attention backend ``cpu``."""

from __future__ import annotations

import torch
from torch import Tensor

from vllm_core.interfaces.attention import AttentionConfig, AttentionStep
from vllm_plugin_cpu_attention.schedule import schedule
from vllm_plugin_cpu_attention.work import Work


class CpuAttention:
    """``AttentionBackend`` for pages [P, block, heads, dim], "NHD".

    The device is the host here, so lengths are read where they lie and no padding is computed
    for what a step only might have needed.
    """

    def __init__(self, config: AttentionConfig) -> None:
        self.config = config
        self.scale = config.scale
        # What torch's public function computes; all else goes with log-sum-exp, a little slower.
        self.plain = config.soft_cap is None and not config.sinks and config.k_dim == config.v_dim
        self._buffers: dict[str, Tensor] = {}
        self._places: tuple[AttentionStep | None, tuple[Tensor, ...]] = (None, ())

    def begin_step(self, step: AttentionStep) -> list[Work]:
        return schedule(step, self.config)

    def write(self, k: Tensor, v: Tensor, pages: tuple[Tensor, ...], step: AttentionStep) -> None:
        known, places = self._places
        if known is not step:  # the first layer of this step
            block = self.config.block_size
            places = step.slots.div(block, rounding_mode="floor"), step.slots.remainder(block)
            self._places = step, places
        pages[0].index_put_(places, k)
        pages[1].index_put_(places, v)

    def attend(
        self,
        q: Tensor,
        pages: tuple[Tensor, ...],
        step: AttentionStep,
        metadata: list[Work],
        sinks: Tensor | None = None,
        lse: Tensor | None = None,
    ) -> Tensor:
        k_pages, v_pages = pages
        if lse is not None or not self.plain:
            return self._attend_with_lse(q, k_pages, v_pages, metadata, sinks, lse)
        if len(metadata) == 1 and isinstance(metadata[0].rows, slice):
            return metadata[0].run(q, k_pages, v_pages, self.scale, self._gather)
        out = torch.empty(q.shape, dtype=q.dtype)
        for work in metadata:
            out[work.rows] = work.run(q[work.rows], k_pages, v_pages, self.scale, self._gather)
        return out

    def _attend_with_lse(
        self,
        q: Tensor,
        k_pages: Tensor,
        v_pages: Tensor,
        metadata: list[Work],
        sinks: Tensor | None,
        lse: Tensor | None,
    ) -> Tensor:
        out = torch.empty((*q.shape[:-1], v_pages.shape[3]), dtype=q.dtype)
        for work in metadata:
            part, total = work.run_with_lse(
                q[work.rows], k_pages, v_pages, self.scale, self.config.soft_cap, self._gather
            )
            if sinks is not None:
                # One more exp(sink) under the fraction: exp(total) / (exp(total) + exp(sink)) of the result is left.
                part = part * torch.sigmoid(total - sinks.float()).unsqueeze(-1)
                total = torch.logaddexp(total, sinks.float())
            out[work.rows] = part.to(q.dtype)
            if lse is not None:
                lse[work.rows] = total
        return out

    def _gather(self, name: str, pages: Tensor, index: Tensor) -> Tensor:
        """pages [P, N] at ``index``, in a buffer that grows to the largest step and serves every layer."""
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < len(index):
            buffer = torch.empty((len(index), pages.shape[1]), dtype=pages.dtype)
            self._buffers[name] = buffer
        return torch.index_select(pages, 0, index, out=buffer[: len(index)])
